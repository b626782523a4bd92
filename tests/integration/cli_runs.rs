//! The command line with real runs: exit codes, what is shown, signals, and what a killed process
//! leaves to the next one.

use std::collections::BTreeSet;

use runbookd::sandbox::EngineKind;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::Child;

use crate::support::{Home, Ran, Stage, processes_with, until};

stories! {
    the_demo_passes_and_tells_all_of_it_in_json,
    the_demo_tells_all_of_it_in_plain_lines,
    a_failed_run_and_a_failed_verdict_have_codes_of_their_own,
    one_interrupt_keeps_the_files,
    two_interrupts_end_at_once,
    what_a_killed_process_left_is_reaped_by_the_next,
    runs_of_one_home_leave_each_other_alone,
    runs_of_two_homes_leave_each_other_alone,
    many_starts_at_once_reap_none_of_each_other,
}

/// A home with a runbook whose agent writes a file and then waits for ever.
fn waiting_home(stage: &Stage) -> (Home, String) {
    let home = Home::new();
    let word = format!("waits-{}-{}", stage.owner, stage.kind);
    home.file("wait.md", "# Wait\n");
    home.file(
        "wait.yaml",
        &format!(
            "turns: [{{ tools: [{{ Bash: {{ command: \"echo kept >/app/results/a.txt; bash -c 'sleep 1000; : {word}'\" }} }}] }}, {{ text: Done. }}]"
        ),
    );
    (home, word)
}

fn engine(stage: &Stage) -> &'static str {
    match stage.kind {
        EngineKind::Docker => "docker",
        EngineKind::Bubblewrap => "bubblewrap",
    }
}

