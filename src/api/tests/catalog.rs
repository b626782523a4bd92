//! Collections, environments, tasks and keys.

use expect_test::expect;

use super::support::Bench;

#[tokio::test]
async fn collections_are_made_shown_changed_and_removed_by_an_admin() {
    let bench = Bench::new().await;
    let told = bench
        .transcript(
            &bench.admin,
            r#"
            GET /api/v1/collections/
            POST /api/v1/collections/ {"name": "third", "description": "The third", "environment_variables": {"A": "1"}}
            POST /api/v1/collections {"name": "THIRD"}
            POST /api/v1/collections {"name": "a b"}
            POST /api/v1/collections {"description": 3}
            POST /api/v1/collections {"name": "fourth", "environment_variables": {"A": 1}}
            GET /api/v1/collections/fourth
            GET /api/v1/collections/Third
            PATCH /api/v1/collections/third {"description": null, "concurrency": 2}
            PATCH /api/v1/collections/third {"concurrency": "many"}
            GET /api/v1/collections?skip=2&limit=1
            GET /api/v1/collections?skip=-1
            DELETE /api/v1/collections/third
            DELETE /api/v1/collections/third
            "#,
        )
        .await;
    expect![[r#"
        GET /api/v1/collections/
          200 [{"id":2,"name":"other-team","description":null,"auth_org_id":null,"owner_identifier":null,"concurrency":null,"redacted_param_keys":[],"created_at":"2026-01-01T00:00:00Z"},{"id":1,"name":"team","description":null,"auth_org_id":null,"owner_identifier":null,"concurrency":null,"redacted_param_keys":[],"created_at":"2026-01-01T00:00:00Z"}]
        POST /api/v1/collections/ {"name": "third", "description": "The third", "environment_variables": {"A": "1"}}
          200 {"id":3,"name":"third","description":"The third","auth_org_id":null,"owner_identifier":null,"concurrency":null,"redacted_param_keys":[],"created_at":"2026-01-01T00:00:00Z"}
        POST /api/v1/collections {"name": "THIRD"}
          400 {"detail":"Collection already exists"}
        POST /api/v1/collections {"name": "a b"}
          400 {"detail":"The collection name `a b` is not usable: write 3 to 48 characters of `a` to `z`, `0` to `9`, `_` and `-`"}
        POST /api/v1/collections {"description": 3}
          422 {"detail":[{"loc":["body","name"],"msg":"Field required","type":"missing"},{"loc":["body","description"],"msg":"Input should be a text; it is a number","type":"type_error"}]}
        POST /api/v1/collections {"name": "fourth", "environment_variables": {"A": 1}}
          400 {"detail":"The environment variable `A` must be a text, or null to remove it: put other values in quotes"}
        GET /api/v1/collections/fourth
          404 {"detail":"Collection not found"}
        GET /api/v1/collections/Third
          200 {"id":3,"name":"third","description":"The third","auth_org_id":null,"owner_identifier":null,"concurrency":null,"redacted_param_keys":[],"created_at":"2026-01-01T00:00:00Z"}
        PATCH /api/v1/collections/third {"description": null, "concurrency": 2}
          200 {"id":3,"name":"third","description":null,"auth_org_id":null,"owner_identifier":null,"concurrency":2,"redacted_param_keys":[],"created_at":"2026-01-01T00:00:00Z"}
        PATCH /api/v1/collections/third {"concurrency": "many"}
          422 {"detail":[{"loc":["body","concurrency"],"msg":"Input should be a whole number or null; it is a text","type":"type_error"}]}
        GET /api/v1/collections?skip=2&limit=1
          200 [{"id":3,"name":"third","description":null,"auth_org_id":null,"owner_identifier":null,"concurrency":2,"redacted_param_keys":[],"created_at":"2026-01-01T00:00:00Z"}]
        GET /api/v1/collections?skip=-1
          422 {"detail":[{"loc":["query","skip"],"msg":"Input should be a whole number from 0","type":"value_error"}]}
        DELETE /api/v1/collections/third
          200 {"message":"Collection deleted successfully"}
        DELETE /api/v1/collections/third
          404 {"detail":"Collection not found"}
    "#]].assert_eq(&told);
}

#[tokio::test]
async fn a_collections_token_sees_its_own_collection_and_makes_none() {
    let bench = Bench::new().await;
    let told = bench
        .transcript(
            &bench.team,
            r#"
            GET /api/v1/collections/
            GET /api/v1/collections/TEAM
            POST /api/v1/collections/ {"name": "third"}
            DELETE /api/v1/collections/team
            GET /api/v1/api-keys
            POST /api/v1/api-keys {"name": "x", "collection_name": "team"}
            "#,
        )
        .await;
    expect![[r#"
        GET /api/v1/collections/
          200 [{"id":1,"name":"team","description":null,"auth_org_id":null,"owner_identifier":null,"concurrency":null,"redacted_param_keys":[],"created_at":"2026-01-01T00:00:00Z"}]
        GET /api/v1/collections/TEAM
          200 {"id":1,"name":"team","description":null,"auth_org_id":null,"owner_identifier":null,"concurrency":null,"redacted_param_keys":[],"created_at":"2026-01-01T00:00:00Z"}
        POST /api/v1/collections/ {"name": "third"}
          403 {"detail":"This needs an admin token; this one is for the collection `team` alone"}
        DELETE /api/v1/collections/team
          403 {"detail":"This needs an admin token; this one is for the collection `team` alone"}
        GET /api/v1/api-keys
          403 {"detail":"This needs an admin token; this one is for the collection `team` alone"}
        POST /api/v1/api-keys {"name": "x", "collection_name": "team"}
          403 {"detail":"This needs an admin token; this one is for the collection `team` alone"}
    "#]].assert_eq(&told);
}

#[tokio::test]
async fn an_environment_shows_its_names_and_never_its_values() {
    let bench = Bench::new().await;
    let told = bench
        .transcript(
            &bench.team,
            r#"
            GET /api/v1/collections/team/environment
            PATCH /api/v1/collections/team/environment {"environment_variables": {"KEY": "sk-ant-made-up-1", "OTHER": "x"}}
            PATCH /api/v1/collections/team/environment {"environment_variables": {"KEY": "[redacted]", "OTHER": null}}
            PATCH /api/v1/collections/team/environment {"environment_variables": {"NEW": "[redacted]"}}
            PATCH /api/v1/collections/team/environment {"environment_variables": {"N": 3}}
            PATCH /api/v1/collections/team/environment {"environment_variables": ["KEY"]}
            PATCH /api/v1/collections/team/environment {}
            PATCH /api/v1/collections/team/environment {"environment
            PATCH /api/v1/collections/team/environment []
            PATCH /api/v1/collections/team/environment {"environment_variables": null}
            "#,
        )
        .await;
    expect![[r#"
        GET /api/v1/collections/team/environment
          200 {"id":1,"name":"team","description":null,"auth_org_id":null,"owner_identifier":null,"concurrency":null,"redacted_param_keys":[],"created_at":"2026-01-01T00:00:00Z","environment_variables":{}}
        PATCH /api/v1/collections/team/environment {"environment_variables": {"KEY": "sk-ant-made-up-1", "OTHER": "x"}}
          200 {"id":1,"name":"team","description":null,"auth_org_id":null,"owner_identifier":null,"concurrency":null,"redacted_param_keys":[],"created_at":"2026-01-01T00:00:00Z","environment_variables":{"KEY":"[redacted]","OTHER":"[redacted]"}}
        PATCH /api/v1/collections/team/environment {"environment_variables": {"KEY": "[redacted]", "OTHER": null}}
          200 {"id":1,"name":"team","description":null,"auth_org_id":null,"owner_identifier":null,"concurrency":null,"redacted_param_keys":[],"created_at":"2026-01-01T00:00:00Z","environment_variables":{"KEY":"[redacted]"}}
        PATCH /api/v1/collections/team/environment {"environment_variables": {"NEW": "[redacted]"}}
          400 {"detail":"`NEW` has the value `[redacted]`, which stands for a hidden one, and there is no variable of that name: send its value"}
        PATCH /api/v1/collections/team/environment {"environment_variables": {"N": 3}}
          400 {"detail":"The environment variable `N` must be a text, or null to remove it: put other values in quotes"}
        PATCH /api/v1/collections/team/environment {"environment_variables": ["KEY"]}
          422 {"detail":[{"loc":["body","environment_variables"],"msg":"Input should be an object or null; it is a list","type":"type_error"}]}
        PATCH /api/v1/collections/team/environment {}
          200 {"id":1,"name":"team","description":null,"auth_org_id":null,"owner_identifier":null,"concurrency":null,"redacted_param_keys":[],"created_at":"2026-01-01T00:00:00Z","environment_variables":{"KEY":"[redacted]"}}
        PATCH /api/v1/collections/team/environment {"environment
          422 {"detail":[{"loc":["body",13],"msg":"JSON decode error: EOF while parsing a string at line 1 column 13","type":"json_invalid"}]}
        PATCH /api/v1/collections/team/environment []
          422 {"detail":[{"loc":["body"],"msg":"Input should be an object; it is a list","type":"type_error"}]}
        PATCH /api/v1/collections/team/environment {"environment_variables": null}
          200 {"id":1,"name":"team","description":null,"auth_org_id":null,"owner_identifier":null,"concurrency":null,"redacted_param_keys":[],"created_at":"2026-01-01T00:00:00Z","environment_variables":{}}
    "#]].assert_eq(&told);
    assert!(!told.lines().any(|line| line.starts_with("  ") && line.contains("made-up")));
}

#[tokio::test]
async fn a_masked_value_that_is_sent_back_does_not_replace_the_real_one() {
    let bench = Bench::new().await;
    let path = "/api/v1/collections/team/environment";
    let set = r#"{"environment_variables": {"KEY": "sk-ant-made-up-1"}}"#;
    bench.ask(&bench.team, "PATCH", path, set).await;
    let shown = bench.ask(&bench.team, "GET", path, "").await;
    bench.ask(&bench.team, "PATCH", path, &shown.text).await;
    let team = crate::run::Slug::new("team").unwrap();
    let kept = bench.api.catalog.environment(&team).await.unwrap();
    assert_eq!(kept["KEY"].expose(), "sk-ant-made-up-1");
}

#[tokio::test]
async fn tasks_are_made_shown_changed_searched_and_removed() {
    let bench = Bench::new().await;
    let told = bench
        .transcript(
            &bench.team,
            r#"
            GET /api/v1/tasks/team/
            POST /api/v1/tasks/team {"name": "Triage/x", "workflow": {}}
            POST /api/v1/tasks/team {"name": "Triage", "description": "Sorts", "is_chat_flow": true, "workflow": {"init_params": {"instruction": "Do."}, "step_configs": {"run": {"activity": "runbook", "agent": "claude-code", "instruction_path": "init_params.instruction"}}, "steps": ["run"]}}
            POST /api/v1/tasks/team {"name": "TRIAGE", "workflow": {"init_params": {}, "step_configs": {"run": {"activity": "runbook"}}, "steps": ["run"]}}
            GET /api/v1/tasks/team/triage
            GET /api/v1/tasks/team/
            GET /api/v1/tasks/team?limit=0
            PUT /api/v1/tasks/team/triage/ {"description": "Sorts mail", "id": 99, "version": null}
            PUT /api/v1/tasks/team/nothing {"workflow": 3}
            GET /api/v1/tasks/team/search?q=MAIL
            GET /api/v1/db/flows/team?limit=1&skip=1
            DELETE /api/v1/tasks/team/Triage
            DELETE /api/v1/tasks/team/Triage
            GET /api/v1/tasks/team/a%2Fb
            "#,
        )
        .await;
    expect![[r#"
        GET /api/v1/tasks/team/
          200 []
        POST /api/v1/tasks/team {"name": "Triage/x", "workflow": {}}
          422 {"detail":[{"loc":["body","workflow"],"msg":"`steps` names no step: write the names of steps from `step_configs`, such as `[\"run\"]`","type":"value_error"}]}
        POST /api/v1/tasks/team {"name": "Triage", "description": "Sorts", "is_chat_flow": true, "workflow": {"init_params": {"instruction": "Do."}, "step_configs": {"run": {"activity": "runbook", "agent": "claude-code", "instruction_path": "init_params.instruction"}}, "steps": ["run"]}}
          201 {"id":1,"name":"Triage","entity_type":"task","description":"Sorts","workflow":{"init_params":{"instruction":"Do."},"step_configs":{"run":{"activity":"runbook","agent":"claude-code","instruction_path":"init_params.instruction"}},"steps":["run"]},"collection_id":1,"is_private":true,"is_chat_flow":true,"has_file_uploads":false,"version":null,"croissant_metadata":null,"created_at":"2026-01-01T00:00:00Z","updated_at":null,"environment_variables":null,"storage_info":null,"storage_provider":null}
        POST /api/v1/tasks/team {"name": "TRIAGE", "workflow": {"init_params": {}, "step_configs": {"run": {"activity": "runbook"}}, "steps": ["run"]}}
          409 {"detail":"Task with name 'TRIAGE' already exists in collection 'team'"}
        GET /api/v1/tasks/team/triage
          200 {"id":1,"name":"Triage","entity_type":"task","description":"Sorts","workflow":{"init_params":{"instruction":"Do."},"step_configs":{"run":{"activity":"runbook","agent":"claude-code","instruction_path":"init_params.instruction"}},"steps":["run"]},"collection_id":1,"is_private":true,"is_chat_flow":true,"has_file_uploads":false,"version":null,"croissant_metadata":null,"created_at":"2026-01-01T00:00:00Z","updated_at":null,"environment_variables":null,"storage_info":null,"storage_provider":null}
        GET /api/v1/tasks/team/
          200 [{"id":1,"name":"Triage","entity_type":"task","description":"Sorts","workflow":{"init_params":{"instruction":"Do."},"step_configs":{"run":{"activity":"runbook","agent":"claude-code","instruction_path":"init_params.instruction"}},"steps":["run"]},"collection_id":1,"is_private":true,"is_chat_flow":true,"has_file_uploads":false,"version":null,"croissant_metadata":null,"collection_name":"team"}]
        GET /api/v1/tasks/team?limit=0
          422 {"detail":[{"loc":["query","limit"],"msg":"Input should be 1 to 500","type":"value_error"}]}
        PUT /api/v1/tasks/team/triage/ {"description": "Sorts mail", "id": 99, "version": null}
          200 {"id":1,"name":"Triage","entity_type":"task","description":"Sorts mail","workflow":{"init_params":{"instruction":"Do."},"step_configs":{"run":{"activity":"runbook","agent":"claude-code","instruction_path":"init_params.instruction"}},"steps":["run"]},"collection_id":1,"is_private":true,"is_chat_flow":true,"has_file_uploads":false,"version":null,"croissant_metadata":null,"created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z","environment_variables":null,"storage_info":null,"storage_provider":null}
        PUT /api/v1/tasks/team/nothing {"workflow": 3}
          404 {"detail":"Task 'nothing' in collection 'team' not found"}
        GET /api/v1/tasks/team/search?q=MAIL
          200 {"found":1,"hits":[{"document":{"id":1,"name":"Triage","entity_type":"task","description":"Sorts mail","workflow":{"init_params":{"instruction":"Do."},"step_configs":{"run":{"activity":"runbook","agent":"claude-code","instruction_path":"init_params.instruction"}},"steps":["run"]},"collection_id":1,"is_private":true,"is_chat_flow":true,"has_file_uploads":false,"version":null,"croissant_metadata":null,"collection_name":"team"}}]}
        GET /api/v1/db/flows/team?limit=1&skip=1
          200 []
        DELETE /api/v1/tasks/team/Triage
          200 {"message":"Task deleted successfully"}
        DELETE /api/v1/tasks/team/Triage
          404 {"detail":"Task 'Triage' in collection 'team' not found"}
        GET /api/v1/tasks/team/a%2Fb
          404 {"detail":"Task 'a/b' in collection 'team' not found"}
    "#]].assert_eq(&told);
}

#[tokio::test]
async fn a_workflow_that_cannot_run_is_refused_when_it_is_written() {
    let bench = Bench::new().await;
    let told = bench
        .transcript(
            &bench.team,
            r#"
            POST /api/v1/tasks/team {"name": "a", "workflow": {"init_params": {}, "step_configs": {"run": {"activity": "completion"}, "b": {"activity": "teleport"}}, "steps": ["run", "b", "c"]}}
            POST /api/v1/tasks/team {"workflow": []}
            POST /api/v1/tasks/team {"name": "search", "workflow": {"steps": ["run"]}}
            GET /api/v1/tasks/team/
            "#,
        )
        .await;
    expect![[r#"
        POST /api/v1/tasks/team {"name": "a", "workflow": {"init_params": {}, "step_configs": {"run": {"activity": "completion"}, "b": {"activity": "teleport"}}, "steps": ["run", "b", "c"]}}
          422 {"detail":[{"loc":["body","workflow"],"msg":"The activity `completion` of the step `run` is not supported: such a task records chat requests and cannot be run. To run a runbook, write `\"activity\": \"runbook\"` with `\"instruction_path\": \"init_params.instruction\"`","type":"value_error"},{"loc":["body","workflow"],"msg":"The activity `teleport` of the step `b` is not supported: supported is `runbook`","type":"value_error"},{"loc":["body","workflow"],"msg":"The step `c` has no entry in `step_configs`: configured are `run`, `b`","type":"value_error"}]}
        POST /api/v1/tasks/team {"workflow": []}
          422 {"detail":[{"loc":["body","name"],"msg":"Field required","type":"missing"},{"loc":["body","workflow"],"msg":"Input should be an object; it is a list","type":"type_error"}]}
        POST /api/v1/tasks/team {"name": "search", "workflow": {"steps": ["run"]}}
          400 {"detail":"A task cannot be called `search`: that path searches. Choose another name"}
        GET /api/v1/tasks/team/
          200 []
    "#]].assert_eq(&told);
}

#[tokio::test]
async fn keys_are_shown_in_plain_text_once() {
    let bench = Bench::new().await;
    let made = bench
        .ask(
            &bench.admin,
            "POST",
            "/api/v1/api-keys/",
            r#"{"name": "ci", "collection_name": "Team"}"#,
        )
        .await
        .json();
    let key = crate::secret::Secret::new(made["api_key"].as_str().unwrap().to_owned());
    let who = bench.ask(&key, "GET", "/api/v1/auth/whoami", "").await;
    let told = bench
        .transcript(
            &bench.admin,
            r#"
            POST /api/v1/api-keys {"name": "ci", "collection_name": "team"}
            POST /api/v1/api-keys {"name": "ci"}
            POST /api/v1/api-keys {"name": "ci", "collection_name": "nowhere"}
            PUT /api/v1/api-keys/99 {"name": "x"}
            PUT /api/v1/api-keys/x {"name": "x"}
            DELETE /api/v1/api-keys/99
            "#,
        )
        .await;
    let list = bench.ask(&bench.admin, "GET", "/api/v1/api-keys/collection/team", "").await;
    assert!(!list.text.contains(key.expose()) && !list.text.contains("\"api_key\""), "{list:?}");
    expect![[r#"
        {"type":"api_key","name":"ci","scope":"collection","collection_name":"team"}
        POST /api/v1/api-keys {"name": "ci", "collection_name": "team"}
          400 {"detail":"An API key with the name 'ci' already exists for this collection"}
        POST /api/v1/api-keys {"name": "ci"}
          422 {"detail":[{"loc":["body","collection_name"],"msg":"Write the collection's name, or `scope`: `admin` for a key that opens all","type":"missing"}]}
        POST /api/v1/api-keys {"name": "ci", "collection_name": "nowhere"}
          404 {"detail":"Collection not found"}
        PUT /api/v1/api-keys/99 {"name": "x"}
          404 {"detail":"There is no API key `99`"}
        PUT /api/v1/api-keys/x {"name": "x"}
          404 {"detail":"The path cannot be read: Cannot parse `x` to a `u64`"}
        DELETE /api/v1/api-keys/99
          404 {"detail":"There is no API key `99`"}
    "#]].assert_eq(&format!("{}\n{told}", who.text));
}

#[tokio::test]
async fn what_only_the_hosted_service_has_is_told_plainly() {
    let bench = Bench::new().await;
    let told = bench
        .transcript(
            &bench.team,
            r#"
            GET /api/v1/models/team/
            GET /api/v1/datasets/team
            GET /api/v1/trial/team
            POST /api/v1/trial/team/activate
            GET /api/v1/connected-accounts
            POST /api/v1/connected-accounts/codex/begin {}
            POST /api/v1/files/upload
            GET /api/v1/step-templates/completion
            "#,
        )
        .await;
    expect![[r#"
        GET /api/v1/models/team/
          200 []
        GET /api/v1/datasets/team
          200 []
        GET /api/v1/trial/team
          200 {"active":false,"status":"unavailable","runs_used":0,"runs_limit":0,"runs_remaining":0,"message":"This server has no trial: put the provider's key into the collection's environment with PATCH /api/v1/collections/{collection}/environment"}
        POST /api/v1/trial/team/activate
          200 {"active":false,"status":"unavailable","runs_used":0,"runs_limit":0,"runs_remaining":0,"message":"This server has no trial: put the provider's key into the collection's environment with PATCH /api/v1/collections/{collection}/environment"}
        GET /api/v1/connected-accounts
          200 []
        POST /api/v1/connected-accounts/codex/begin {}
          400 {"detail":"This server links no accounts: put the provider's key into the collection's environment with PATCH /api/v1/collections/{collection}/environment"}
        POST /api/v1/files/upload
          405 {"detail":"Uploads go to POST /api/v1/sandbox/upload (field `files`; its paths go into `file_paths`) or to POST /api/v1/files (field `file`; its id goes into `files`)"}
        GET /api/v1/step-templates/completion
          404 {"detail":"There is no step template `completion`: this server runs `runbook`"}
    "#]].assert_eq(&told);
    let templates = bench.get("/api/v1/step-templates/").await.json();
    assert_eq!(templates["total_count"], 1);
    assert_eq!(templates["templates"][0], bench.get("/api/v1/step-templates/runbook").await.json());
    assert_eq!(templates["templates"][0]["name"], templates["templates"][0]["activity_name"]);
}
