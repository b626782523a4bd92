//! Runs out of the queue: begun, stopped, let go, and taken over by the next process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use runbookd::catalog::Delivery;
use runbookd::job::JobSpec;
use runbookd::provider::scripted::{Fingerprint, Listen, Script, ScriptedProvider};
use runbookd::queue::Status;
use runbookd::run::RunName;
use runbookd::worker::WorkersStatus;
use serde_json::Value;

use crate::support::{Depot, POLL, Process, Stage, job, processes_with, until};

stories! {
    a_job_runs_to_its_end,
    a_request_finds_its_files_in_its_sandbox,
    a_run_outlives_its_process,
    a_model_behind_the_gateway_outlives_it_too,
    a_gateway_that_somebody_kills_is_started_again,
    a_request_of_a_killed_gateway_is_not_waited_for,
    a_process_may_be_killed_at_any_fact_before_the_agent,
    a_process_may_be_killed_at_any_fact_of_the_agent,
    an_agent_that_ended_while_nobody_watched_is_finished,
    a_sandbox_that_went_while_nobody_watched_fails_its_run,
    a_run_that_is_cancelled_while_it_waits_is_told_of_once,
    a_run_that_is_cancelled_ends_and_keeps_its_files,
    a_cancelled_run_is_not_gone_on_with_after_a_restart,
    a_time_limit_counts_from_the_start_whoever_watches,
    an_agent_that_is_asked_to_end_when_its_process_dies_is_judged_by_the_reason,
    a_run_whose_lease_is_lost_is_stopped_and_not_written_about,
    a_drained_process_begins_nothing_more,
    a_process_that_leaves_is_followed_by_one_that_goes_on,
    a_process_that_goes_for_good_cancels_its_runs,
    an_agent_that_somebody_kills_is_named,
    a_sandbox_that_somebody_removes_is_named,
    a_job_that_cannot_be_planned_fails_with_its_reason,
    a_run_that_cannot_be_planned_after_a_restart_leaves_no_sandbox,
    a_bug_of_ours_fails_its_run_and_no_other,
    sandboxes_that_no_run_names_are_reaped,
    a_run_that_is_killed_during_its_setup_is_set_up_once,
    a_run_that_could_not_be_started_goes_back_to_the_queue,
    the_secrets_of_a_job_reach_its_agent_and_nothing_else,
}

