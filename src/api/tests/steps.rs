//! Runs of several steps, as clients see them.

use serde_json::{Value, json};

use super::runs::{Part, send_form};
use super::support::{Answer, Bench, new_year};
use crate::job::{JobSecrets, JobSpec};
use crate::queue::{LeaseLimits, Leased, NextStep, PassedOn, WorkerId};

/// Two steps. The second has these settings besides its activity.
async fn with_task(bench: &Bench, review: Value) -> Answer {
    let mut second = json!({ "activity": "runbook" });
    second.as_object_mut().unwrap().extend(review.as_object().cloned().unwrap());
    let body = json!({ "name": "hello", "workflow": {
        "init_params": { "script": "turns:\n  - text: hello\n", "topic": "made-up-hidden" },
        "step_configs": {
            "draft": { "activity": "runbook", "instruction": "# Draft {{topic}}\n" },
            "review": second,
        },
        "steps": ["draft", "review"],
    } });
    bench.ask(&bench.team, "POST", "/api/v1/tasks/team", &body.to_string()).await
}

async fn run(bench: &Bench, parts: &[Part<'_>]) -> Answer {
    send_form(bench, &bench.team, "/api/v1/run/team/hello", parts).await
}

async fn lease(bench: &Bench) -> Leased {
    let limits = LeaseLimits { per_collection: 9, exceptions: Default::default() };
    let worker = WorkerId::new("w".to_owned());
    let leased = bench.api.queue.lease(&worker, uuid::Uuid::new_v4(), &limits, new_year()).await;
    leased.unwrap().expect("a run waits")
}

#[tokio::test]
async fn what_speaks_against_any_step_is_said_at_once() {
    let bench = Bench::new().await;
    let late = with_task(&bench, json!({ "files_path": "review.outputs.files" })).await;
    assert_eq!(late.status, 422);
    assert!(late.text.contains("only the outputs of steps that come before it"), "{late:?}");
    let review = json!({
        "instruction": "---\nsecrets:\n  KEY: {required: true}\n---\n# R {{text}}\n",
        "template_variables_path": "draft.outputs", "files": ["team/_u/none.txt"],
        "agent": "no-such-agent",
    });
    assert_eq!(with_task(&bench, review).await.status, 201);
    let params = br#"{"file_paths": ["team/_u/gone.txt"]}"#;
    let refused = run(&bench, &[("init_params", None, params)]).await;
    assert_eq!(refused.status, 400);
    for words in ["team/_u/gone.txt", "team/_u/none.txt", "`KEY`", "no-such-agent"] {
        assert!(refused.text.contains(words), "{words}: {refused:?}");
    }
    assert_eq!(refused.text.matches("team/_u/gone.txt").count(), 1, "said once: {refused:?}");
}

#[tokio::test]
async fn a_run_waits_with_all_its_steps_and_what_they_are_given() {
    let bench = Bench::new().await;
    let review = json!({ "instruction_path": "draft.outputs.text" });
    assert_eq!(with_task(&bench, review).await.status, 201);
    let answer = run(&bench, &[("files", Some("case.json"), b"{}")]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let id = answer.json()["trajectory_id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/db/trajectory/team/hello/{id}");
    let seen = bench.ask(&bench.team, "GET", &path, "").await.json();
    assert_eq!(seen["total_steps"], json!(["draft", "review"]));
    assert_eq!(seen["status"], "pending");
    let leased = lease(&bench).await;
    let spec = JobSpec::thaw(&leased.spec).unwrap();
    assert_eq!(spec.step_names(), ["draft", "review"]);
    let files: Vec<String> = spec
        .files
        .iter()
        .chain(&spec.later[0].files)
        .map(|file| file.path.to_str().unwrap().to_owned())
        .collect();
    let own = |step: &str| format!("team/hello/{id}/steps/{step}/assets/case.json");
    assert_eq!(files, [own("draft"), own("review")]);
    let listed = format!("/api/v1/list-files?prefix=team/hello/{id}");
    let listed = bench.ask(&bench.team, "GET", &listed, "").await.json();
    let listed: Vec<&Value> =
        listed["files"].as_array().unwrap().iter().map(|file| &file["path"]).collect();
    assert_eq!(listed, [&json!(own("draft")), &json!(own("review"))]);
    for path in [own("draft"), own("review")] {
        let file = format!("/api/v1/file/{path}");
        assert_eq!(bench.ask(&bench.team, "GET", &file, "").await.text, "{}");
    }
    // What decides the later steps is sealed.
    assert_eq!(leased.spec.matches("draft.outputs.text").count(), 0);
    let context = JobSecrets::context(&leased.grant.name);
    let opened = bench.api.runs.intake.vault.open(&leased.sealed.unwrap(), &context).unwrap();
    let frozen = JobSecrets::from_plaintext(opened.expose()).unwrap().workflow.unwrap();
    assert_eq!(frozen.init_params["topic"], "made-up-hidden");
}

#[tokio::test]
async fn a_run_between_two_steps_goes_on_for_everybody() {
    let bench = Bench::new().await;
    assert_eq!(with_task(&bench, json!({ "instruction": "# R\n" })).await.status, 201);
    let answer = run(&bench, &[]).await.json();
    let grant = lease(&bench).await.grant;
    let queue = &bench.api.queue;
    queue.started(&grant, new_year()).await.unwrap();
    queue.finishing(&grant, "{}", new_year()).await.unwrap();
    let (usage, took) = Default::default();
    let next = NextStep { from: 0, total_bytes: 0, usage, took };
    assert_eq!(queue.pass_on(&grant, &next, new_year()).await.unwrap(), PassedOn::Queued);
    for is_leased in [false, true] {
        if is_leased {
            assert_eq!(lease(&bench).await.step, 1);
        }
        let id = answer["trajectory_id"].as_str().unwrap();
        let path = format!("/api/v1/db/trajectory/team/hello/{id}");
        let seen = bench.ask(&bench.team, "GET", &path, "").await.json();
        assert_eq!(seen["status"], "running");
        let logs = format!("/api/v1/workflows-logs/team-hello--{id}");
        assert_eq!(bench.ask(&bench.team, "GET", &logs, "").await.json()["status"], "running");
        for (word, total) in [("running", 1), ("pending", 0)] {
            let list = format!("/api/v1/db/trajectories/team/hello?status={word}");
            let list = bench.ask(&bench.team, "GET", &list, "").await.json();
            assert_eq!(list["total"], total, "{word}");
        }
        let stats = bench.ask(&bench.team, "GET", "/api/v1/db/stats/team/hello", "").await.json();
        assert_eq!(stats["by_status"]["running"], 1);
    }
}
