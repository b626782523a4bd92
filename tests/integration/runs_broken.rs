//! What breaks on our side: each has its name, and nothing is left of it.

use runbookd::plan::Overrides;
use runbookd::worker::{Phase, RunUpdate};

use crate::support::{Stage, Story};

stories! {
    a_sandbox_that_cannot_be_made_is_named,
    a_record_that_cannot_be_written_is_named,
    a_bug_ends_one_run_and_leaves_no_sandbox,
}

/// One tool call, then the end.
const SCRIPT: &str = "turns: [{tools: [{Bash: {command: sleep 600 &}}]}, {text: Done.}]";

async fn a_sandbox_that_cannot_be_made_is_named(stage: &Stage) {
    let image = Some("runbookd-no-such-image:1".to_owned());
    let story = Story::scripted(SCRIPT);
    let overrides = Overrides { image, ..story.overrides.clone() };
    let scene = Story { overrides, ..story }.run(stage).await;
    assert_eq!(scene.trajectory["failure"]["code"], "sandbox_failed", "{}", scene.outline());
    let message = scene.trajectory["error"].as_str().unwrap();
    assert!(message.contains("runbookd-no-such-image:1"), "{message}");
}

async fn a_record_that_cannot_be_written_is_named(stage: &Stage) {
    let scene = Story {
        on_update: |update| {
            if let RunUpdate::Opened { folder, .. } = update {
                std::fs::remove_dir_all(folder.join("logs/agent")).unwrap();
            }
        },
        ..Story::fake("sleep 600")
    }
    .run(stage)
    .await;
    assert_eq!(scene.trajectory["failure"]["code"], "store_failed", "{}", scene.outline());
}

async fn a_bug_ends_one_run_and_leaves_no_sandbox(stage: &Stage) {
    let scene = Story {
        on_update: |update| {
            assert!(!matches!(update, RunUpdate::Phase(Phase::Running)), "a bug, made up");
        },
        ..Story::fake("sleep 600")
    }
    .run(stage)
    .await;
    // That nothing is left, every story checks.
    assert_eq!(scene.trajectory["failure"]["code"], "internal", "{}", scene.outline());
}
