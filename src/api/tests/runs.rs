//! Runs: taken in or refused, looked up, changed, followed.

use axum::body::{Body, to_bytes};
use axum::http::Request;
use futures_util::StreamExt as _;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use serde::Serialize;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::support::{Answer, Bench, new_year};
use crate::job::{JobSecrets, JobSpec};
use crate::queue::{Ended, Finish, Grant, LeaseLimits, WorkerId};
use crate::run::{Activity, ActivityNow, RunId, RunName, Slug};
use crate::secret::Secret;

/// What the form's parts are parted by.
const BOUNDARY: &str = "made-up-boundary";

/// A runbook that needs no key.
const RUNBOOK: &str = "---\nagent: claude-code\nmodel_provider: scripted\n---\n# Say {{word}}\n";

pub(super) async fn with_task(bench: &Bench, init_params: Value) {
    let body = json!({ "name": "hello", "workflow": {
        "init_params": init_params,
        "step_configs": { "run": {
            "activity": "runbook", "instruction_path": "init_params.instruction",
            "template_variables_path": "init_params.vars", "files_path": "init_params.file_paths",
        } },
        "steps": ["run"],
    } });
    let made = bench.ask(&bench.team, "POST", "/api/v1/tasks/team", &body.to_string()).await;
    assert_eq!(made.status, 201, "{made:?}");
}

pub(super) fn runnable() -> Value {
    json!({ "instruction": RUNBOOK, "script": "turns:\n  - text: hello\n", "vars": {"word": "hi"},
        "file_paths": [] })
}

/// A part of a form: a field, its file name where it is a file, its bytes.
pub(super) type Part<'a> = (&'a str, Option<&'a str>, &'a [u8]);