/// Starts the run that waits, and comes back when it does.
async fn start_waiting(stage: &Stage, home: &Home, word: &str) -> Child {
    let child = home.start(&[
        "run",
        "wait.md",
        "--script",
        "wait.yaml",
        "--engine",
        engine(stage),
        "--network",
        "none",
    ]);
    until(|| !processes_with(word).is_empty()).await;
    child
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn assert_clean(stage: &Stage, home: &Home, word: &str) {
    assert_eq!(home.leftovers(stage.kind), Vec::<String>::new());
    assert_eq!(processes_with(word), Vec::<String>::new());
}

fn result_of(home: &Home) -> String {
    let folder =
        home.path().join("results").join(home.trajectories()[0]["storage_path"].as_str().unwrap());
    std::fs::read_to_string(folder.join("results/a.txt")).unwrap()
}

async fn the_demo_passes_and_tells_all_of_it_in_json(stage: &Stage) {
    let home = Home::new();
    let ran = home.run(&["demo", "--json", "--engine", engine(stage)]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    let events = ran.events();
    let names: BTreeSet<&str> =
        events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    let expected = "activity finished note opened phase said tool_finished tool_started usage";
    assert_eq!(names, expected.split(' ').collect());
    let trajectory = &home.trajectories()[0];
    // Every step is told, the last one too.
    let told = |name: &'static str| events.iter().filter(move |event| event["event"] == name);
    let steps = trajectory["agent_steps"].as_array().unwrap();
    let messages = steps.iter().filter(|step| step["kind"] == "message");
    let texts: Vec<&Value> = messages.map(|step| &step["text"]["text"]).collect();
    assert_eq!(told("said").map(|event| &event["text"]).collect::<Vec<_>>(), texts);
    let n_calls = steps.iter().filter(|step| step["kind"] == "tool_call").count();
    assert_eq!((told("tool_started").count(), told("tool_finished").count()), (n_calls, n_calls));
    let phases: Vec<&Value> = told("phase").map(|event| &event["phase"]).collect();
    assert_eq!(phases, ["provisioning", "running", "collecting"]);
    let finished = events.last().unwrap();
    assert_eq!(finished["event"], "finished");
    assert_eq!(finished["usage"]["by_model"], trajectory["usage"]["models"]);
    assert_eq!(
        (&finished["status"], &finished["passed"], &finished["exit_code"]),
        (&Value::from("completed"), &Value::from(true), &Value::from(0))
    );
    assert_clean(stage, &home, "no such word");
}

async fn the_demo_tells_all_of_it_in_plain_lines(stage: &Stage) {
    let home = Home::new();
    let ran = home.run(&["demo", "--engine", engine(stage)]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    assert!(!ran.stdout.contains(['\x1b', '\r']), "no escape codes: {:?}", ran.stdout);
    for line in [
        "* I will look around in the sandbox.",
        "* The greeting is in hello.md, and the report says that it passed.",
        "verdict  passed (2 files in results)",
        "claude-sonnet-4-6        1,610          311        6,620        3,520",
        "(the agent's own totals)",
    ] {
        assert!(ran.stdout.contains(line), "{line}: {}", ran.stdout);
    }
}

async fn a_failed_run_and_a_failed_verdict_have_codes_of_their_own(stage: &Stage) {
    let home = Home::new();
    home.file("missing.md", "---\nprimary_outputs: [a.md]\n---\n# Write\n");
    home.file("done.yaml", "turns: [{ text: Done. }]");
    home.file("broken.yaml", "turns: [{ fail: { status: 400 }, times: forever }]");
    let run = async |script: &str| {
        home.run(&[
            "run",
            "missing.md",
            "--script",
            script,
            "--engine",
            engine(stage),
            "--network",
            "none",
        ])
        .await
    };
    let verdict = run("done.yaml").await;
    assert_eq!(verdict.code, Some(3), "{verdict:?}");
    assert!(verdict.stdout.contains("missing  a.md"), "{verdict:?}");
    let failed = run("broken.yaml").await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stdout.contains("Read the provider's words above"), "{failed:?}");
    assert_clean(stage, &home, "no such word");
}

async fn one_interrupt_keeps_the_files(stage: &Stage) {
    let (home, word) = waiting_home(stage);
    let child = start_waiting(stage, &home, &word).await;
    signal(&child, Signal::INT);
    let ran = Ran::of(child).await;
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert!(ran.stderr.contains("its files are kept"), "{ran:?}");
    assert_eq!(result_of(&home), "kept\n");
    assert_eq!(home.trajectories()[0]["status"], "cancelled");
    assert_clean(stage, &home, &word);
}

async fn two_interrupts_end_at_once(stage: &Stage) {
    let (home, word) = waiting_home(stage);
    let child = start_waiting(stage, &home, &word).await;
    signal(&child, Signal::INT);
    signal(&child, Signal::TERM);
    let ran = Ran::of(child).await;
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert_eq!(home.trajectories()[0]["status"], "cancelled");
    assert_clean(stage, &home, &word);
}

async fn what_a_killed_process_left_is_reaped_by_the_next(stage: &Stage) {
    let (home, word) = waiting_home(stage);
    let mut child = start_waiting(stage, &home, &word).await;
    signal(&child, Signal::KILL);
    child.wait().await.unwrap();
    // The sandbox outlives its process: that is why there is a reaper.
    assert!(!processes_with(&word).is_empty());
    assert_eq!(home.trajectories()[0]["status"], "running");
    let ran = home.run(&["demo", "--engine", engine(stage)]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_clean(stage, &home, &word);
}

async fn runs_of_one_home_leave_each_other_alone(stage: &Stage) {
    let (home, word) = waiting_home(stage);
    let child = start_waiting(stage, &home, &word).await;
    let demo = ["demo", "--engine", engine(stage)];
    let (one, two) = tokio::join!(home.run(&demo), home.run(&demo));
    assert_eq!((one.code, two.code), (Some(0), Some(0)), "{one:?} {two:?}");
    assert!(!processes_with(&word).is_empty(), "the first run goes on");
    signal(&child, Signal::TERM);
    assert_eq!(Ran::of(child).await.code, Some(130));
    assert_clean(stage, &home, &word);
}

async fn runs_of_two_homes_leave_each_other_alone(stage: &Stage) {
    let (home, word) = waiting_home(stage);
    let other = Home::new();
    let child = start_waiting(stage, &home, &word).await;
    let ran = other.run(&["demo", "--engine", engine(stage)]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(!processes_with(&word).is_empty(), "the first run goes on");
    signal(&child, Signal::TERM);
    let ran = Ran::of(child).await;
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert_eq!(result_of(&home), "kept\n");
    assert_clean(stage, &home, &word);
}

async fn many_starts_at_once_reap_none_of_each_other(stage: &Stage) {
    /// Enough that one begins while another looks for what was left.
    const STARTS: usize = 8;
    let home = Home::new();
    home.file("any.md", "# Any\n");
    home.file("any.yaml", "turns: [{ text: Done. }]");
    let agent = home.file("agent", "#!/bin/sh\nsleep 1; exit 3\n");
    std::fs::set_permissions(&agent, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut arguments = vec!["run", "any.md", "--script", "any.yaml", "--network", "none"];
    arguments.extend(["--agent-cli", &agent, "--engine", engine(stage)]);
    let ran = futures_util::future::join_all((0..STARTS).map(|_| home.run(&arguments))).await;
    // Each agent came to its own end: a reaped one would have been killed.
    for ran in &ran {
        assert!(ran.stdout.contains("exit code 3"), "{ran:?}");
    }
    assert_clean(stage, &home, "no such word");
}
