//! Runs in which nothing goes on: each is ended for what it waited for, and what only looks like it is
//! left alone.

use std::time::Duration;

use runbookd::plan::Overrides;
use runbookd::provider::scripted::{Listen, Script, ScriptedProvider};
use runbookd::run::{Activity, Limits, Network};
use runbookd::worker::RunUpdate;

use crate::support::{Scene, Stage, Story, host, processes_with};

stories! {
    a_model_that_never_answers_is_a_stalled_model,
    a_model_that_stops_in_the_middle_of_its_answer_is_a_stalled_model,
    a_model_that_is_not_seen_to_answer_has_twice_the_time,
    a_long_answer_that_comes_is_waited_for,
    a_tool_that_hangs_is_stuck_and_the_files_stay,
    a_tool_that_works_is_left_alone,
    a_limited_rate_is_no_stall_however_long_it_lasts,
    a_limited_rate_without_a_gateway_is_no_stall_either,
    a_run_that_waits_for_the_rate_of_its_collection_is_no_stall,
}

/// What a story sets so that it need not wait for minutes.
fn soon(limits: &mut Limits) {
    limits.stall.model = Duration::from_secs(4);
}

/// The same for tools. The agent CLI takes its time to start, so the other limits stay.
fn tools_soon(limits: &mut Limits) {
    limits.stall.tool = Duration::from_secs(6);
}

/// A story whose model is somewhere else, behind the run's gateway.
async fn behind_a_gateway(stage: &Stage, script: &str, limits: fn(&mut Limits)) -> Scene {
    behind_a_gateway_with(stage, script, limits, &[]).await
}

/// The same, with more in its collection's environment.
async fn behind_a_gateway_with(
    stage: &Stage,
    script: &str,
    limits: fn(&mut Limits),
    environment: &[(&'static str, &'static str)],
) -> Scene {
    let address = Listen::Tcp("0.0.0.0:0".parse().unwrap());
    let script = Script::parse(script).unwrap();
    let server = ScriptedProvider::start(script, address).await.unwrap();
    let Listen::Tcp(address) = server.address() else { panic!("a TCP address") };
    let url = format!("http://{}:{}", host(stage.kind), address.port());
    let story = Story {
        provider: Some("anthropic"),
        keys: [
            &[("ANTHROPIC_API_KEY", "sk-ant-made-up-stall"), ("ANTHROPIC_BASE_URL", &*url.leak())],
            environment,
        ]
        .concat(),
        overrides: Overrides {
            model: Some("claude-sonnet-4-6".to_owned()),
            network: Some(Network::None),
            model_retries: Some(5),
            ..Overrides::default()
        },
        limits,
        ..Story::scripted("")
    };
    let scene = story.run(stage).await;
    server.stop().await;
    scene
}

/// The activities that were told, in order.
fn activities(scene: &Scene) -> Vec<Activity> {
    let told = scene.updates.iter().filter_map(|update| match update {
        RunUpdate::Activity(now) => Some(now.state),
        RunUpdate::Opened { .. }
        | RunUpdate::Phase(_)
        | RunUpdate::Note(_)
        | RunUpdate::Step(_)
        | RunUpdate::Live(_) => None,
    });
    told.collect()
}

/// Checks that the run was ended for this, and that a person was warned before.
fn stalled(scene: &Scene, activity: Activity) {
    assert_eq!(scene.ending(), "stalled");
    let word = activity.as_str();
    let error = scene.trajectory["error"].as_str().unwrap();
    assert!(error.starts_with(&format!("the run stalled (`{word}`)")), "{error}");
    assert_eq!(activities(scene).last(), Some(&activity));
    let warned = |update: &RunUpdate| matches!(update, RunUpdate::Note(note) if note.starts_with("Nothing goes on"));
    assert!(scene.updates.iter().any(warned));
    let warnings = scene.warnings();
    assert!(warnings.iter().any(|warning| warning.contains("Nothing goes on")), "{warnings:?}");
}