pub(super) async fn send_form(
    bench: &Bench,
    token: &Secret,
    path: &str,
    parts: &[Part<'_>],
) -> Answer {
    bench.send(form_request(token, path, Body::from(form_text(parts)))).await
}

/// A form as it is sent.
pub(super) fn form_text(parts: &[Part<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, file, bytes) in parts {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{field}\"{file}\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

pub(super) fn form_request(token: &Secret, path: &str, body: Body) -> Request<Body> {
    let request = Request::post(path)
        .header("authorization", format!("Bearer {}", token.expose()))
        .header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"))
        .body(body);
    request.unwrap()
}

async fn run(bench: &Bench, parts: &[Part<'_>]) -> Answer {
    send_form(bench, &bench.team, "/api/v1/run/team/hello", parts).await
}

pub(super) fn name(id: &str) -> RunName {
    RunName {
        collection: Slug::new("team").unwrap(),
        task: Slug::new("hello").unwrap(),
        id: RunId::new(id).unwrap(),
    }
}

pub(super) fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("no text `{key}` in {value}"))
}

/// Begins with the oldest run as a worker would, without a sandbox.
async fn start_one(bench: &Bench) -> Grant {
    let worker = WorkerId::new("w".to_owned());
    let limits = LeaseLimits { per_collection: 9, exceptions: Default::default() };
    let queue = &bench.api.queue;
    let leased = queue.lease(&worker, uuid::Uuid::new_v4(), &limits, new_year()).await;
    let leased = leased.unwrap().expect("a run waits");
    queue.started(&leased.grant, new_year()).await.unwrap();
    leased.grant
}

fn completed() -> Finish {
    Finish {
        ended: Ended::Completed,
        reason: None,
        exit_code: Some(0),
        total_bytes: 0,
        usage: Default::default(),
        duration: None,
    }
}

/// Works on the oldest run as a worker would, to its end.
pub(super) async fn finish_one(bench: &Bench) -> RunName {
    let grant = start_one(bench).await;
    bench.api.queue.finish(&grant, &completed(), new_year()).await.unwrap();
    grant.name
}

#[tokio::test]
async fn what_a_run_is_doing_is_told_while_it_goes_on() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    let answer = run(&bench, &[]).await.json();
    let path = format!("/api/v1/db/trajectory/team/hello/{}", text(&answer, "trajectory_id"));
    let seen = async || bench.ask(&bench.team, "GET", &path, "").await.json();
    let now = ActivityNow { state: Activity::ToolRunning, since: new_year() };
    let activities = bench.api.store.activities();
    activities.tell(&name(text(&answer, "trajectory_id")), Some(now));
    assert_eq!(seen().await.get("activity"), None, "it waits");
    let grant = start_one(&bench).await;
    let expected = json!({"state": "tool_running", "since": "2026-01-01T00:00:00Z"});
    assert_eq!(seen().await["activity"], expected);
    let listed = bench.ask(&bench.team, "GET", "/api/v1/db/trajectories/team/hello", "").await;
    assert_eq!(listed.json()["trajectories"][0]["activity"], expected);
    bench.api.queue.finish(&grant, &completed(), new_year()).await.unwrap();
    assert_eq!(seen().await.get("activity"), None, "it has ended");
}

#[tokio::test]
async fn a_run_can_be_looked_up_as_soon_as_it_is_answered() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    // The shell client's extra brace, and the old clients' extra field.
    let init_params = br#"{"vars": {"word": "you"}}}"#;
    let answer =
        run(&bench, &[("init_params", None, init_params), ("use_trial_keys", None, b"true")]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    let id = text(&answer, "trajectory_id").to_owned();
    assert_eq!(answer["workflow_id"], format!("team-hello--{id}"));
    assert_eq!(answer["metadata"], format!("team/hello/{id}.json"));
    assert_eq!(answer["notes"], json!([]));
    for path in [
        format!("/api/v1/db/trajectory/team/hello/{id}"),
        format!("/api/v1/trajectory/team/hello/{id}"),
        format!("/api/v1/trajectory/TEAM/Hello/team-hello--{id}"),
    ] {
        let seen = bench.ask(&bench.team, "GET", &path, "").await.json();
        assert_eq!(seen["status"], "pending", "{path}: {seen}");
        assert_eq!(seen["init_params"]["vars"], json!({"word": "you"}));
        assert_eq!(seen["steps"]["run"]["status"], "pending");
    }
    let list = bench.ask(&bench.team, "GET", "/api/v1/db/trajectories/team/hello?limit=1", "");
    let list = list.await.json();
    assert_eq!(
        json!([list["total"], list["page"], list["limit"], list["has_more"]]),
        json!([1, 1, 1, false])
    );
    assert_eq!(list["trajectories"][0]["trajectory_id"], id);
    let logs = format!("/api/v1/workflows-logs/team-hello--{id}");
    let logs = bench.ask(&bench.team, "GET", &logs, "").await.json();
    assert_eq!(json!([logs["status"], logs["events"]]), json!(["pending", []]));
    let logs = format!("/api/v1/workflows-logs/team-hello--{id}");
    let foreign = bench.ask(&bench.other, "GET", &logs, "").await;
    assert_eq!(foreign.status, 404);
}

#[tokio::test]
async fn what_could_only_fail_is_refused_with_every_reason_and_nothing_is_kept() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    let file: Part<'_> = ("files", Some("a.txt"), b"x");
    let many: &[(&[Part<'_>], u16, &[&str])] = &[
        (&[("init_params", None, b"{\"a\": ")], 422, &["is not valid JSON at line 1"]),
        (&[("init_params", None, b"{\"init_params\": {\"vars\": {}}}")], 422, &["wrapped twice"]),
        (&[("file", Some("a.txt"), b"x")], 422, &["in the field `files`"]),
        (&[("secret_params", None, b"[\"sk-made-up\"]")], 422, &["object of names and texts"]),
        (
            &[file, ("init_params", None, b"{\"file_paths\": [\"team/x/none.txt\", \"other-team/a/b\", \"file-0123456789ab\"]}")],
            400,
            &["no stored file `team/x/none.txt`", "does not belong to the collection", "no file with the id `file-0123456789ab`"],
        ),
        (
            &[file, ("init_params", None, b"{\"instruction\": \"---\\nagent: nobody\\nevaluation: visual\\n---\\nDo.\"}")],
            400,
            &["`nobody`", "`visual`"],
        ),
        (&[("webhook_url", None, b"http://169.254.169.254/x")], 400, &["private address"]),
        (&[("files", Some("a.zip"), b"no zip")], 400, &["cannot be read as a zip archive"]),
    ];
    for (parts, status, words) in many {
        let answer = run(&bench, parts).await;
        assert_eq!(answer.status, *status, "{answer:?}");
        for word in *words {
            assert!(answer.text.contains(word), "{word}: {answer:?}");
        }
        assert!(!answer.text.contains("sk-made-up"), "{answer:?}");
    }
    let kept = bench.ask(&bench.team, "GET", "/api/v1/list-files?prefix=team", "").await.json();
    assert_eq!(kept["files"], json!([]));
    let missing = send_form(&bench, &bench.team, "/api/v1/run/team/nothing", &[]).await;
    assert_eq!(missing.status, 404);
    assert_eq!(bench.api.queue.depth(new_year()).await.unwrap().due, 0);
}

#[tokio::test]
async fn uploads_become_the_runs_own_files_and_archives_are_unpacked() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    let mut packer = crate::archive::Packer::new(Vec::new());
    packer.add("skill/SKILL.md", 2, &b"# "[..]).unwrap();
    let zip = packer.finish().unwrap();
    let parts: [Part<'_>; 3] = [
        ("files", Some("case.json"), b"{}"),
        ("files", Some("../case.json"), b"[]"),
        ("files", Some("skill.zip"), &zip),
    ];
    let answer = run(&bench, &parts).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let id = text(&answer.json(), "trajectory_id").to_owned();
    let spec = bench.api.queue.spec(&name(&id)).await.unwrap().unwrap();
    let files = JobSpec::thaw(&spec).unwrap().files;
    let files: Vec<_> = files.iter().map(|f| (f.name.as_str(), f.path.to_str().unwrap())).collect();
    let own = |file: &str| format!("team/hello/{id}/assets/{file}");
    assert_eq!(
        files,
        [
            ("case.json", own("case.json").as_str()),
            ("case-2.json", own("case-2.json").as_str()),
            ("skill.zip", own("skill.zip").as_str()),
            ("skill/SKILL.md", own("skill/SKILL.md").as_str()),
        ]
    );
    for (file, bytes) in [("case.json", "{}"), ("case-2.json", "[]"), ("skill/SKILL.md", "# ")] {
        let path = format!("/api/v1/file/{}", own(file));
        assert_eq!(bench.ask(&bench.team, "GET", &path, "").await.text, bytes);
    }
}

#[tokio::test]
async fn secrets_are_sealed_apart_and_shown_nowhere() {
    let bench = Bench::new().await;
    let instruction =
        "---\nmodel_provider: scripted\nsecrets:\n  KEY: {required: true}\n---\n# {{word}}";
    let init_params = json!({ "instruction": instruction, "script": "turns:\n  - text: hi\n", "vars": {"word": "it"} });
    with_task(&bench, init_params).await;
    let refused = run(&bench, &[]).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text.contains("needs the secret `KEY`"), "{refused:?}");
    let secret = br#"{"KEY": "made-up-secret-value"}"#;
    let parts: [Part<'_>; 3] = [
        ("secret_params", None, secret),
        ("webhook_url", None, b"https://example.org/hook"),
        ("webhook_secret", None, b"made-up-hook-secret"),
    ];
    let answer = run(&bench, &parts).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let id = text(&answer.json(), "trajectory_id").to_owned();
    let path = format!("/api/v1/db/trajectory/team/hello/{id}");
    let seen = bench.ask(&bench.team, "GET", &path, "").await;
    let spec = bench.api.queue.spec(&name(&id)).await.unwrap().unwrap();
    for shown in [&answer.text, &seen.text, &spec] {
        assert!(!shown.contains("made-up"), "{shown}");
    }
    let limits = LeaseLimits { per_collection: 9, exceptions: Default::default() };
    let worker = WorkerId::new("w".to_owned());
    let leased = bench.api.queue.lease(&worker, uuid::Uuid::new_v4(), &limits, new_year()).await;
    let sealed = leased.unwrap().unwrap().sealed.unwrap();
    let opened = bench.api.runs.intake.vault.open(&sealed, &JobSecrets::context(&name(&id)));
    let secrets = JobSecrets::from_plaintext(opened.unwrap().expose()).unwrap();
    assert_eq!(secrets.params["KEY"].expose(), "made-up-secret-value");
    assert_eq!(secrets.webhook_secret.unwrap().expose(), "made-up-hook-secret");
}

