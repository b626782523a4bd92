//! Whole workflows: what is refused, what is noted, and what a request makes of them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Resolved, RunbookStep, Workflow, WorkflowProblem};
use crate::run::Network;

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

/// A workflow of one step `run` with these settings besides its activity.
fn with_step(init_params: Value, settings: Value) -> Value {
    let mut config = object(json!({"activity": "runbook"}));
    config.extend(object(settings));
    json!({"init_params": init_params, "step_configs": {"run": config}, "steps": ["run"]})
}

fn resolve(workflow: &Value, request: Value) -> Result<Resolved, String> {
    let workflow = Workflow::parse(workflow).map_err(|e| format!("at write: {e}"))?;
    workflow.resolve(&object(request)).map_err(|e| e.to_string())
}

fn only_step(resolved: Result<Resolved, String>) -> RunbookStep {
    let mut resolved = resolved.unwrap();
    assert_eq!(resolved.steps.len(), 1);
    resolved.steps.remove(0)
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn run_step(instruction: &str) -> RunbookStep {
    RunbookStep {
        name: "run".to_owned(),
        instruction: instruction.to_owned(),
        ..RunbookStep::default()
    }
}

/// As the hosted service's own examples deploy it: there is no `model_provider_path`.
fn grader() -> Value {
    json!({
        "init_params": {"agent": "claude-code", "model": "m", "model_provider": "anthropic",
            "snapshot": "python312-uv", "instruction": "---\n---\n# Grade\n", "vars": {},
            "file_paths": []},
        "step_configs": {"run": {"cpus": 2, "memory": "4G", "activity": "runbook",
            "agent_path": "init_params.agent", "model_path": "init_params.model",
            "snapshot_path": "init_params.snapshot",
            "instruction_path": "init_params.instruction", "files_path": "init_params.file_paths",
            "template_variables_path": "init_params.vars"}},
        "steps": ["run"],
    })
}

#[test]
fn a_deployed_task_runs_with_its_own_parameters() {
    let expected = RunbookStep {
        agent: Some("claude-code".to_owned()),
        model: Some("m".to_owned()),
        model_provider: Some("anthropic".to_owned()),
        snapshot: Some("python312-uv".to_owned()),
        cpus: Some(2.0),
        memory_bytes: Some(4 << 30),
        ..run_step("---\n---\n# Grade\n")
    };
    let resolved = resolve(&grader(), json!({})).unwrap();
    assert_eq!(resolved.steps, [expected]);
    assert_eq!(resolved.notes, [""; 0]);
    assert_eq!(Value::Object(resolved.init_params), grader()["init_params"]);
    assert_eq!(Workflow::parse(&grader()).unwrap().warnings(), [""; 0]);
}

#[test]
fn a_request_decides_over_the_task() {
    let request = json!({"model": "other", "vars": {"a": 1}, "file_paths": ["c/_x/f.json"]});
    let resolved = resolve(&grader(), request.clone()).unwrap();
    assert_eq!(resolved.steps[0].model.as_deref(), Some("other"));
    assert_eq!(resolved.steps[0].template_variables, map(&[("a", "1")]));
    assert_eq!(resolved.steps[0].file_paths, ["c/_x/f.json"]);
    assert_eq!(resolved.init_params["vars"], request["vars"]);
    assert_eq!(resolved.init_params["agent"], json!("claude-code"));
}

#[test]
fn every_parameter_is_read_by_value_by_path_and_directly() {
    let values = json!({
        "instruction": "# R {{a}}\n", "agent": "claude-code", "model": "m",
        "model_provider": "bedrock", "snapshot": "s", "image": "i:1", "apt_packages": ["jq", "git"],
        "template_variables": {"a": "x", "n": 1.5, "f": true, "none": null, "l": [1]},
        "files": ["file-1"], "file_paths": ["c/a.txt"],
        "mcp_servers": {"docs": {"type": "http"}}, "cpus": 0.5, "memory": "512M", "disk": "2G",
        "timeout_sec": 60, "max_turns": 5, "max_cost_usd": 2.5, "max_tokens": 9, "max_requests": 3,
        "network": {"mode": "allowlist", "allow": ["pypi.org"]}, "network_enabled": false,
        "agent_env": {"LANG": "C", "N": 1}, "script": "- say: hi\n", "prompt": "Go.",
    });
    let expected = RunbookStep {
        agent: Some("claude-code".to_owned()),
        model: Some("m".to_owned()),
        model_provider: Some("bedrock".to_owned()),
        snapshot: Some("s".to_owned()),
        image: Some("i:1".to_owned()),
        apt_packages: vec!["jq".to_owned(), "git".to_owned()],
        template_variables: map(&[("a", "x"), ("n", "1.5"), ("f", "true"), ("l", "[1]")]),
        files: vec!["file-1".to_owned()],
        file_paths: vec!["c/a.txt".to_owned()],
        mcp_servers: [("docs".to_owned(), json!({"type": "http"}))].into(),
        cpus: Some(0.5),
        memory_bytes: Some(512 << 20),
        disk_bytes: Some(2 << 30),
        timeout_sec: Some(60),
        max_turns: Some(5),
        max_cost_usd: Some(2.5),
        max_tokens: Some(9),
        max_requests: Some(3),
        network: Some(Network::Allowlist(vec!["pypi.org".parse().unwrap()])),
        network_enabled: Some(false),
        agent_env: map(&[("LANG", "C"), ("N", "1")]),
        script: Some("- say: hi\n".to_owned()),
        ..run_step("# R {{a}}\n")
    };
    let by_path: Map<String, Value> = super::PARAMETERS
        .iter()
        .map(|p| (format!("{}_path", p.name), json!(format!("init_params.in[0].{}", p.name))))
        .collect();
    assert_eq!(values.as_object().unwrap().len(), super::PARAMETERS.len(), "all are tested");
    let prompt = Some("Go.".to_owned());
    for (workflow, request, prompt) in [
        (with_step(json!({}), values.clone()), json!({}), prompt.clone()),
        (with_step(json!({}), by_path.into()), json!({"in": [values]}), prompt),
        (with_step(json!({}), json!({})), values.clone(), None),
    ] {
        let step = only_step(resolve(&workflow, request));
        assert_eq!(step, RunbookStep { prompt, ..expected.clone() }, "{workflow}");
        let frozen = serde_json::to_string(&step).unwrap();
        assert_eq!(serde_json::from_str::<RunbookStep>(&frozen).unwrap(), step);
    }
}

#[test]
fn simple_values_fill_the_places_of_a_runbook_and_variables_come_first() {
    let workflow = with_step(
        json!({"instruction": "{{branch}} {{ n }} {{model}} {{list}} {{a}} {{gone}}", "a": "own"}),
        json!({}),
    );
    let request = json!({"branch": "main", "n": 2, "model": "m", "list": [1], "gone": null,
        "other": "x", "vars": {"a": "var", "unused": "y"}});
    let resolved = resolve(&workflow, request).unwrap();
    assert_eq!(
        resolved.steps[0].template_variables,
        map(&[("branch", "main"), ("n", "2"), ("model", "m"), ("a", "var"), ("unused", "y")])
    );
    assert_eq!(
        resolved.notes,
        ["list", "other"].map(|key| format!(
            "`init_params.{key}` is not used: no step reads it and no runbook has a place for \
             `{{{{{key}}}}}`"
        ))
    );
}

#[test]
fn a_path_to_nothing_counts_as_not_given_and_is_said() {
    let settings = json!({"model_path": "init_params.deep.model", "agent_path": "init_params.agent",
        "snapshot": "own", "snapshot_path": "init_params.box"});
    let workflow = with_step(json!({"instruction": "x"}), settings);
    let resolved = resolve(&workflow, json!({"agent": "  "})).unwrap();
    assert_eq!(
        resolved.steps[0],
        RunbookStep { snapshot: Some("own".to_owned()), ..run_step("x") }
    );
    assert_eq!(
        resolved.notes,
        ["nothing stands at `init_params.deep.model`, where the step `run` looks for `model`: it \
          counts as not given"]
    );
}

#[test]
fn what_the_workflow_sets_itself_wins_and_is_said() {
    let workflow = with_step(json!({"instruction": "x"}), json!({"timeout_sec": 5}));
    let resolved = resolve(&workflow, json!({"timeout_sec": 9})).unwrap();
    assert_eq!(resolved.steps[0].timeout_sec, Some(5));
    assert_eq!(resolved.notes.len(), 1);
    assert!(resolved.notes[0].contains("\"timeout_sec_path\": \"init_params.timeout_sec\""));
}

#[test]
fn stored_files_are_told_apart_wherever_they_stand() {
    let step = only_step(resolve(
        &grader(),
        json!({"file_paths": ["c/_u/1/a.txt", "file-1", "c/_u/1/a.txt"],
            "files": ["c/_u/1/b.txt", "file-2", "file-1"]}),
    ));
    assert_eq!(step.file_paths, ["c/_u/1/a.txt", "c/_u/1/b.txt"]);
    assert_eq!(step.files, ["file-1", "file-2"]);
}

#[test]
fn several_steps_keep_their_order() {
    let workflow = json!({
        "step_configs": {
            "review": {"activity": "runbook", "instruction_path": "init_params.second"},
            "play": {"activity": "runbook"},
        },
        "steps": ["play", "review"],
    });
    let resolved = resolve(&workflow, json!({"instruction": "1", "second": "2"})).unwrap();
    let steps: Vec<_> =
        resolved.steps.iter().map(|s| (s.name.as_str(), s.instruction.as_str())).collect();
    assert_eq!(steps, [("play", "1"), ("review", "2")]);
    assert_eq!(
        resolve(&workflow, json!({"instruction": "1"})).map(|_| ()),
        Ok(()),
        "a path to nothing falls back to the parameter itself"
    );
}

/// Two steps; the second has these settings besides its activity.
fn draft_and_review(settings: Value) -> Value {
    let mut config = object(json!({"activity": "runbook"}));
    config.extend(object(settings));
    json!({
        "init_params": {"instruction": "# R {{text}} {{a}}", "a": "own"},
        "step_configs": {"draft": {"activity": "runbook"}, "review": config},
        "steps": ["draft", "review"],
    })
}

fn left_by_draft() -> Map<String, Value> {
    object(json!({"draft": {"outputs": {
        "text": "A draft.", "files": ["c/t/x/steps/draft/results/a.md"],
        "results_files": [{"path": "c/t/x/steps/draft/results/a.md"}], "num": 3,
    }}}))
}

#[test]
fn what_an_earlier_step_will_tell_is_left_open_and_decided_when_it_has_ended() {
    let workflow = draft_and_review(json!({
        "template_variables_path": "draft.outputs",
        "files_path": "draft.outputs.results_files[*].path",
        "model_path": "draft.outputs.none", "model": "m",
    }));
    let workflow = Workflow::parse(&workflow).unwrap();
    let resolved = workflow.resolve(&object(json!({"file_paths": ["c/b.txt"]}))).unwrap();
    assert_eq!(resolved.notes, [""; 0]);
    let review = &resolved.steps[1];
    assert_eq!(review.left_open, ["files", "model", "template_variables"].into());
    assert_eq!((&review.model, &review.file_paths), (&None, &vec!["c/b.txt".to_owned()]));
    let left = left_by_draft();
    let later = workflow.resolve_step("review", &resolved.init_params, &left).unwrap().unwrap();
    let expected = map(&[("text", "A draft."), ("a", "own")]);
    assert_eq!(later.step.template_variables, expected, "only what the runbook has a place for");
    assert_eq!(later.step.model.as_deref(), Some("m"), "nothing stands there: not given");
    assert_eq!(later.step.file_paths, ["c/b.txt", "c/t/x/steps/draft/results/a.md"]);
    assert_eq!(later.step.left_open, [].into());
    assert_eq!(workflow.resolve_step("gone", &resolved.init_params, &left), None);
}

#[test]
fn a_later_step_that_does_not_get_what_it_needs_says_where_it_looked() {
    let open = |settings| {
        let mut workflow = draft_and_review(settings);
        workflow["init_params"]["instruction"] = Value::Null;
        workflow["step_configs"]["draft"]["instruction"] = json!("# D");
        Workflow::parse(&workflow).unwrap()
    };
    for (settings, expected) in [
        (
            json!({"instruction_path": "draft.outputs.plan"}),
            "the step `review` has no instruction: nothing stands at `draft.outputs.plan`",
        ),
        (
            json!({"instruction_path": "draft.outputs.num"}),
            "`draft.outputs.num` must be a text: the runbook with its front matter; it is the number 3",
        ),
    ] {
        let workflow = open(settings);
        let init_params = workflow.resolve(&Map::new()).unwrap().init_params;
        let refused = workflow.resolve_step("review", &init_params, &left_by_draft()).unwrap();
        assert_eq!(refused.unwrap_err().to_string(), expected);
    }
    let workflow = open(json!({"instruction_path": "draft.outputs.text"}));
    let later = workflow.resolve_step("review", &Map::new(), &left_by_draft()).unwrap().unwrap();
    assert_eq!(later.step.instruction, "A draft.");
    let twin = json!({"instruction_path": "init_params.gone"});
    let refused = open(twin).resolve(&Map::new()).unwrap_err().to_string();
    assert!(refused.starts_with("the step `review` has no instruction: give"), "{refused}");
}

#[test]
fn only_outputs_of_steps_that_come_before_can_be_read() {
    for (path, expected) in [
        (
            "review.outputs.text",
            "cannot be read: a step can read only the outputs of steps that come",
        ),
        ("draft.inputs.assets", "cannot be read: of a step only its outputs"),
        ("other.outputs.text", "cannot be read: only values of the request"),
    ] {
        refused(&draft_and_review(json!({"files_path": path})), expected);
    }
}

fn refused(workflow: &Value, expected: &str) {
    let error = Workflow::parse(workflow).unwrap_err().to_string();
    assert!(error.contains(expected), "{workflow}\n{error}\n{expected}");
}

#[test]
fn what_is_wrong_with_a_workflow_is_said_all_at_once() {
    let run = json!({"activity": "runbook"});
    for (workflow, expected) in [
        (
            json!([]),
            "`workflow` must be an object of `init_params`, `step_configs` and `steps`; it is a list",
        ),
        (json!({}), "`steps` names no step"),
        (json!({"steps": [], "step_configs": {}}), "`steps` names no step"),
        (json!({"steps": "run"}), "`steps` must be a list of the names of steps"),
        (json!({"steps": [1]}), "`steps[0]` must be the name of a step; it is the number 1"),
        (json!({"steps": ["a/b"]}), "the step name \"a/b\" is not usable"),
        (
            json!({"steps": ["run"]}),
            "the step `run` has no entry in `step_configs`, which is empty",
        ),
        (
            json!({"steps": ["run"], "step_configs": {"go": run}}),
            "`step_configs`: configured are `go`",
        ),
        (
            json!({"steps": ["run"], "step_configs": {"run": 1}}),
            "`step_configs.run` must be an object",
        ),
        (json!({"steps": ["run", "run"], "step_configs": {"run": run}}), "names `run` twice"),
        (
            json!({"steps": vec!["run"; 33], "step_configs": {"run": run}}),
            "33 steps: write at most 32",
        ),
        (
            json!({"steps": ["run"], "step_configs": {"run": {}}}),
            "`step_configs.run.activity` must be an activity: write `\"runbook\"`; it is null",
        ),
        (
            json!({"steps": ["run"], "step_configs": {"run": {"activity": "litellm_chat"}}}),
            "the activity `litellm_chat` of the step `run` is not supported: supported is `runbook`",
        ),
        (
            json!({"steps": ["run"], "step_configs": {"run": {"activity": "completion"}}}),
            "write `\"activity\": \"runbook\"` with `\"instruction_path\": \"init_params.instruction\"`",
        ),
    ] {
        refused(&workflow, expected);
    }
}

#[test]
fn a_value_of_a_wrong_type_is_named_by_its_path() {
    for (workflow, expected) in [
        (
            with_step(json!([]), json!({})),
            "`init_params` must be an object of names and values; it is a list",
        ),
        (with_step(json!({"init_params": {}}), json!({})), "wrapped twice"),
        (
            with_step(json!({}), json!({"cpus": "2"})),
            "`step_configs.run.cpus` must be a number above 0, such as `2` or `0.5`; it is a text",
        ),
        (with_step(json!({}), json!({"timeout_sec": 0})), "it is the number 0"),
        (with_step(json!({}), json!({"memory": "lots"})), "must be a size such as"),
        (with_step(json!({}), json!({"network_enabled": "no"})), "must be `true` or `false`"),
        (with_step(json!({}), json!({"network": "lan"})), "must be `none`, `public`, `open`, or"),
        (with_step(json!({}), json!({"network": {"allow": []}})), "must be `none`, `public`"),
        (with_step(json!({}), json!({"mcp_servers": {"a b": {}}})), "must be an object of servers"),
        (with_step(json!({}), json!({"agent_env": {"A-B": "x"}})), "environment variables"),
        (
            with_step(json!({"model": 5}), json!({})),
            "`init_params.model` must be a text; it is the number 5",
        ),
        (
            with_step(json!({"m": [1]}), json!({"model_path": "init_params.m[0]"})),
            "`init_params.m[0]` must be a text; it is the number 1",
        ),
        (
            with_step(json!({}), json!({"files_path": "play.outputs.files"})),
            "`step_configs.run.files_path` holds the path `play.outputs.files`, which cannot be read: only",
        ),
        (
            with_step(json!({}), json!({"files_path": 1})),
            "must be a path, such as `init_params.model`",
        ),
        (
            with_step(json!({}), json!({"cpus": -1, "model": []})),
            "; `step_configs.run.cpus` must be",
        ),
    ] {
        refused(&workflow, expected);
    }
}

#[test]
fn what_does_nothing_is_warned_of() {
    let workflow = json!({
        "init_params": {"instruction": "x", "colour": "red"},
        "step_configs": {
            "run": {"activity": "runbook", "colour": 1, "agent": "init_params.agent",
                "code_checks": {}, "files_path": "init_params.file_paths"},
            "old": {"activity": "completion"},
        },
        "steps": ["run"],
        "version": 1,
    });
    let workflow = Workflow::parse(&workflow).unwrap();
    let expected = [
        "the workflow's key `version` is not known and does nothing",
        "the step `old` is configured, but `steps` does not name it: it is not run",
        "`colour` of the step `run` is not known and does nothing",
        "`agent` of the step `run` is taken literally: to read it from the request, write \
         `agent_path`",
        "`code_checks` of the step `run` is kept, but not carried out here",
        "`init_params.colour` is not used: no step reads it and no runbook has a place for \
         `{{colour}}`",
    ];
    assert_eq!(workflow.warnings(), expected);
}

#[test]
fn a_request_that_cannot_be_read_is_refused() {
    let task = with_step(json!({}), json!({}));
    for (request, expected) in [
        (
            json!({}),
            "the step `run` has no instruction: give the runbook's text as `init_params.instruction`",
        ),
        (json!({"instruction": " \n"}), "the step `run` has no instruction"),
        (
            json!({"instruction": ["x"]}),
            "`init_params.instruction` must be a text: the runbook with its front matter; it is a list",
        ),
        (json!({"init_params": {"instruction": "x"}}), "wrapped twice"),
        (
            json!({"instruction": "x", "vars": "a=b"}),
            "`init_params.vars` must be an object of names and values",
        ),
        (
            json!({"instruction": "x", "file_paths": [1]}),
            "`init_params.file_paths` must be a list of stored files",
        ),
    ] {
        let error = resolve(&task, request.clone()).unwrap_err();
        assert!(error.contains(expected), "{request}\n{error}");
    }
}

#[test]
fn an_error_does_not_repeat_a_value() {
    let task = with_step(json!({"instruction": "x"}), json!({}));
    let made_up = "sk-ant-made-up-1";
    let error = resolve(&task, json!({"agent_env": {"no-name": made_up}, "vars": made_up}));
    assert!(!error.unwrap_err().contains(made_up));
}

#[test]
fn a_chat_request_gives_its_task_everything() {
    let workflow = Workflow::of_chat_task();
    assert_eq!(workflow.warnings(), [""; 0]);
    let request = json!({"instruction": "x", "agent": "claude-code", "model": "m",
        "model_provider": "scripted", "script": "- say: hi", "vars": {}, "file_paths": ["c/f"]});
    let resolved = workflow.resolve(&object(request)).unwrap();
    let expected = RunbookStep {
        agent: Some("claude-code".to_owned()),
        model: Some("m".to_owned()),
        model_provider: Some("scripted".to_owned()),
        script: Some("- say: hi".to_owned()),
        file_paths: vec!["c/f".to_owned()],
        snapshot: Some("python312-uv".to_owned()),
        cpus: Some(4.0),
        memory_bytes: Some(8 << 30),
        timeout_sec: Some(1200),
        network_enabled: Some(true),
        ..run_step("x")
    };
    assert_eq!((resolved.steps, resolved.notes), (vec![expected], vec![]));
}

#[test]
fn overrides_that_the_workflow_does_not_declare_are_named() {
    let workflow = Workflow::parse(&grader()).unwrap();
    let overrides = object(json!({"model": "m", "vars": {}, "colour": 1}));
    assert_eq!(workflow.undeclared(&overrides), ["colour"]);
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(init_params)?[.a-c\\[\\]*0{}]{0,6}".prop_map(Value::from),
    ];
    let key = proptest::sample::select(vec![
        "activity",
        "agent",
        "model_path",
        "files",
        "memory",
        "vars",
        "mcp_servers",
        "agent_env",
        "instruction",
        "run",
        "x",
    ]);
    leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((key.clone(), inner), 0..4).prop_map(|pairs| {
                Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_makes_it_panic_and_every_step_that_resolves_is_whole(
        init_params in any_value(), config in any_value(), request in any_value(),
    ) {
        let mut config = config;
        if let Some(config) = config.as_object_mut() {
            config.insert("activity".to_owned(), json!("runbook"));
        }
        let workflow =
            json!({"init_params": init_params, "step_configs": {"run": config}, "steps": ["run"]});
        let Ok(workflow) = Workflow::parse(&workflow) else { return Ok(()) };
        let request = request.as_object().cloned().unwrap_or_default();
        match workflow.resolve(&request) {
            Ok(resolved) => {
                let step = &resolved.steps[0];
                prop_assert!(!step.instruction.trim().is_empty());
                prop_assert!(step.template_variables.len() <= 64);
                prop_assert!(step.mcp_servers.values().all(Value::is_object));
            }
            Err(error) => prop_assert!(!error.problems.is_empty()),
        }
    }

    #[test]
    fn a_key_of_the_request_always_wins(own in ".{0,8}", asked in "[a-z]{1,8}") {
        let workflow = with_step(json!({"instruction": "x", "model": own}), json!({}));
        let step = only_step(resolve(&workflow, json!({"model": asked.clone()})));
        prop_assert_eq!(step.model, Some(asked));
    }
}

#[test]
fn a_problem_can_be_told_apart_by_its_kind() {
    let error = Workflow::parse(&json!({})).unwrap_err();
    assert_eq!(error.problems, [WorkflowProblem::NoSteps]);
}

#[test]
fn every_parameter_is_documented() {
    let text = include_str!("../../docs/workflows.md");
    for parameter in super::PARAMETERS {
        assert!(text.contains(&format!("`{}`", parameter.name)), "{}", parameter.name);
    }
}