async fn a_model_that_never_answers_is_a_stalled_model(stage: &Stage) {
    let scene = behind_a_gateway(stage, "turns: [{ hang: true, times: forever }]", soon).await;
    stalled(&scene, Activity::ModelStalled);
    assert!(scene.text("logs/gateway.jsonl").contains(r#""outcome":"abandoned""#));
}

async fn a_model_that_stops_in_the_middle_of_its_answer_is_a_stalled_model(stage: &Stage) {
    let script = "turns: [{ text: I begin and do not go on with it., chunk_delay_ms: 60000 }]";
    let scene = behind_a_gateway(stage, script, soon).await;
    stalled(&scene, Activity::ModelStalled);
    let ledger = scene.text("logs/gateway.jsonl");
    let last: serde_json::Value = serde_json::from_str(ledger.lines().last().unwrap()).unwrap();
    assert_eq!((&last["outcome"], &last["status"]), (&"abandoned".into(), &200.into()));
    assert!(last["n_answer_bytes"].as_u64().unwrap() > 0, "{last}");
}

async fn a_model_that_is_not_seen_to_answer_has_twice_the_time(stage: &Stage) {
    let mut story = Story::scripted("turns: [{ hang: true, times: forever }]");
    story.limits = |limits| limits.stall.model = Duration::from_secs(3);
    let scene = story.run(stage).await;
    stalled(&scene, Activity::ModelStalled);
    assert!(scene.report.took >= Duration::from_secs(6), "{:?}", scene.report.took);
}

async fn a_long_answer_that_comes_is_waited_for(stage: &Stage) {
    // Fifteen pieces, one a second; the ledger tells of them every five.
    let script = "turns: [{ text_repeat: { text: A word. , times: 48 }, chunk_delay_ms: 1000 }]";
    let scene = behind_a_gateway(stage, script, |limits| {
        limits.stall.model = Duration::from_secs(11);
    });
    let scene = scene.await;
    assert_eq!(scene.ending(), "completed");
    assert!(scene.report.took >= Duration::from_secs(12), "{:?}", scene.report.took);
    let ledger = scene.text("logs/gateway.jsonl");
    let n_lines = ledger.lines().filter(|line| line.contains(r#""outcome":"in_flight""#)).count();
    assert!(n_lines >= 3, "{ledger}");
    assert_eq!(scene.trajectory["usage"]["reconciliation"], "exact");
}

async fn a_tool_that_hangs_is_stuck_and_the_files_stay(stage: &Stage) {
    let word = format!("stuck-{}", stage.owner);
    let script = format!(
        "
turns:
  - text: First a file.
    tools: [{{ Bash: {{ command: echo kept >/app/results/a.txt }} }}]
    usage: {{ input: 1000, output: 70 }}
  - text: Now I wait.
    tools: [{{ Bash: {{ command: \"bash -c 'sleep 1000; : {word}'\" }} }}]
    usage: {{ input: 40, output: 23 }}
"
    );
    let scene = Story { limits: tools_soon, ..Story::scripted(script) }.run(stage).await;
    stalled(&scene, Activity::ToolStuck);
    assert_eq!(processes_with(&word), Vec::<String>::new());
    assert_eq!(scene.text("results/a.txt"), "kept\n");
    assert_eq!(scene.trajectory["usage"]["source"], "session_files");
}

async fn a_tool_that_works_is_left_alone(stage: &Stage) {
    let command = "timeout 14 sh -c 'while :; do :; done'; echo built >/app/results/a.txt";
    let script = format!(
        "turns: [{{ tools: [{{ Bash: {{ command: \"{command}\" }} }}] }}, {{ text: Done. }}]"
    );
    let scene = Story { limits: tools_soon, ..Story::scripted(script) }.run(stage).await;
    assert_eq!(scene.ending(), "completed");
    assert_eq!(scene.text("results/a.txt"), "built\n");
    let told = activities(&scene);
    assert!(told.iter().all(|activity| !activity.is_stalled()), "{told:?}");
    assert!(told.contains(&Activity::ToolRunning), "{told:?}");
}

/// Three times "in six seconds", then an answer.
const LIMITED: &str = "
turns:
  - fail: { status: 429, type: rate_limit_error, message: slow down, retry_after: 6 }
    times: 3
  - text: Done.
";

async fn a_limited_rate_is_no_stall_however_long_it_lasts(stage: &Stage) {
    let scene = behind_a_gateway(stage, LIMITED, |limits| {
        limits.stall.model = Duration::from_secs(4);
        limits.stall.silent = Duration::from_secs(15);
    });
    let scene = scene.await;
    assert_eq!(scene.ending(), "completed");
    assert!(activities(&scene).contains(&Activity::RateLimited), "{:?}", activities(&scene));
    assert!(scene.report.took >= Duration::from_secs(18), "{:?}", scene.report.took);
}

async fn a_limited_rate_without_a_gateway_is_no_stall_either(stage: &Stage) {
    let mut story = Story::scripted(LIMITED);
    story.overrides.model_retries = Some(5);
    // Twice that is shorter than the waits together.
    story.limits = |limits| limits.stall.model = Duration::from_secs(8);
    let scene = story.run(stage).await;
    assert_eq!(scene.ending(), "completed");
    assert!(activities(&scene).contains(&Activity::RateLimited), "{:?}", activities(&scene));
}

async fn a_run_that_waits_for_the_rate_of_its_collection_is_no_stall(stage: &Stage) {
    let turn = |n| format!("  - text: I look.\n    tools: [{{ Bash: {{ command: echo {n} }} }}]\n");
    let script = format!("turns:\n{}{}  - text: Done.\n", turn(1), turn(2));
    // Two at once, and the third when half a minute has passed.
    let environment = [("RUNBOOKD_MAX_REQUESTS_PER_MINUTE", "2")];
    let limits: fn(&mut Limits) = |limits| {
        limits.stall.model = Duration::from_secs(12);
        limits.stall.silent = Duration::from_secs(15);
    };
    let scene = behind_a_gateway_with(stage, &script, limits, &environment).await;
    assert_eq!(scene.ending(), "completed", "{}", scene.outline());
    assert!(scene.report.took >= Duration::from_secs(20), "{:?}", scene.report.took);
    assert!(activities(&scene).contains(&Activity::RateLimited), "{:?}", activities(&scene));
    let ledger = scene.text("logs/gateway.jsonl");
    assert!(ledger.contains(r#""outcome":"waiting""#), "{ledger}");
    assert_eq!(scene.trajectory["usage"]["reconciliation"], "exact");
}