#[tokio::test]
async fn secrets_that_the_run_does_not_read_are_named_in_a_note_without_their_values() {
    let bench = Bench::new().await;
    let instruction = "---\nmodel_provider: scripted\nsecrets:\n  DECLARED: {}\n---\n# Go";
    let init_params = json!({ "instruction": instruction, "script": "turns:\n  - text: hi\n" });
    with_task(&bench, init_params).await;
    let secrets = br#"{"DECLARED": "made-up-1", "NOT_DECLARED": "made-up-2"}"#;
    let answer = run(&bench, &[("secret_params", None, secrets)]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!answer.text.contains("made-up"), "{answer:?}");
    assert_eq!(
        answer.json()["notes"][2],
        "`secret_params`: the runbook does not declare `NOT_DECLARED`, so that the agent does not get \
         it: declare it in the front matter under `secrets:`."
    );
    let anthropic = "---\nmodel_provider: anthropic\n---\n# Go";
    let init_params = json!({ "instruction": anthropic }).to_string();
    let key = br#"{"ANTHROPIC_API_KEY": "sk-ant-made-up-key"}"#;
    let parts: [Part<'_>; 2] =
        [("init_params", None, init_params.as_bytes()), ("secret_params", None, key)];
    let answer = run(&bench, &parts).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!answer.text.contains("does not declare"), "{answer:?}");
}

