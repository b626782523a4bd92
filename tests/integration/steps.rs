//! Runs of several steps: each with an agent and a sandbox of its own, and what the next one reads of
//! it. Whatever is stopped or killed, no agent is started twice.

use jiff::Timestamp;
use runbookd::queue::{Cancelled, Status};
use runbookd::run::RunName;
use runbookd::sandbox::SandboxId;
use serde_json::{Value, json};

use crate::support::{Depot, Listening, POLL, Process, Ran, Site, Stage, until};

stories! {
    a_later_step_reads_what_an_earlier_one_left,
    a_step_that_fails_ends_the_run,
    a_step_that_does_not_find_what_it_needs_says_where_it_looked,
    a_run_is_cancelled_in_a_later_step,
    a_run_is_cancelled_between_two_steps,
    a_process_may_be_killed_at_any_fact_between_two_agents,
    a_process_may_be_killed_at_any_fact_of_the_second_agent,
    a_process_may_be_killed_at_any_fact_of_the_end,
    a_server_and_its_command_line_show_every_step,
    a_process_may_go_between_two_steps,
    a_step_that_was_killed_is_not_begun_again_and_ends_the_run,
}

/// What a step's agent does first: it notes that it was started.
const STARTED: &str = "echo once >>/app/results/starts";

/// A script of one command and a last word.
fn script(said: &str, command: &str, last: &str) -> String {
    format!(
        "
turns:
  - text: {said}
    tools: [{{ Bash: {{ command: \"{STARTED}; {command}\" }} }}]
  - text: {last}
"
    )
}

/// Three steps: the second reads the first one's files and words, the third the second one's words.
fn workflow(review: Value) -> Value {
    let step = |settings: Value| {
        let mut step = json!({"activity": "runbook", "network_enabled": false});
        step.as_object_mut().unwrap().extend(settings.as_object().cloned().unwrap());
        step
    };
    let mut second = json!({
        "instruction": "# Review\n\nThe draft says: {{text}}\n",
        "template_variables_path": "draft.outputs",
        "files_path": "draft.outputs.results_files[*].path",
        "script": script("I review.", "cat /app/assets/draft.md >/app/results/seen.md", "Reviewed."),
    });
    second.as_object_mut().unwrap().extend(review.as_object().cloned().unwrap());
    json!({
        "init_params": {"instruction": "# Draft\n\nWrite.\n"},
        "step_configs": {
            "a last one": step(json!({
                "instruction": "# Last\n\n{{text}}\n",
                "template_variables_path": "review.outputs",
                "script": script("I end.", "true", "All done."),
            })),
            "review": step(second),
            "draft": step(json!({
                "script": script("I write.", "echo a draft >/app/results/draft.md", "It is ready."),
            })),
        },
        "steps": ["draft", "review", "a last one"],
    })
}

/// A second step that waits for a file in its sandbox.
fn waits() -> Value {
    let wait = "while [ ! -e /app/go ]; do sleep 0.1; done; \
                cat /app/assets/draft.md >/app/results/seen.md";
    json!({ "script": script("I review.", wait, "Reviewed.") })
}

const STEPS: [&str; 3] = ["draft", "review", "a last one"];

fn read(depot: &Depot<'_>, name: &RunName, path: &str) -> String {
    let path = depot.folder(name).join("steps").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The run has all its steps, each was begun once, and what they used adds up.
async fn is_whole(depot: &Depot<'_>, process: &Process, name: &RunName, steps: &[&str]) {
    let ended = process.ended(name).await;
    let last = steps.len() as u64 - 1;
    assert_eq!((ended.status, ended.reason, ended.step), (Status::Completed, None, last));
    for step in steps {
        assert_eq!(read(depot, name, &format!("{step}/results/starts")), "once\n", "{step}");
    }
    assert_eq!(read(depot, name, "review/results/seen.md"), "a draft\n");
    assert!(read(depot, name, "review/instruction.md").contains("The draft says: It is ready."));
    let events = depot.events(name);
    let begun: Vec<&str> = events
        .iter()
        .filter(|event| event["kind"] == "step_begins")
        .map(|event| event["name"].as_str().unwrap())
        .collect();
    assert_eq!(begun, steps);
    let said: Vec<&str> = events
        .iter()
        .filter(|event| event["kind"] == "said")
        .map(|event| event["text"].as_str().unwrap())
        .collect();
    let all = ["I write.", "It is ready.", "I review.", "Reviewed.", "I end.", "All done."];
    assert_eq!(said, all[..2 * steps.len()]);
    let last = events.last().unwrap();
    assert_eq!(
        json!([last["kind"], last["status"], last["last"]]),
        json!(["finished", "completed", true])
    );
    adds_up(&depot.trajectory(name), last, (steps, ended.usage.input_tokens));
}

fn adds_up(trajectory: &Value, last: &Value, (names, in_queue): (&[&str], u64)) {
    assert_eq!(trajectory["status"], "completed");
    assert_eq!(trajectory["total_steps"], json!(names));
    assert_eq!(trajectory["completed_steps"], json!(names));
    assert_eq!(trajectory["warnings"], json!([]));
    let steps = trajectory["steps"].as_object().unwrap();
    assert_eq!(steps.keys().collect::<Vec<_>>(), names);
    let used: Vec<u64> = steps
        .values()
        .map(|step| step["outputs"]["usage"]["prompt_tokens"].as_u64().unwrap())
        .collect();
    assert!(used.iter().all(|n| *n > 0), "{used:?}");
    let total = used.iter().sum::<u64>();
    assert_eq!(trajectory["usage"]["total"]["input"], total);
    assert_eq!(last["usage"]["total"]["input"], total);
    assert_eq!(in_queue, total);
    let told = trajectory["agent_steps"].as_array().unwrap().iter();
    let mut told: Vec<&str> = told.map(|step| step["step"].as_str().unwrap()).collect();
    told.dedup();
    assert_eq!(told, names);
}

async fn a_later_step_reads_what_an_earlier_one_left(stage: &Stage) {
    let depot = Depot::new(stage);
    let process = depot.start(1).await;
    let files = vec![("given.txt", b"given".to_vec())];
    let name = depot.request_workflow(&process, workflow(json!({})), files).await;
    is_whole(&depot, &process, &name, &STEPS).await;
    assert!(read(&depot, &name, "a last one/instruction.md").contains("Reviewed."));
    let trajectory = depot.trajectory(&name);
    // Each request has 100 tokens of input.
    assert_eq!(trajectory["usage"]["total"]["input"], 600);
    let review = &trajectory["steps"]["review"];
    let assets: Vec<&str> = review["inputs"]["assets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    assert_eq!(assets, ["given.txt", "draft.md", "starts"]);
    let path = review["outputs"]["results_files"][0]["path"].as_str().unwrap();
    assert_eq!(path, format!("{name}/steps/review/results/seen.md"));
    for step in STEPS {
        let own: Value =
            serde_json::from_str(&read(&depot, &name, &format!("{step}/trajectory.json"))).unwrap();
        assert_eq!(json!([own["status"], own["total_steps"]]), json!(["completed", [step]]));
        assert_eq!(read(&depot, &name, &format!("{step}/assets/given.txt")), "given");
        assert!(depot.folder(&name).join(format!("steps/{step}/atif.json")).is_file());
    }
    let sessions: std::collections::BTreeSet<String> = STEPS
        .iter()
        .map(|step| read(&depot, &name, &format!("{step}/trajectory.json")))
        .map(|own| serde_json::from_str::<Value>(&own).unwrap()["agent"]["session_ids"].to_string())
        .collect();
    assert_eq!(sessions.len(), 3, "each step has a conversation of its own");
    let top = std::fs::read_dir(depot.folder(&name)).unwrap().flatten();
    let mut top: Vec<String> = top.map(|entry| entry.file_name().into_string().unwrap()).collect();
    top.sort();
    assert_eq!(top, ["events.jsonl", "steps", "trajectory.json"]);
    process.stop().await;
}

/// The third step never began.
fn has_two_steps(depot: &Depot<'_>, name: &RunName, review: &str) -> Value {
    assert!(!depot.folder(name).join("steps/a last one").exists());
    let trajectory = depot.trajectory(name);
    assert_eq!(trajectory["completed_steps"], json!(["draft"]));
    assert_eq!(trajectory["total_steps"], json!(STEPS));
    let status = |step: &str| trajectory["steps"][step]["status"].clone();
    assert_eq!(
        json!([status("draft"), status("review"), status("a last one")]),
        json!(["completed", review, null])
    );
    let begun = depot.events(name).iter().filter(|event| event["kind"] == "step_begins").count();
    assert_eq!(begun, 2);
    trajectory
}

async fn a_step_that_fails_ends_the_run(stage: &Stage) {
    let depot = Depot::new(stage);
    let process = depot.start(1).await;
    let broken = json!({ "instruction": "---\nsetup: echo no; exit 3\n---\n# R {{text}}\n" });
    let name = depot.request_workflow(&process, workflow(broken), vec![]).await;
    let ended = process.ended(&name).await;
    let reason = ended.reason.unwrap();
    assert!(reason.starts_with("setup_failed: step `review`: the setup script"), "{reason}");
    // What the first step used is the run's.
    assert_eq!((ended.status, ended.usage.input_tokens), (Status::Failed, 200));
    let trajectory = has_two_steps(&depot, &name, "failed");
    assert_eq!(
        (&trajectory["status"], &trajectory["usage"]["total"]["input"]),
        (&json!("failed"), &json!(200))
    );
    let error = trajectory["error"].as_str().unwrap();
    assert!(error.starts_with("step `review`: the setup script"), "{error}");
    let events = depot.events(&name);
    let last = events.last().unwrap();
    assert_eq!(
        (&last["failure"]["code"], &last["failure"]["message"]),
        (&json!("setup_failed"), &json!(error))
    );
    // Nobody asked the model in the second step.
    assert!(!depot.folder(&name).join("steps/review/logs/provider.jsonl").exists());
    process.stop().await;
}

async fn a_step_that_does_not_find_what_it_needs_says_where_it_looked(stage: &Stage) {
    let depot = Depot::new(stage);
    let process = depot.start(1).await;
    let blind = json!({ "instruction": null, "instruction_path": "draft.outputs.plan" });
    let mut workflow = workflow(blind);
    workflow["init_params"] = json!({});
    workflow["step_configs"]["draft"]["instruction"] = json!("# Draft\n");
    let name = depot.request_workflow(&process, workflow, vec![]).await;
    let ended = process.ended(&name).await;
    let error = "step `review`: it cannot begin with what the steps before it left: the step `review` \
                 has no instruction: nothing stands at `draft.outputs.plan`";
    assert_eq!(ended.reason.unwrap(), format!("step_inputs: {error}"));
    let trajectory = has_two_steps(&depot, &name, "failed");
    assert_eq!(
        (&trajectory["error"], &trajectory["failure"]["code"]),
        (&json!(error), &json!("step_inputs"))
    );
    assert_eq!(
        (ended.usage.input_tokens, &trajectory["usage"]["total"]["input"]),
        (200, &json!(200))
    );
    let events = depot.events(&name);
    assert_eq!(events.last().unwrap()["failure"]["message"], error);
    process.stop().await;
}

/// The sandbox that a step waits in.
async fn waiting_step(depot: &Depot<'_>, process: &Process) -> RunName {
    let name = depot.request_workflow(process, workflow(waits()), vec![]).await;
    depot.event(&name, "I review").await;
    name
}

async fn cancel(process: &Process, name: &RunName) -> Cancelled {
    let asked = name.clone();
    process.on(|queue| async move { queue.cancel(&asked, Timestamp::now()).await.unwrap() }).await
}

async fn a_run_is_cancelled_in_a_later_step(stage: &Stage) {
    let depot = Depot::new(stage);
    let process = depot.start(1).await;
    let name = waiting_step(&depot, &process).await;
    let starts = depot.inside("results/starts");
    until(|| starts.exists()).await;
    assert_eq!(cancel(&process, &name).await, Cancelled::Requested);
    let ended = process.ended(&name).await;
    assert_eq!((ended.status, ended.step), (Status::Cancelled, 1));
    assert_eq!(has_two_steps(&depot, &name, "cancelled")["status"], "cancelled");
    assert_eq!(read(&depot, &name, "review/results/starts"), "once\n");
    assert_eq!(depot.events(&name).last().unwrap()["status"], "cancelled");
    process.stop().await;
}

/// A run whose first step is done and whose second waits, with nobody to begin it.
async fn between_two_steps(depot: &Depot<'_>) -> (Process, RunName) {
    let process = depot.start(1).await;
    let name = depot.request_workflow(&process, workflow(json!({})), vec![]).await;
    depot.event(&name, "I write").await;
    process.shutdown.drain.cancel();
    until(|| process.status().is_draining && process.status().busy == 0).await;
    let between = process.job(&name).await;
    assert_eq!(
        (between.status, between.standing(), between.step),
        (Status::Queued, Status::Running, 1)
    );
    assert!(between.started.is_some() && between.finished.is_none());
    assert_eq!(depot.trajectory(&name)["status"], "running");
    assert_eq!(depot.trajectory(&name)["completed_steps"], json!(["draft"]));
    (process, name)
}

async fn a_run_is_cancelled_between_two_steps(stage: &Stage) {
    let depot = Depot::new(stage);
    let (first, name) = between_two_steps(&depot).await;
    assert_eq!(cancel(&first, &name).await, Cancelled::AtOnce);
    first.end().await;
    let second = depot.start(1).await;
    let ended = second.job(&name).await;
    assert_eq!((ended.status, ended.step), (Status::Cancelled, 1));
    assert!(ended.usage.input_tokens > 0 && ended.duration_ms.is_some());
    second.stop().await;
    assert!(!depot.folder(&name).join("steps/review/trajectory.json").exists());
}

async fn a_process_may_go_between_two_steps(stage: &Stage) {
    let depot = Depot::new(stage);
    let (first, name) = between_two_steps(&depot).await;
    first.end().await;
    let process = depot.start(1).await;
    is_whole(&depot, &process, &name, &STEPS).await;
    process.stop().await;
}

async fn a_process_may_be_killed_at_any_fact_between_two_agents(stage: &Stage) {
    is_whole_after_a_kill_at(stage, &["collecting", "\"part\":2"]).await;
}

async fn a_process_may_be_killed_at_any_fact_of_the_second_agent(stage: &Stage) {
    is_whole_after_a_kill_at(stage, &["I review", "Reviewed"]).await;
}

async fn a_process_may_be_killed_at_any_fact_of_the_end(stage: &Stage) {
    is_whole_after_a_kill_at(stage, &["finished"]).await;
}

/// Two steps are enough for it.
async fn is_whole_after_a_kill_at(stage: &Stage, facts: &[&str]) {
    let steps = &STEPS[..2];
    for fact in facts {
        let depot = Depot::new(stage);
        let first = depot.start(1).await;
        let mut workflow = workflow(json!({}));
        workflow["steps"] = json!(steps);
        let name = depot.request_workflow(&first, workflow, vec![]).await;
        depot.event(&name, fact).await;
        first.kill().await;
        let second = depot.start(1).await;
        is_whole(&depot, &second, &name, steps).await;
        second.stop().await;
    }
}

async fn a_step_that_was_killed_is_not_begun_again_and_ends_the_run(stage: &Stage) {
    let depot = Depot::new(stage);
    let first = depot.start(1).await;
    let name = waiting_step(&depot, &first).await;
    first.kill().await;
    stage.engine.reap(|_: &SandboxId| false).await.unwrap();
    let second = depot.start(1).await;
    let ended = second.ended(&name).await;
    let reason = ended.reason.unwrap();
    assert!(reason.starts_with("sandbox_lost: step `review`: "), "{reason}");
    has_two_steps(&depot, &name, "failed");
    assert_eq!(read(&depot, &name, "draft/results/starts"), "once\n");
    second.stop().await;
}

/// Asks the command line something about the server.
async fn ask(site: &Site, server: &Listening, arguments: &[&str]) -> String {
    let mut command = site.home.command(arguments);
    command
        .env("JETTY_API_TOKEN", &server.token)
        .env("JETTY_API_URL", format!("http://{}", server.address));
    let ran = Ran::of(command.spawn().unwrap()).await;
    assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
    ran.stdout
}

async fn a_server_and_its_command_line_show_every_step(stage: &Stage) {
    let site = Site::new(&[("RUNBOOKD_ENGINE", stage.kind.as_str())]).await;
    let (serving, server) = site.start().await;
    let post = async |path: &str, body: Value| {
        let (status, answer) = server.ask("POST", path, Some(&body), None).await.unwrap();
        assert!(status < 300, "{path}: {status} {answer}");
        answer
    };
    post("/api/v1/collections", json!({"name": "team"})).await;
    let task = json!({"name": "story", "workflow": workflow(json!({}))});
    post("/api/v1/tasks/team", task).await;
    let run = post("/api/v1/run/team/story", json!({})).await;
    let id = run["trajectory_id"].as_str().unwrap();
    let path = format!("/api/v1/db/trajectory/team/story/{id}");
    let seen = loop {
        let seen = server.get(&path).await;
        if matches!(seen["status"].as_str(), Some("completed" | "failed" | "cancelled")) {
            break seen;
        }
        tokio::time::sleep(POLL).await;
    };
    let last = json!({
        "kind": "finished", "status": "completed", "last": true, "usage": seen["usage"].clone(),
    });
    let total = seen["usage"]["total"]["input"].as_u64().unwrap();
    adds_up(&seen, &last, (&STEPS, total));
    let shown = ask(&site, &server, &["runs", "show", id]).await;
    for line in ["status   completed", "step     draft: completed", "step     review: completed"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    for logs in [
        ask(&site, &server, &["logs", id]).await,
        ask(&site, &server, &["logs", "--follow", id]).await,
    ] {
        let places =
            ["Step 1 of 3 begins: draft.", "* It is ready.", "Step 2 of 3 begins: review."];
        let places =
            places.map(|words| logs.find(words).unwrap_or_else(|| panic!("{words}: {logs}")));
        assert!(places.is_sorted(), "{logs}");
    }
    let raw = ask(&site, &server, &["logs", "--raw", id]).await;
    assert_eq!(raw.matches(r#""subtype":"init""#).count(), 3);
    let file = "steps/review/results/seen.md";
    ask(&site, &server, &["runs", "download", id, "--file", file, "--output", "seen.md"]).await;
    assert_eq!(std::fs::read_to_string(site.home.path().join("seen.md")).unwrap(), "a draft\n");
    ask(&site, &server, &["runs", "download", id, "--output", "all.zip"]).await;
    let zip = std::fs::read(site.home.path().join("all.zip")).unwrap();
    let name = "steps/review/results/seen.md".as_bytes();
    assert!(zip.windows(name.len()).any(|window| window == name));
    serving.kill().await;
}