/// The agent notes that it starts, waits for a file in its sandbox, and says what it found.
fn waiting(word: &str) -> String {
    format!(
        "
turns:
  - text: First a note.
    tools: [{{ Bash: {{ command: echo started >>/app/results/starts }} }}]
  - text: Now I wait.
    tools: [{{ Bash: {{ command: \"while [ ! -e /app/go ]; do sleep 0.1; done; echo gone on; : {word}\" }} }}]
  - text: All done.
"
    )
}

fn marked(stage: &Stage, word: &str) -> String {
    format!("{word}-{}-{}", stage.owner, stage.kind)
}

/// A run that waits in its second tool call.
async fn waiting_run(depot: &Depot<'_>, process: &Process, word: &str) -> RunName {
    let word = marked(depot.stage, word);
    let name = depot.submit(process, &waiting(&word)).await;
    depot.event(&name, "Now I wait").await;
    until(|| !processes_with(&word).is_empty()).await;
    name
}

/// The texts and titles of the run's events, in order. While nobody serves its model, an agent asks
/// it again, and tells that.
fn told(events: &[Value]) -> Vec<&str> {
    let of_the_agent = events.iter().filter(|event| event["update"].is_u64());
    of_the_agent
        .map(|event| event["text"].as_str().or(event["title"].as_str()).unwrap())
        .map(|text| text.split(" while").next().unwrap())
        .filter(|text| !text.starts_with("The provider failed"))
        .collect()
}

const WHOLE: [&str; 7] = [
    "First a note.",
    "Bash: echo started >>/app/results/starts",
    "Bash: echo started >>/app/results/starts",
    "Now I wait.",
    "Bash:",
    "Bash:",
    "All done.",
];

/// The run is whole: its agent was started once, every step is there once, in order.
async fn is_whole(depot: &Depot<'_>, process: &Process, name: &RunName) {
    let ended = process.ended(name).await;
    assert_eq!((ended.status, ended.reason), (Status::Completed, None));
    let events = depot.events(name);
    assert_eq!(told(&events), WHOLE);
    let last = events.last().unwrap();
    assert_eq!((last["kind"].as_str(), last["last"].as_bool()), (Some("finished"), Some(true)));
    assert_eq!(last["status"], "completed");
    let starts = std::fs::read_to_string(depot.folder(name).join("results/starts")).unwrap();
    assert_eq!(starts, "started\n");
    let trajectory = depot.trajectory(name);
    assert_eq!(trajectory["status"], "completed");
    assert_eq!(trajectory["warnings"], serde_json::json!([]));
    let steps = trajectory["agent_steps"].as_array().unwrap();
    assert_eq!(steps.iter().filter(|step| step["kind"] != "retry").count(), 6);
    let log = std::fs::read(depot.folder(name).join("logs/agent/claude-code.txt")).unwrap();
    let inits = String::from_utf8(log).unwrap().matches(r#""subtype":"init""#).count();
    assert_eq!(inits, 1);
}

async fn a_job_runs_to_its_end(stage: &Stage) {
    let depot = Depot::new(stage);
    let process = depot.start(2).await;
    let name = depot.submit(&process, "turns: [{ text: Hello. }]").await;
    let ended = process.ended(&name).await;
    assert_eq!((ended.status, ended.exit_code), (Status::Completed, Some(0)));
    assert_eq!((ended.usage.input_tokens, ended.usage.output_tokens > 0), (100, true));
    let word = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
    let mut told: Vec<String> = depot
        .events(&name)
        .iter()
        .map(|event| {
            format!("{} {}{}", word(event, "kind"), word(event, "status"), word(event, "phase"))
        })
        .collect();
    // The CLI may have to be had first, and usage and activity are told when there is time.
    let untimely = ["phase fetching_agent", "usage ", "activity "];
    told.retain(|told| !untimely.contains(&told.as_str()));
    assert_eq!(
        told,
        [
            "opened ",
            "status pending",
            "phase provisioning",
            "status running",
            "phase running",
            "said ",
            "phase collecting",
            "finished completed",
        ]
    );
    process.stop().await;
}

async fn a_request_finds_its_files_in_its_sandbox(stage: &Stage) {
    let depot = Depot::new(stage);
    let process = depot.start(1).await;
    let mut packer = runbookd::archive::Packer::new(Vec::new());
    packer.add("skill/SKILL.md", 5, &b"skill"[..]).unwrap();
    let zip = packer.finish().unwrap();
    let script = "
turns:
  - text: I look.
    tools: [{ Bash: { command: cd /app/assets && cat case.json skill/SKILL.md *.00.json >/app/results/seen } }]
  - text: All done.
";
    let files = vec![("case.json", b"case".to_vec()), ("skill.zip", zip)];
    let name = depot.request(&process, script, files).await;
    let ended = process.ended(&name).await;
    assert_eq!((ended.status, ended.reason), (Status::Completed, None));
    let seen = std::fs::read_to_string(depot.folder(&name).join("results/seen")).unwrap();
    assert_eq!(seen, "caseskillcase");
    let kept = std::fs::read_to_string(depot.folder(&name).join("assets/case.json")).unwrap();
    assert_eq!(kept, "case", "the run's own copy is whole");
    process.stop().await;
}

async fn a_run_outlives_its_process(stage: &Stage) {
    let depot = Depot::new(stage);
    let first = depot.start(1).await;
    let name = waiting_run(&depot, &first, "outlives").await;
    let before = depot.events(&name);
    first.kill().await;
    let killed = Timestamp::now();
    assert!(!processes_with(&marked(stage, "outlives")).is_empty(), "the sandbox works on");
    let second = depot.start(1).await;
    depot.event(&name, "runbookd was restarted").await;
    std::fs::write(depot.inside("go"), "").unwrap();
    is_whole(&depot, &second, &name).await;
    // What was told is not told again, and the steps have the times at which they happened.
    assert_eq!(depot.events(&name)[..before.len()], before[..]);
    let trajectory = depot.trajectory(&name);
    let steps = trajectory["agent_steps"].as_array().unwrap();
    let at: Vec<Timestamp> =
        steps.iter().map(|step| step["started"].as_str().unwrap().parse().unwrap()).collect();
    assert!(at[0] < killed && at[3] < killed && at[5] > killed, "{at:?} {killed}");
    second.stop().await;
}

/// A run that waits in its second tool call, and whose model is behind its gateway.
async fn waiting_behind_its_gateway(
    depot: &Depot<'_>,
    process: &Process,
    word: &str,
) -> (RunName, ScriptedProvider) {
    let word = marked(depot.stage, word);
    let (name, model) = behind_its_gateway(depot, process, &waiting(&word)).await;
    depot.event(&name, "Now I wait").await;
    until(|| !processes_with(&word).is_empty()).await;
    (name, model)
}

/// A run whose model is behind its gateway.
async fn behind_its_gateway(
    depot: &Depot<'_>,
    process: &Process,
    script: &str,
) -> (RunName, ScriptedProvider) {
    let script = Script::parse(script).unwrap();
    let listen = Listen::Tcp("127.0.0.1:0".parse().unwrap());
    let model = ScriptedProvider::start(script, listen).await.unwrap();
    let Listen::Tcp(address) = model.address() else { panic!("a TCP address") };
    let mut job = JobSpec { script: None, ..job("") };
    job.overrides.model_provider = Some("anthropic".to_owned());
    let url = format!("http://{address}");
    let keys = [("ANTHROPIC_API_KEY", "made-up-and-real"), ("ANTHROPIC_BASE_URL", url.as_str())];
    let name = depot.submit_with(process, job, &keys).await;
    (name, model)
}

/// Every request was passed on once, with the real key, and is accounted for.
async fn is_accounted_for(depot: &Depot<'_>, name: &RunName, model: ScriptedProvider) {
    let usage = &depot.trajectory(name)["usage"];
    assert_eq!(usage["reconciliation"], "exact");
    let asked = model.stop().await;
    let messages = asked.iter().filter(|entry| entry.method == "POST").count();
    assert_eq!(usage["wire"]["requests"]["complete"], messages);
    let key = Fingerprint::of("made-up-and-real");
    let shown = asked.iter().filter(|entry| entry.method == "POST");
    assert!(shown.map(|entry| entry.auth.api_key.as_ref()).all(|shown| shown == Some(&key)));
}

/// The process ids of the stage's gateways.
fn gateways(stage: &Stage) -> Vec<i32> {
    let gateway = format!("gateway\0{}", stage.models().display());
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_gateway = |pid: &i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(&gateway)
    };
    numbers.filter(is_gateway).collect()
}

/// The key never enters the sandbox, so what stands between must stay when the server goes.
async fn a_model_behind_the_gateway_outlives_it_too(stage: &Stage) {
    let depot = Depot::new(stage);
    let first = depot.start(1).await;
    let (name, model) = waiting_behind_its_gateway(&depot, &first, "gateway").await;
    let before = gateways(stage);
    assert_eq!(before.len(), 1);
    first.kill().await;
    assert_eq!(gateways(stage), before, "the gateway works on");
    let second = depot.start(1).await;
    depot.event(&name, "runbookd was restarted").await;
    assert_eq!(gateways(stage), before, "it is the same one");
    std::fs::write(depot.inside("go"), "").unwrap();
    is_whole(&depot, &second, &name).await;
    second.stop().await;
    is_accounted_for(&depot, &name, model).await;
}

async fn a_gateway_that_somebody_kills_is_started_again(stage: &Stage) {
    let depot = Depot::new(stage);
    let process = depot.start(1).await;
    let (name, model) = waiting_behind_its_gateway(&depot, &process, "killed-gateway").await;
    let killed = gateways(stage);
    let pid = rustix::process::Pid::from_raw(killed[0]).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until(|| gateways(stage).iter().any(|pid| !killed.contains(pid))).await;
    std::fs::write(depot.inside("go"), "").unwrap();
    is_whole(&depot, &process, &name).await;
    process.stop().await;
    is_accounted_for(&depot, &name, model).await;
}

/// The agent asks again and goes on: then it waits for its tool, and not for an answer that nobody
/// brings.
async fn a_request_of_a_killed_gateway_is_not_waited_for(stage: &Stage) {
    let depot = Depot::new(stage);
    let process = depot.start(1).await;
    let word = marked(stage, "not-waited-for");
    let script = waiting(&word).replacen("turns:", "turns:\n  - hang: true", 1);
    let (name, model) = behind_its_gateway(&depot, &process, &script).await;
    // Before that it asks whether somebody is there at all.
    until(|| model.ledger().iter().any(|entry| entry.method == "POST")).await;
    let pid = rustix::process::Pid::from_raw(gateways(stage)[0]).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    depot.event(&name, "Now I wait").await;
    until(|| !processes_with(&word).is_empty()).await;
    depot.event(&name, "\"tool_running\"").await;
    std::fs::write(depot.inside("go"), "").unwrap();
    assert_eq!(process.ended(&name).await.status, Status::Completed);
    process.stop().await;
    let asked = &depot.trajectory(&name)["usage"]["wire"]["requests"];
    assert_eq!(asked["in_flight"], 1, "nobody knows how it ended: {asked}");
    model.stop().await;
}

async fn a_process_may_be_killed_at_any_fact_before_the_agent(stage: &Stage) {
    is_whole_after_a_kill_at(stage, ["opened", "provisioning", "\"running\""]).await;
}

async fn a_process_may_be_killed_at_any_fact_of_the_agent(stage: &Stage) {
    is_whole_after_a_kill_at(stage, ["First a note", "collecting", "finished"]).await;
}

async fn is_whole_after_a_kill_at(stage: &Stage, facts: [&str; 3]) {
    for fact in facts {
        let depot = Depot::new(stage);
        let first = depot.start(1).await;
        let script = waiting("any-fact").replace("[ ! -e /app/go ]", "false");
        let name = depot.submit(&first, &script).await;
        depot.event(&name, fact).await;
        first.kill().await;
        let second = depot.start(1).await;
        is_whole(&depot, &second, &name).await;
        second.stop().await;
    }
}

async fn an_agent_that_ended_while_nobody_watched_is_finished(stage: &Stage) {
    let depot = Depot::new(stage);
    let word = marked(stage, "unwatched");
    let first = depot.start(1).await;
    let name = depot
        .submit(
            &first,
            &waiting(&word).replace("text: All done.", "text: All done.\nafter_end: done"),
        )
        .await;
    until(|| !processes_with(&word).is_empty()).await;
    // Nobody answers the agent now: it has to give up on its model, and says so before it ends.
    first.kill().await;
    std::fs::write(depot.inside("go"), "").unwrap();
    let folder = stage.state.path().join("sandboxes");
    let folder = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let said = folder.join("out/stdout");
    until(|| std::fs::read_to_string(&said).unwrap().contains(r#""type":"result""#)).await;
    let second = depot.start(1).await;
    let ended = second.ended(&name).await;
    assert_eq!(ended.status, Status::Failed);
    let reason = ended.reason.unwrap();
    assert!(reason.starts_with("provider_unreachable: "), "{reason}");
    let events = depot.events(&name);
    assert_eq!(told(&events)[..6], WHOLE[..6]);
    second.stop().await;
}

async fn a_sandbox_that_went_while_nobody_watched_fails_its_run(stage: &Stage) {
    let depot = Depot::new(stage);
    let first = depot.start(1).await;
    let name = waiting_run(&depot, &first, "went").await;
    first.kill().await;
    stage.engine.reap(|_| false).await.unwrap();
    let second = depot.start(1).await;
    let ended = second.ended(&name).await;
    assert_eq!(ended.status, Status::Failed);
    assert!(ended.reason.unwrap().starts_with("sandbox_lost: "));
    let trajectory = depot.trajectory(&name);
    let steps = trajectory["agent_steps"].as_array().unwrap();
    assert_eq!(steps.len(), 4, "what was said until then is kept");
    second.stop().await;
}

async fn a_run_that_is_cancelled_while_it_waits_is_told_of_once(stage: &Stage) {
    let depot = Depot::new(stage);
    let first = depot.start(1).await;
    let catalog = depot.catalog(&first);
    let now = Timestamp::now();
    let team = first
        .on(move |_| async move { catalog.create_collection("team", None, now).await.unwrap() })
        .await;
    assert_eq!(team.name.as_str(), "team");
    waiting_run(&depot, &first, "before").await;
    let mut waits = Vec::new();
    for is_planned in [true, false] {
        let mut job = job("turns: [{ text: Hello. }]");
        job.webhook_url = Some("https://receiver.example/hook".to_owned());
        if !is_planned {
            job.runbook = "---\nagent: no-such-agent\n---\n# A story\n".to_owned();
        }
        waits.push(depot.submit_job(&first, job).await);
    }
    let asked = waits.clone();
    first
        .on(|queue| async move {
            for name in asked {
                queue.cancel(&name, Timestamp::now()).await.unwrap();
            }
        })
        .await;
    for name in &waits {
        depot.event(name, "finished").await;
    }
    // Wherever the process is killed now, the next one tells it once more instead of never.
    first.kill().await;
    let second = depot.start(1).await;
    let mut deliveries = deliveries(&depot, &second, waits.len()).await;
    for name in &waits {
        let told = deliveries.iter().position(|delivery| delivery.run == *name).unwrap();
        let told = deliveries.remove(told);
        assert_eq!(told.secret.unwrap().expose(), "made-up-key-of-a-webhook");
        let body: Value = serde_json::from_str(&told.body).unwrap();
        assert_eq!((&body["status"], &body["error"]), (&"cancelled".into(), &Value::Null));
        let events = depot.events(name);
        let kinds: Vec<&str> = events.iter().map(|e| e["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["opened", "status", "finished"]);
        assert_eq!(events[2]["status"], "cancelled");
        let trajectory = depot.trajectory(name);
        assert_eq!(trajectory["status"], "cancelled");
        assert_eq!(trajectory["steps"]["run"]["status"], "cancelled");
    }
    assert!(depot.folder(&waits[0]).join("instruction.md").is_file());
    std::fs::write(depot.inside("go"), "").unwrap();
    second.stop().await;
}

/// Waits until so many webhooks are in the outbox, and takes them from there.
async fn deliveries(depot: &Depot<'_>, process: &Process, n: usize) -> Vec<Delivery> {
    let catalog = depot.catalog(process);
    process
        .on(move |_| async move {
            let mut deliveries = Vec::new();
            while deliveries.len() < n {
                deliveries.extend(catalog.claim_delivery(Timestamp::now()).await.unwrap());
                tokio::time::sleep(POLL).await;
            }
            deliveries
        })
        .await
}

async fn a_run_that_is_cancelled_ends_and_keeps_its_files(stage: &Stage) {
    let depot = Depot::new(stage);
    let process = depot.start(1).await;
    let name = waiting_run(&depot, &process, "cancel").await;
    let asked = name.clone();
    process.on(|queue| async move { queue.cancel(&asked, Timestamp::now()).await.unwrap() }).await;
    assert_eq!(process.ended(&name).await.status, Status::Cancelled);
    assert_eq!(processes_with(&marked(stage, "cancel")), Vec::<String>::new());
    assert!(depot.folder(&name).join("results/starts").is_file());
    assert_eq!(depot.events(&name).last().unwrap()["status"], "cancelled");
    process.stop().await;
}

async fn a_cancelled_run_is_not_gone_on_with_after_a_restart(stage: &Stage) {
    let depot = Depot::new(stage);
    let first = depot.start(1).await;
    let name = waiting_run(&depot, &first, "cancel-dead").await;
    let asked = name.clone();
    first
        .on(|queue| async move {
            queue.cancel(&asked, Timestamp::now()).await.unwrap();
        })
        .await;
    first.kill().await;
    let second = depot.start(1).await;
    assert_eq!(second.ended(&name).await.status, Status::Cancelled);
    assert_eq!(depot.events(&name).last().unwrap()["status"], "cancelled");
    second.stop().await;
}

async fn a_time_limit_counts_from_the_start_whoever_watches(stage: &Stage) {
    let depot = Depot::new(stage);
    let first = depot.start(1).await;
    let word = marked(stage, "limit");
    let mut limited = job(&waiting(&word));
    limited.overrides.wall = Some(Duration::from_secs(20));
    let name = depot.submit_job(&first, limited).await;
    until(|| !processes_with(&word).is_empty()).await;
    let started = first.job(&name).await.started.unwrap();
    first.kill().await;
    until(|| Timestamp::now().duration_since(started).as_secs() >= 21).await;
    let second = depot.start(1).await;
    let ended = second.ended(&name).await;
    assert_eq!(ended.reason.as_deref(), Some("timeout: timeout after 20 s"));
    assert!(depot.folder(&name).join("results/starts").is_file());
    second.stop().await;
}

/// An agent that has done its work and does not end, nor quickly when it is asked to.
const LINGERS: &str = r#"
id='"session_id":"5e551011-0000-4000-8000-000000000000"'
echo '{"type":"system","subtype":"init","cwd":"/app",'$id',"tools":[],"mcp_servers":[],"model":"claude-sonnet-4-6","claude_code_version":"2.1.126"}'
echo '{"type":"assistant","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-6","content":[{"type":"text","text":"I work."}],"usage":{"input_tokens":100,"output_tokens":1}},'$id'}'
trap 'echo asked >/app/results/asked; sleep 2; trap - TERM; kill $$' TERM
echo '{"type":"result","subtype":"success","is_error":false,"num_turns":1,"result":"All done.","stop_reason":"end_turn",'$id',"total_cost_usd":0.1,"usage":{},"modelUsage":{"claude-sonnet-4-6":{"inputTokens":100,"outputTokens":17,"cacheReadInputTokens":0,"cacheCreationInputTokens":0,"webSearchRequests":0,"costUSD":0.1}},"terminal_reason":"completed"}'
while :; do sleep 0.1; done"#;

async fn an_agent_that_is_asked_to_end_when_its_process_dies_is_judged_by_the_reason(
    stage: &Stage,
) {
    let depot = Depot::with_agent(stage, LINGERS);
    let first = depot.start(1).await;
    let name = depot.submit(&first, "turns: [{ text: nobody asks }]").await;
    depot.event(&name, "I work.").await;
    let asked = depot.inside("results/asked");
    until(|| asked.is_file()).await;
    first.kill().await;
    let second = depot.start(1).await;
    let ended = second.ended(&name).await;
    assert_eq!((ended.status, ended.reason), (Status::Completed, None));
    let warnings = depot.trajectory(&name)["warnings"].to_string();
    assert!(warnings.contains("did not end after its result and was stopped"), "{warnings}");
    second.stop().await;
}

async fn a_run_whose_lease_is_lost_is_stopped_and_not_written_about(stage: &Stage) {
    let depot = Depot::new(stage);
    let process = depot.start(1).await;
    let name = waiting_run(&depot, &process, "lost").await;
    let lost = process
        .on(|queue| async move {
            let now = Timestamp::now();
            // No heartbeat comes between the two.
            let before = now.checked_sub(jiff::SignedDuration::from_secs(100)).unwrap();
            queue.expire(before, Duration::ZERO).await.unwrap();
            queue.expire(now, Duration::ZERO).await.unwrap()
        })
        .await;
    assert_eq!(lost, std::slice::from_ref(&name));
    until(|| processes_with(&marked(stage, "lost")).is_empty()).await;
    until(|| process.status().busy == 0).await;
    assert_eq!(depot.trajectory(&name)["status"], "running");
    assert_eq!(process.job(&name).await.reason.as_deref(), Some("worker_lost"));
    // Its worker has had time to hear of it: somebody else tells the end.
    depot.event(&name, "\"finished\"").await;
    let events = depot.events(&name);
    assert_eq!(told(&events)[..4], WHOLE[..4]);
    assert_eq!(events.last().unwrap()["failure"]["code"], "worker_lost");
    let trajectory = depot.trajectory(&name);
    assert_eq!(trajectory["status"], "failed");
    let steps = trajectory["agent_steps"].as_array().unwrap();
    assert_eq!(steps.len(), 4, "what was said until then is kept");
    process.stop().await;
}

async fn a_drained_process_begins_nothing_more(stage: &Stage) {
    let depot = Depot::new(stage);
    let process = depot.start(1).await;
    let busy = waiting_run(&depot, &process, "drain").await;
    let waits = depot.submit(&process, "turns: [{ text: Hello. }]").await;
    process.shutdown.drain.cancel();
    until(|| process.status().is_draining).await;
    let expected = WorkersStatus { slots: 1, busy: 1, waiting: None, is_draining: true };
    assert_eq!(process.status(), expected);
    std::fs::write(depot.inside("go"), "").unwrap();
    is_whole(&depot, &process, &busy).await;
    assert_eq!(process.job(&waits).await.status, Status::Queued);
    process.end().await;
    let next = depot.start(1).await;
    assert_eq!(next.ended(&waits).await.status, Status::Completed);
    next.stop().await;
}

async fn a_process_that_leaves_is_followed_by_one_that_goes_on(stage: &Stage) {
    let depot = Depot::new(stage);
    let first = depot.start(1).await;
    let name = waiting_run(&depot, &first, "leaves").await;
    first.shutdown.drain.cancel();
    first.shutdown.leave.cancel();
    first.end().await;
    assert!(!processes_with(&marked(stage, "leaves")).is_empty(), "the sandbox works on");
    let second = depot.start(1).await;
    depot.event(&name, "runbookd was restarted").await;
    std::fs::write(depot.inside("go"), "").unwrap();
    is_whole(&depot, &second, &name).await;
    second.stop().await;
}

async fn a_process_that_goes_for_good_cancels_its_runs(stage: &Stage) {
    let depot = Depot::new(stage);
    let first = depot.start(1).await;
    let name = waiting_run(&depot, &first, "for-good").await;
    first.shutdown.drain.cancel();
    first.shutdown.end.cancel();
    first.end().await;
    assert_eq!(processes_with(&marked(stage, "for-good")), Vec::<String>::new());
    assert_eq!(depot.events(&name).last().unwrap()["status"], "cancelled");
}

async fn an_agent_that_somebody_kills_is_named(stage: &Stage) {
    let depot = Depot::new(stage);
    let process = depot.start(1).await;
    let name = waiting_run(&depot, &process, "killed").await;
    // The sandbox's name ends with the beginning of the agent's session and the attempt.
    let sandbox = depot.inside("").ancestors().nth(2).unwrap().to_owned();
    let session = sandbox.file_name().unwrap().to_str().unwrap().split('-').nth(1).unwrap();
    let agent = format!("--session-id={session}");
    let agent = pids_with(&[&agent]).into_iter().max().expect("the agent runs");
    kill(agent);
    let reason = process.ended(&name).await.reason.unwrap();
    assert!(reason.starts_with("agent_crashed: the agent crashed: signal 9 "), "{reason}");
    assert!(reason.contains("somebody killed it"), "{reason}");
    assert!(depot.folder(&name).join("results/starts").is_file());
    process.stop().await;
}

async fn a_sandbox_that_somebody_removes_is_named(stage: &Stage) {
    let depot = Depot::new(stage);
    let process = depot.start(1).await;
    let name = waiting_run(&depot, &process, "removed").await;
    let sandbox = std::fs::read_dir(stage.state.path().join("sandboxes")).unwrap();
    let sandbox = sandbox.flatten().next().unwrap().path();
    let id = sandbox.file_name().unwrap().to_str().unwrap();
    match stage.kind {
        runbookd::sandbox::EngineKind::Docker => {
            let container = format!("runbookd-{}-{id}", stage.owner);
            let removed =
                std::process::Command::new("docker").args(["rm", "-f", &container]).output();
            assert!(removed.unwrap().status.success());
        }
        // The process that would have noted how the agent ended.
        runbookd::sandbox::EngineKind::Bubblewrap => {
            let pids = pids_with(&["--json-status-fd", sandbox.to_str().unwrap()]);
            kill(pids.into_iter().min().unwrap());
        }
    }
    let reason = process.ended(&name).await.reason.unwrap();
    assert!(reason.starts_with("sandbox_lost: the sandbox was lost: "), "{reason}");
    assert_eq!(depot.trajectory(&name)["agent_steps"].as_array().unwrap().len(), 4);
    process.stop().await;
}

async fn a_job_that_cannot_be_planned_fails_with_its_reason(stage: &Stage) {
    let depot = Depot::new(stage);
    let process = depot.start(1).await;
    let mut job = job("turns: [{ text: Hello. }]");
    job.files = vec![runbookd::job::JobFile { name: "a.csv".to_owned(), path: "gone".into() }];
    let name = depot.submit_job(&process, job).await;
    let ended = process.ended(&name).await;
    let reason = ended.reason.unwrap();
    assert!(reason.starts_with("refused: ") && reason.contains("gone"), "{reason}");
    assert_eq!(depot.events(&name).last().unwrap()["failure"]["code"], "refused");
    assert_eq!(depot.trajectory(&name)["status"], "failed");
    process.stop().await;
}

async fn a_run_that_cannot_be_planned_after_a_restart_leaves_no_sandbox(stage: &Stage) {
    let depot = Depot::new(stage);
    let first = depot.start(1).await;
    let name = waiting_run(&depot, &first, "key").await;
    first.kill().await;
    // Another key: what was sealed for the run cannot be opened any more.
    depot.replace_key();
    let second = depot.start(1).await;
    let reason = second.ended(&name).await.reason.unwrap();
    assert!(reason.contains("was sealed with another key"), "{reason}");
    assert_eq!(processes_with(&marked(stage, "key")), Vec::<String>::new());
    second.stop().await;
}

/// A clock with a bug, which shows once, when the record of a run is closed.
fn clock_with_a_bug() -> Timestamp {
    static HAS_SHOWN: AtomicBool = AtomicBool::new(false);
    if !HAS_SHOWN.load(Ordering::Relaxed) {
        let stack = std::backtrace::Backtrace::force_capture().to_string();
        if stack.contains("execute::Run::close") && !HAS_SHOWN.swap(true, Ordering::Relaxed) {
            panic!("the clock has a bug");
        }
    }
    Timestamp::now()
}

async fn a_bug_of_ours_fails_its_run_and_no_other(stage: &Stage) {
    let mut depot = Depot::new(stage);
    depot.clock = clock_with_a_bug;
    let process = depot.start(1).await;
    let name = depot.submit(&process, "turns: [{ text: Hello. }]").await;
    let ended = process.ended(&name).await;
    assert_eq!(ended.status, Status::Failed);
    let reason = ended.reason.unwrap();
    assert!(reason.starts_with("internal: "), "{reason}");
    assert_eq!(depot.events(&name).last().unwrap()["failure"]["code"], "internal");
    assert_eq!(depot.trajectory(&name)["status"], "failed");
    let next = depot.submit(&process, "turns: [{ text: Hello. }]").await;
    assert_eq!(process.ended(&next).await.status, Status::Completed);
    process.stop().await;
}

async fn sandboxes_that_no_run_names_are_reaped(stage: &Stage) {
    let depot = Depot::new(stage);
    let left = stage.state.path().join("sandboxes/left-behind");
    std::fs::create_dir_all(left.join("out")).unwrap();
    let process = depot.start(1).await;
    until(|| !left.exists()).await;
    // And later, beside one that is in use.
    let name = waiting_run(&depot, &process, "used").await;
    std::fs::create_dir_all(left.join("out")).unwrap();
    until(|| !left.exists()).await;
    std::fs::write(depot.inside("go"), "").unwrap();
    is_whole(&depot, &process, &name).await;
    process.stop().await;
}

async fn a_run_that_is_killed_during_its_setup_is_set_up_once(stage: &Stage) {
    let depot = Depot::new(stage);
    let first = depot.start(1).await;
    let mut job = job("turns: [{ text: Hello. }]");
    job.runbook = "---\nsetup: |\n  echo ready >>/app/results/setups\n  while [ ! -e /app/go ]; do sleep 0.1; done\n---\n# A story\n\nDo what the model says.\n".to_owned();
    let name = depot.submit_job(&first, job).await;
    depot.event(&name, "\"setup\"").await;
    until(|| depot.inside("results/setups").is_file()).await;
    first.kill().await;
    let second = depot.start(1).await;
    depot.event(&name, "runbookd was restarted").await;
    std::fs::write(depot.inside("go"), "").unwrap();
    assert_eq!(second.ended(&name).await.status, Status::Completed);
    let setups = std::fs::read_to_string(depot.folder(&name).join("results/setups")).unwrap();
    assert_eq!(setups, "ready\n");
    second.stop().await;
}

async fn a_run_that_could_not_be_started_goes_back_to_the_queue(stage: &Stage) {
    let depot = Depot::new(stage);
    let process = depot.start(1).await;
    // A file in the place of the folder in which every sandbox is made.
    let sandboxes = stage.state.path().join("sandboxes");
    std::fs::remove_dir(&sandboxes).unwrap();
    std::fs::write(&sandboxes, "in the way").unwrap();
    let name = depot.submit(&process, "turns: [{ text: Hello. }]").await;
    depot.event(&name, "The run is tried again").await;
    let tried = loop {
        let job = process.job(&name).await;
        if job.status == Status::Queued {
            break job;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let reason = tried.reason.unwrap();
    assert!(reason.contains("the sandbox failed: could not stage"), "{reason}");
    std::fs::remove_file(&sandboxes).unwrap();
    std::fs::create_dir(&sandboxes).unwrap();
    let ended = process.ended(&name).await;
    assert_eq!((ended.status, ended.attempt), (Status::Completed, 2));
    process.stop().await;
}

async fn the_secrets_of_a_job_reach_its_agent_and_nothing_else(stage: &Stage) {
    let depot = Depot::new(stage);
    let process = depot.start(1).await;
    let mut job = job("
turns:
  - tools: [{ Bash: { command: \"echo key $MADE_UP_KEY; echo -n $MADE_UP_KEY | wc -c\" } }]
  - text: Done.
");
    job.runbook =
        "---\nsecrets: {MADE_UP_KEY: {required: true}}\n---\n# A story\n\nDo it.\n".to_owned();
    let name = depot.submit_job(&process, job).await;
    assert_eq!(process.ended(&name).await.status, Status::Completed);
    let log = depot.folder(&name).join("logs/agent/claude-code.txt");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("key [redacted]") && log.contains("\\n19"), "{log}");
    let events = depot.events(&name);
    assert!(events.iter().all(|event| !event.to_string().contains("sk-made-up-in-a-job")));
    process.stop().await;
}

fn pids_with(words: &[&str]) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| {
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command);
        let is_it = words.iter().all(|word| command.contains(word));
        is_it.then(|| entry.file_name().to_str()?.parse().ok())?
    });
    pids.collect()
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