#[tokio::test]
async fn what_a_collection_hides_is_hidden_at_any_depth_in_every_answer() {
    let bench = Bench::new().await;
    let patch = r#"{"redacted_param_keys": ["key"]}"#;
    let path = "/api/v1/collections/team";
    assert_eq!(bench.ask(&bench.admin, "PATCH", path, patch).await.status, 200);
    with_task(&bench, runnable()).await;
    let params =
        json!({"vars": {"word": "hi", "key": "made-up-1"}, "more": [{"key": "made-up-2"}]});
    let answer = run(&bench, &[("init_params", None, params.to_string().as_bytes())]).await;
    let id = text(&answer.json(), "trajectory_id").to_owned();
    let ingest = "/api/v1/trajectories/team/hello/ingest";
    let record = json!({"input": {"a": {"key": "made-up-3"}}, "metadata": {"key": "made-up-4"}});
    let record = bench.ask(&bench.team, "POST", ingest, &record.to_string()).await;
    let one = format!("/api/v1/db/trajectory/team/hello/{id}");
    let one = bench.ask(&bench.team, "GET", &one, "").await;
    let list = bench.ask(&bench.team, "GET", "/api/v1/db/trajectories/team/hello", "").await;
    assert_eq!(list.json()["total"], 2);
    for told in [&answer, &record, &one, &list] {
        assert_eq!(told.status, 200, "{told:?}");
        assert!(!told.text.contains("made-up"), "{told:?}");
    }
    assert_eq!(
        one.json()["init_params"]["more"],
        json!([{"key": "[redacted]"}]),
        "what is not hidden stays"
    );
}

