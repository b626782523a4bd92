//! Runs that are stopped: by a limit, by a person, by force. Nothing of them goes on.

use std::time::Duration;

use expect_test::expect;
use runbookd::plan::Overrides;

use crate::support::{Scene, Stage, Story, Tokens, processes_with, until};

stories! {
    a_turn_limit_ends_a_run,
    a_provider_that_hangs_meets_the_time_limit,
    a_tool_that_hangs_meets_the_time_limit_and_the_files_stay,
    a_cancelled_run_keeps_its_files,
    a_run_cancelled_before_its_start_never_starts,
    a_run_ended_by_force_leaves_nothing_running,
    children_that_ran_away_end_with_the_run,
    the_usage_of_a_stopped_run_is_that_of_its_whole_replies,
}

/// A run that writes a file and then waits in a tool for ever. `word` marks it on the host.
fn waiting(word: &str) -> Story {
    Story::scripted(format!(
        "
turns:
  - text: First a file.
    tools: [{{ Bash: {{ command: echo kept >/app/results/a.txt }} }}]
    usage: {{ input: 1000, output: 70, cache_write_5m: 30 }}
  - text: Now I wait.
    tools: [{{ Bash: {{ command: \"bash -c 'sleep 1000; : {word}'\" }} }}]
    usage: {{ input: 40, output: 23, cache_read: 1030, cache_write_1h: 5 }}
"
    ))
}

fn marked(stage: &Stage, word: &str) -> String {
    format!("{word}-{}-{}", stage.owner, stage.kind)
}

/// Cancels a waiting run once it waits.
async fn cancelled_while_waiting(stage: &Stage, word: &str) -> Scene {
    let word = marked(stage, word);
    let scene = waiting(&word)
        .run_while(stage, async |live| {
            until(|| !processes_with(&word).is_empty()).await;
            live.stop.cancel.cancel();
        })
        .await;
    assert_eq!(processes_with(&word), Vec::<String>::new());
    scene
}

async fn a_turn_limit_ends_a_run(stage: &Stage) {
    let mut story = Story::scripted(
        "turns: [{ text: One more., tools: [{ Bash: { command: echo hi } }] }]\nafter_end: repeat_last\n",
    );
    story.overrides.max_turns = Some(2);
    let scene = story.run(stage).await;
    expect![[r#"
        failed: turn_limit: the run used up its turns (limit: 2)
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 200/16/0/0/0/0
        message: One more.
        Bash {"command":"echo hi"} -> hi
        message: One more.
        Bash {"command":"echo hi"} -> hi
        result error_max_turns: Reached maximum number of turns (2)
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
}

async fn a_provider_that_hangs_meets_the_time_limit(stage: &Stage) {
    let mut story = Story::scripted("turns: [{ hang: true }]");
    story.overrides.wall = Some(Duration::from_secs(4));
    let scene = story.run(stage).await;
    expect![[r#"
        failed: timeout: timeout after 4 s
        verdict: null, 0 files, report absent
        usage: none 
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
    let took = scene.report.took;
    assert!((Duration::from_secs(4)..Duration::from_secs(20)).contains(&took), "{took:?}");
}

async fn a_tool_that_hangs_meets_the_time_limit_and_the_files_stay(stage: &Stage) {
    let word = marked(stage, "hanging");
    let overrides = Overrides { wall: Some(Duration::from_secs(8)), ..waiting("").overrides };
    let scene = Story { overrides, ..waiting(&word) }.run(stage).await;
    assert_eq!(processes_with(&word), Vec::<String>::new());
    assert_eq!(scene.ending(), "timeout");
    assert_eq!(scene.text("results/a.txt"), "kept\n");
}

async fn a_cancelled_run_keeps_its_files(stage: &Stage) {
    let scene = cancelled_while_waiting(stage, "cancelled").await;
    assert_eq!(scene.ending(), "cancelled");
    assert_eq!(scene.text("results/a.txt"), "kept\n");
    assert!(scene.files().iter().any(|file| file.extension().is_some_and(|e| e == "jsonl")));
}

async fn a_run_cancelled_before_its_start_never_starts(stage: &Stage) {
    let scene = waiting("never").run_while(stage, async |live| live.stop.cancel.cancel()).await;
    assert_eq!(scene.ending(), "cancelled");
}

async fn a_run_ended_by_force_leaves_nothing_running(stage: &Stage) {
    let word = marked(stage, "forced");
    let scene = Story { tokens: Tokens::AtLeast, ..waiting(&word) }
        .run_while(stage, async |live| {
            until(|| !processes_with(&word).is_empty()).await;
            live.stop.force.cancel();
        })
        .await;
    assert_eq!(processes_with(&word), Vec::<String>::new());
    assert_eq!(scene.ending(), "cancelled");
    assert!(!scene.log.is_empty());
}

async fn children_that_ran_away_end_with_the_run(stage: &Stage) {
    let word = marked(stage, "runaway");
    // A session of its own, a child whose parent is gone, and one that ignores every gentle signal.
    let child = format!("trap '' TERM INT HUP; while :; do sleep 1; done; : {word}");
    let command = format!(
        "setsid bash -c \"{child}\" >/dev/null 2>&1 & (setsid bash -c \"{child}\" >/dev/null 2>&1 &) & nohup bash -c \"{child}\" >/dev/null 2>&1 & sleep 0.5; echo started >/app/results/a"
    );
    let command = serde_json::to_string(&command).unwrap();
    let mut seen = 0;
    let scene = Story::scripted(format!(
        "turns: [{{ tools: [{{ Bash: {{ command: {command} }} }}] }}, {{ text: Done., delay_ms: 1500 }}]"
    ))
    .run_while(stage, async |live| {
        live.tool_begins("setsid").await;
        until(|| processes_with(&word).len() >= 3).await;
        seen = processes_with(&word).len();
    })
    .await;
    assert!(seen >= 3);
    assert_eq!(processes_with(&word), Vec::<String>::new());
    assert_eq!(scene.ending(), "completed");
}

async fn the_usage_of_a_stopped_run_is_that_of_its_whole_replies(stage: &Stage) {
    let scene = cancelled_while_waiting(stage, "usage").await;
    expect![[r#"
        cancelled
        verdict: null, 1 files, report absent
        usage: session_files claude-sonnet-4-6 1040/93/1030/30/5/0
        message: First a file.
        Bash {"command":"echo kept >/app/results/a.txt"} -> (Bash completed with no output)
        message: Now I wait.
        Bash {"command":"bash -c 'sleep 1000; : WORD'"} -> no result
    "#]]
    .assert_eq(&scene.outline().replace(&marked(stage, "usage"), "WORD"));
}
