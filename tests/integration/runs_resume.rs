//! Runs that go on with the conversation of a former run.

use expect_test::expect;
use runbookd::run::{Former, RunRef};
use runbookd::worker::find_former;
use serde_json::json;

use crate::support::{Home, Scene, Stage, Story, processes_with, until};

stories! {
    a_resumed_run_goes_on_where_the_former_ended,
    a_resumed_run_that_is_stopped_counts_only_its_own_tokens,
    a_masked_conversation_is_told_of,
    a_report_of_the_former_run_does_not_pass_the_new_one,
    a_run_is_resumed_from_the_command_line_with_its_own_runbook,
}

/// What the model said in the first run.
const FIRST: &str = "
turns:
  - text: I begin.
    tools: [{ Bash: { command: \"echo one >/app/results/a.txt; cp /app/assets/* /app/results/\" } }]
    usage: { input: 1000, output: 100, cache_write_5m: 10 }
  - text: The first part is done.
    usage: { input: 2000, output: 200, cache_read: 10 }
";

/// What it says in the second: its turns come after those of the first.
const SECOND: &str = "
  - text: I go on.
    tools: [{ Bash: { command: \"ls /app/results /app/assets | wc -l; cat /app/results/a.txt | tee /app/results/b.txt\" } }]
    usage: { input: 30, output: 3, cache_read: 7 }
  - text: The second part is done.
    usage: { input: 50, output: 5 }
";

fn former(scene: &Scene) -> Former {
    let results = scene.folder().ancestors().nth(3).unwrap();
    find_former(results, &RunRef::Id(scene.report.name.id.clone())).unwrap()
}

fn begun() -> Story {
    Story { assets: vec![("in.csv", "a,b\n")], ..Story::scripted(FIRST) }
}

async fn a_resumed_run_goes_on_where_the_former_ended(stage: &Stage) {
    let first = begun().run(stage).await;
    assert_eq!(first.ending(), "completed");
    assert_eq!(first.trajectory["resumed_from"], json!(null));
    let story =
        Story { former: Some(former(&first)), ..Story::scripted(format!("{FIRST}{SECOND}")) };
    let second = story.run(stage).await;
    expect![[r#"
        completed
        verdict: null, 4 files, report absent
        usage: agent_result claude-sonnet-4-6 80/8/7/0/0/0
        message: I go on.
        Bash {"command":"ls /app/results /app/assets | wc -l; cat /app/results/a.txt | tee /app/results/b.txt"} -> 9\none
        message: The second part is done.
        result success: The second part is done.
    "#]]
    .assert_eq(&second.outline());
    // The model was shown the whole former conversation: two replies of its own among four
    // messages, then the new instruction.
    assert_eq!(second.ledger[0]["place"], json!({ "part": "main", "turn": 3 }));
    assert_eq!(second.ledger[0]["n_messages"], 5);
    assert_ne!(second.report.name.id, first.report.name.id);
    assert_eq!(second.trajectory["resumed_from"], first.report.name.to_string());
    assert_eq!(second.trajectory["agent"]["session_ids"], first.trajectory["agent"]["session_ids"]);
    // A resumed run can be resumed again, with every file that was given before.
    let third = Story {
        former: Some(former(&second)),
        ..Story::scripted(format!("{FIRST}{SECOND}  - text: Nothing is left to do.\n"))
    };
    let third = third.run(stage).await;
    assert_eq!(third.ending(), "completed");
    assert_eq!(third.ledger[0]["place"], json!({ "part": "main", "turn": 5 }));
    assert_eq!(third.text("results/b.txt"), "one\n");
    assert_eq!(third.text("assets/in.csv"), "a,b\n");
}

async fn a_resumed_run_that_is_stopped_counts_only_its_own_tokens(stage: &Stage) {
    let first = begun().run(stage).await;
    let word = format!("resumed-{}", stage.owner);
    let script = format!(
        "{FIRST}
  - text: I go on.
    tools: [{{ Bash: {{ command: \"bash -c 'sleep 1000; : {word}'\" }} }}]
    usage: {{ input: 30, output: 3, cache_read: 7 }}
"
    );
    let story = Story { former: Some(former(&first)), ..Story::scripted(script) };
    let scene = story
        .run_while(stage, async |live| {
            until(|| !processes_with(&word).is_empty()).await;
            live.stop.cancel.cancel();
        })
        .await;
    assert_eq!(scene.ending(), "cancelled");
    let usage = &scene.trajectory["usage"];
    assert_eq!(usage["source"], "session_files");
    let counts = |name: &str| usage["total"][name].as_u64().unwrap();
    assert_eq!((counts("input"), counts("output"), counts("cache_read")), (30, 3, 7));
}

async fn a_masked_conversation_is_told_of(stage: &Stage) {
    let runbook = "---\nsecrets: { K: { env: ACME_KEY, required: true } }\n---\n# Say it\n";
    let story = || Story {
        runbook: runbook.to_owned(),
        keys: vec![("ACME_KEY", "made-up-key-0123456789")],
        ..Story::scripted(
            "turns: [{ tools: [{ Bash: { command: \"echo $ACME_KEY\" } }] }, { text: Said. }, { text: Read. }]",
        )
    };
    let first = story().run(stage).await;
    let second = Story { former: Some(former(&first)), ..story() }.run(stage).await;
    assert_eq!(second.ending(), "completed");
    let told = |warning: &&str| warning.contains("the agent reads [redacted] in their place");
    assert!(second.warnings().iter().any(told), "{:?}", second.warnings());
    assert!(!first.warnings().iter().any(told));
}

async fn a_report_of_the_former_run_does_not_pass_the_new_one(stage: &Stage) {
    let report = |text: &str| {
        let command = format!("echo '{text}' >/app/results/validation_report.json");
        format!(
            "  - tools: [{{ Bash: {{ command: {} }} }}]\n",
            serde_json::to_string(&command).unwrap()
        )
    };
    let passed = report(r#"{"overall_passed": true}"#);
    let first = Story::scripted(format!("turns:\n{passed}  - text: Done.\n")).run(stage).await;
    assert_eq!(first.trajectory["verdict"]["passed"], true);
    let script = format!("turns:\n{passed}  - text: Done.\n  - text: I did no more.\n");
    let idle = Story { former: Some(former(&first)), ..Story::scripted(script) }.run(stage).await;
    assert_eq!(idle.trajectory["verdict"]["passed"], json!(null));
    assert!(idle.warnings().iter().any(|warning| warning.contains("the former run's, unchanged")));
    let judged = report(r#"{"overall_passed": true, "round": 2}"#);
    let script = format!("turns:\n{passed}  - text: Done.\n{judged}  - text: Done.\n");
    let busy = Story { former: Some(former(&first)), ..Story::scripted(script) }.run(stage).await;
    assert_eq!(busy.trajectory["verdict"]["passed"], true);
}

async fn a_run_is_resumed_from_the_command_line_with_its_own_runbook(stage: &Stage) {
    let home = Home::new();
    let engine = stage.kind.to_string();
    home.file("greet.md", "---\nmodel: claude-opus-4-7\n---\n# Greet {{name}}\n");
    home.file("first.yaml", FIRST);
    home.file("second.yaml", &format!("{FIRST}{SECOND}"));
    let common = ["--engine", engine.as_str(), "--network", "none", "--script"];
    let first = ["run", "greet.md", "--var", "name=Ada", "--collection", "team"];
    let first = home.run(&[&first[..], &common, &["first.yaml"]].concat()).await;
    assert_eq!(first.code, Some(0), "{first:?}");
    let id = home.trajectories()[0]["trajectory_id"].as_str().unwrap().to_owned();
    let named = format!("team/greet/{id}");
    let second = [&["run", "--resume", &named], &common[..], &["second.yaml"]].concat();
    let second = home.run(&second).await;
    assert_eq!(second.code, Some(0), "{second:?}");
    let trajectories = home.trajectories();
    let second = trajectories.iter().find(|run| run["trajectory_id"] != id.as_str()).unwrap();
    assert_eq!(second["resumed_from"], named.as_str());
    assert_eq!(second["name"], "team/greet");
    assert_eq!(second["init_params"], json!({ "name": "Ada" }));
    assert_eq!(second["steps"]["run"]["config"]["model"], "claude-opus-4-7");
}