fn zip(members: &[&str]) -> Vec<u8> {
    let mut packer = crate::archive::Packer::new(Vec::new());
    for member in members {
        packer.add(member, 1, &b"x"[..]).unwrap();
    }
    packer.finish().unwrap()
}

#[tokio::test]
async fn files_that_would_take_each_others_place_are_refused_with_both_names() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    let many: Vec<String> = (0..6000).map(|n| format!("f{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let others: Vec<String> = (0..6000).map(|n| format!("g{n}")).collect();
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    let (many, others) = (zip(&many), zip(&others));
    let (file, below, deep) = (zip(&["x/y"]), zip(&["x"]), zip(&["x/y/z"]));
    let folder_of_file = zip(&["skill/SKILL.md"]);
    let cases: [(&[Part<'_>], [&str; 2]); 6] = [
        (
            &[("files", Some("x"), b""), ("files", Some("a.zip"), &file)],
            ["/x`", "`x/y` in the archive"],
        ),
        (
            &[("files", Some("a.zip"), &file), ("files", Some("x"), b"")],
            ["/x`", "`x/y` in the archive"],
        ),
        (&[("files", Some("a.zip"), &file), ("files", Some("b.zip"), &below)], ["a.zip", "b.zip"]),
        (&[("files", Some("a.zip"), &deep), ("files", Some("b.zip"), &file)], ["a.zip", "b.zip"]),
        (
            &[("files", Some("skill"), b""), ("files", Some("a.zip"), &folder_of_file)],
            ["/skill`", "a.zip"],
        ),
        (
            &[("files", Some("a.zip"), &many), ("files", Some("b.zip"), &others)],
            ["b.zip", "10000 members"],
        ),
    ];
    for (parts, words) in cases {
        let answer = run(&bench, parts).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(words.iter().all(|word| answer.text.contains(word)), "{words:?}: {answer:?}");
    }
    let fits = run(&bench, &[("files", Some("a.zip"), &file), ("files", Some("y"), b"")]).await;
    assert_eq!(fits.status, 200, "{fits:?}");
}

#[tokio::test]
async fn a_waiting_request_is_answered_when_its_run_ends() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    let sync = send_form(&bench, &bench.team, "/api/v1/run-sync/team/hello", &[]);
    let worked = async {
        loop {
            if bench.api.queue.depth(new_year()).await.unwrap().due > 0 {
                return finish_one(&bench).await;
            }
            tokio::task::yield_now().await;
        }
    };
    let (answer, name) = tokio::join!(sync, worked);
    let answer = answer.json();
    assert_eq!(
        json!([answer["status"], answer["trajectory_id"], answer["steps"]["run"]["status"]]),
        json!(["completed", name.id.as_str(), "completed"])
    );
    assert_eq!(answer["message"], "Workflow ended");
    assert_eq!(answer["trajectory"]["workflow_id"], answer["workflow_id"]);
}

#[tokio::test]
async fn statuses_stop_and_put_away_and_refuse_the_rest_one_by_one() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    let ended = text(&run(&bench, &[]).await.json(), "trajectory_id").to_owned();
    assert_eq!(finish_one(&bench).await.id.as_str(), ended);
    let waiting = text(&run(&bench, &[]).await.json(), "trajectory_id").to_owned();
    let statuses = "/api/v1/trajectory/team/hello/statuses";
    let body =
        json!({ waiting.as_str(): "cancelled", ended.as_str(): "archived", "none": "cancelled" });
    let answer = bench.ask(&bench.team, "POST", statuses, &body.to_string()).await.json();
    assert_eq!(
        answer["updated"],
        json!({ waiting.as_str(): "cancelled", ended.as_str(): "archived" })
    );
    assert!(text(&answer["errors"], "none").contains("There is no trajectory 'none'"));
    for (id, wish, words) in [
        (&ended, "cancelled", "it has ended, so it can only be archived"),
        (&waiting, "completed", "cannot become completed"),
        (&waiting, "running", "'running' cannot be set"),
    ] {
        let path = format!("/api/v1/trajectory/team/hello/{id}/status");
        let body = json!({ "status": wish }).to_string();
        let answer = bench.ask(&bench.team, "PATCH", &path, &body).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.text.contains(words), "{answer:?}");
    }
    let stats = bench.ask(&bench.team, "GET", "/api/v1/db/stats/team/hello", "").await.json();
    assert_eq!(stats["total"], 2);
    assert_eq!(
        json!([stats["by_status"]["cancelled"], stats["by_status"]["archived"]]),
        json!([1, 1])
    );
    let list = "/api/v1/db/trajectories/team/hello?status=archived";
    let list = bench.ask(&bench.team, "GET", list, "").await.json();
    assert_eq!(list["trajectories"][0]["trajectory_id"], ended);
}

#[tokio::test]
async fn labels_stay_whatever_the_trajectory_becomes() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    let id = text(&run(&bench, &[]).await.json(), "trajectory_id").to_owned();
    let path = format!("/api/v1/trajectory/team/hello/{id}/labels");
    let label = json!({ "key": "quality", "value": "good", "author": "me" });
    let added = bench.ask(&bench.team, "POST", &path, &label.to_string()).await;
    assert_eq!(added.status, 200, "{added:?}");
    let folder = bench.api.store.begun(&name(&id)).unwrap();
    let document = br#"{"status": "completed", "steps": {}, "labels": []}"#;
    folder.write(crate::store::Document::Trajectory, document).unwrap();
    let seen = format!("/api/v1/db/trajectory/team/hello/{id}");
    let seen = bench.ask(&bench.team, "GET", &seen, "").await.json();
    assert_eq!(seen["labels"][0]["value"], "good");
    let nothing = bench.ask(&bench.team, "POST", &path, r#"{"key": "a"}"#).await;
    assert_eq!(nothing.status, 422);
}

#[tokio::test]
async fn a_record_from_elsewhere_keeps_its_id_and_replaces_itself() {
    let bench = Bench::new().await;
    let path = "/api/v1/trajectories/team/eve-evals/ingest";
    let body = |output: &str| {
        json!({
            "trajectory_id": "session-7-turn_0", "input": "q", "output": output, "status": "failed",
            "scores": {"fit": 0.5}, "labels": {"eval.pass": "no"}, "cost_usd": 0.25,
            "metadata": {"model": "m"}, "author": "eve",
        })
        .to_string()
    };
    for output in ["a", "b"] {
        let answer = bench.ask(&bench.team, "POST", path, &body(output)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["storage_path"], "team/eve-evals/session-7-turn_0");
    }
    let list = bench.ask(&bench.team, "GET", "/api/v1/db/trajectories/team/eve-evals", "").await;
    let list = list.json();
    assert_eq!(list["total"], 1);
    let seen = &list["trajectories"][0];
    assert_eq!(seen["status"], "failed");
    assert_eq!(seen["init_params"]["input"], "q");
    assert_eq!(seen["steps"]["eval"]["outputs"]["output"], "b");
    assert_eq!(seen["attributes"]["params"], json!({"model": "m"}));
    let labels: Vec<(&str, &str)> = seen["labels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|label| (text(label, "key"), text(label, "value")))
        .collect();
    assert_eq!(labels, [("score.fit", "0.5"), ("eval.pass", "no"), ("cost_est_usd", "0.25")]);
    let bad = bench.ask(&bench.team, "POST", path, r#"{"trajectory_id": "../x"}"#).await;
    assert_eq!(bad.status, 422);
}

#[derive(Serialize)]
struct Said {
    kind: &'static str,
}

/// Follows a run from `after` until `most` events came or the stream ended; gives their numbers.
async fn follow(bench: &Bench, id: &str, after: u64, most: usize) -> (Vec<u64>, bool) {
    let request = Request::get(format!("/api/v1/trajectory/team/hello/{id}/events"))
        .header("authorization", format!("Bearer {}", bench.team.expose()))
        .header("last-event-id", after.to_string())
        .body(Body::empty());
    let response = bench.router().oneshot(request.unwrap()).await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    let mut stream = response.into_body().into_data_stream();
    let (mut numbers, mut ended) = (Vec::new(), false);
    while let Some(frame) = stream.next().await {
        let frame = String::from_utf8(frame.unwrap().to_vec()).unwrap();
        ended |= frame.contains("\"last\":true");
        let number = frame.lines().find_map(|line| line.strip_prefix("id: "));
        numbers.extend(number.map(|number| number.parse::<u64>().unwrap()));
        if numbers.len() >= most {
            break;
        }
    }
    (numbers, ended)
}

#[tokio::test]
async fn whoever_comes_again_sees_every_event_once() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let cuts = prop::collection::vec(1..7_usize, 1..12);
    for _ in 0..6 {
        let cuts = cuts.new_tree(&mut runner).unwrap().current();
        let id = text(&run(&bench, &[]).await.json(), "trajectory_id").to_owned();
        let n_events: u64 = 20;
        let write = async {
            let mut log = bench.api.store.event_log(&name(&id)).unwrap();
            for n in 1..=n_events {
                if n == n_events {
                    log.close(new_year(), &Said { kind: "finished" }).unwrap();
                } else {
                    log.append(new_year(), &Said { kind: "said" }).unwrap();
                }
                tokio::task::yield_now().await;
            }
        };
        let read = async {
            let mut seen = Vec::new();
            for most in cuts.iter().copied().cycle() {
                let after = seen.last().copied().unwrap_or(0);
                let (numbers, ended) = follow(&bench, &id, after, most).await;
                seen.extend(numbers);
                if ended {
                    return seen;
                }
            }
            seen
        };
        std::fs::create_dir_all(bench.api.store.root().join(name(&id).to_string())).unwrap();
        let (seen, ()) = tokio::join!(read, write);
        assert_eq!(seen, (1..=n_events).collect::<Vec<_>>(), "cuts {cuts:?}");
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_run_even_where_the_run_never_began() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    let id = text(&run(&bench, &[]).await.json(), "trajectory_id").to_owned();
    let path = format!("/api/v1/trajectory/team/hello/{id}/status");
    bench.ask(&bench.team, "PATCH", &path, r#"{"status": "cancelled"}"#).await;
    let path = format!("/api/v1/trajectory/team/hello/{id}/events");
    let answer = bench.ask(&bench.team, "GET", &path, "").await;
    assert_eq!(
        answer.text,
        ": keep-alive\n\ndata: {\"kind\":\"finished\",\"status\":\"cancelled\",\"last\":true}\n\n"
    );
    assert_eq!(answer.header("content-type"), "text/event-stream");
}

#[tokio::test]
async fn a_token_follows_so_many_runs_and_no_more() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    let id = text(&run(&bench, &[]).await.json(), "trajectory_id").to_owned();
    let request = || {
        Request::get(format!("/api/v1/trajectory/team/hello/{id}/events"))
            .header("authorization", format!("Bearer {}", bench.team.expose()))
            .body(Body::empty())
            .unwrap()
    };
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(bench.router().oneshot(request()).await.unwrap());
    }
    let refused = bench.send(request()).await;
    assert_eq!(refused.status, 429, "{refused:?}");
    bench.api.runs.followers.end().await;
    for response in open {
        // They were let go: each stream has an end.
        to_bytes(response.into_body(), 1 << 20).await.unwrap();
    }
}
