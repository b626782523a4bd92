//! The setup script: what the agent finds of it, and what becomes of a run whose setup fails.

use std::time::Duration;

use expect_test::expect;

use crate::support::{Scene, Stage, Story, processes_with, until};

stories! {
    the_agent_finds_what_the_setup_made,
    a_setup_has_the_runs_environment_and_nothing_of_the_provider,
    a_setup_that_fails_ends_the_run_before_its_agent,
    a_setup_that_takes_too_long_is_ended,
    a_setup_that_is_killed_is_a_failure,
    a_setup_that_uses_up_the_memory_is_named,
    a_run_cancelled_in_its_setup_has_no_agent,
    what_a_setup_leaves_running_ends_with_the_run,
    a_setup_cannot_write_into_the_agents_output_and_its_own_note,
}

/// A runbook with this setup script, whose model runs one command.
fn prepared(setup: &str, command: &str) -> Story {
    let setup = serde_json::to_string(setup).unwrap();
    let command = serde_json::to_string(command).unwrap();
    Story {
        runbook: format!("---\nsetup: {setup}\n---\n# Use it\n"),
        ..Story::scripted(format!(
            "turns: [{{ tools: [{{ Bash: {{ command: {command} }} }}] }}, {{ text: Done. }}]"
        ))
    }
}

/// The run failed before anything was asked of the model.
fn nothing_was_asked(scene: &Scene) {
    assert!(scene.ledger.is_empty() && scene.log.is_empty());
}

async fn the_agent_finds_what_the_setup_made(stage: &Stage) {
    let setup = "echo made >a.txt\npwd\nid -u\nif read -r line; then exit 9; fi\necho said >&2";
    let scene = prepared(setup, "cat /app/a.txt | tee /app/results/a.txt").run(stage).await;
    expect![[r#"
        completed
        verdict: null, 1 files, report absent
        usage: agent_result claude-sonnet-4-6 200/15/0/0/0/0
        message: 
        Bash {"command":"cat /app/a.txt | tee /app/results/a.txt"} -> made
        message: Done.
        result success: Done.
    "#]]
    .assert_eq(&scene.outline());
    assert_eq!(scene.text("logs/setup.txt"), "/app\n59999\nsaid\n");
    let files = scene.trajectory["steps"]["run"]["outputs"]["files"].as_array().unwrap();
    assert!(files.iter().any(|file| file.as_str().unwrap().ends_with("/logs/setup.txt")));
}

async fn a_setup_has_the_runs_environment_and_nothing_of_the_provider(stage: &Stage) {
    let story = Story {
        runbook: "---\nsecrets: { TOKEN: { env: ACME_TOKEN, required: true } }\nsetup: |\n  env\n  cat /proc/$PPID/environ | tr '\\0' '\\n'\n---\n# X\n"
            .to_owned(),
        keys: vec![("ACME_TOKEN", "made-up-token-0123456789")],
        ..prepared("", "true")
    };
    let scene = story.run(stage).await;
    assert_eq!(scene.ending(), "completed");
    let log = scene.text("logs/setup.txt");
    for line in ["ACME_TOKEN=[redacted]", "RESULTS_DIR=/app/results", "HOME=/home/agent"] {
        assert!(log.lines().any(|found| found == line), "{line}: {log}");
    }
    for word in ["ANTHROPIC", "CLAUDE", "made-up-token"] {
        assert!(!log.contains(word), "{word}: {log}");
    }
}

async fn a_setup_that_fails_ends_the_run_before_its_agent(stage: &Stage) {
    let story = prepared("echo 'no such package: x'\nfalse\necho never", "true");
    let scene = story.run(stage).await;
    expect![[r#"
        failed: setup_failed: the setup script failed with exit code 1; its last lines: no such package: x
        verdict: null, 0 files, report absent
        usage: none 
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
    nothing_was_asked(&scene);
    assert_eq!(scene.text("logs/setup.txt"), "no such package: x\n");
}

async fn a_setup_that_takes_too_long_is_ended(stage: &Stage) {
    let mut story = prepared("echo waiting\nsleep 1000", "true");
    story.limits = |limits| limits.setup = Duration::from_secs(2);
    let scene = story.run(stage).await;
    expect![[r#"
        failed: setup_failed: the setup script did not end within 2 s; its last lines: waiting
        verdict: null, 0 files, report absent
        usage: none 
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
    nothing_was_asked(&scene);
    assert!(scene.report.took < Duration::from_secs(20), "{:?}", scene.report.took);
}

async fn a_setup_that_is_killed_is_a_failure(stage: &Stage) {
    for (setup, words) in [
        ("kill -9 $$", "was ended by signal 9"),
        ("kill -9 $PPID; sleep 1000", "was ended by signal 9"),
        ("exit 77", "failed with exit code 77"),
        ("if", "failed with exit code 2"),
    ] {
        let scene = prepared(setup, "true").run(stage).await;
        assert_eq!(scene.ending(), "setup_failed", "{setup}");
        assert!(scene.outline().contains(words), "{setup}: {}", scene.outline());
        nothing_was_asked(&scene);
    }
}

async fn a_setup_that_uses_up_the_memory_is_named(stage: &Stage) {
    let mut story = prepared("tail /dev/zero", "true");
    story.limits = |limits| limits.memory_bytes = 48 << 20;
    let scene = story.run(stage).await;
    assert!(scene.outline().contains("the setup script ran out of memory (50331648 bytes)"));
}

async fn a_run_cancelled_in_its_setup_has_no_agent(stage: &Stage) {
    let word = format!("setup-cancelled-{}", stage.owner);
    let scene = prepared(&format!("bash -c 'sleep 1000; : {word}'"), "true")
        .run_while(stage, async |live| {
            until(|| !processes_with(&word).is_empty()).await;
            live.stop.cancel.cancel();
        })
        .await;
    assert_eq!(scene.ending(), "cancelled");
    assert_eq!(processes_with(&word), Vec::<String>::new());
    nothing_was_asked(&scene);
}

async fn what_a_setup_leaves_running_ends_with_the_run(stage: &Stage) {
    let word = format!("setup-left-{}", stage.owner);
    let setup = format!("setsid bash -c 'while :; do sleep 1; done; : {word}' &");
    // The agent can use it: a server is a thing to set up.
    let story = prepared(&setup, &format!("pgrep -f {word} >/app/results/pids"));
    let scene = story.run(stage).await;
    assert_eq!(scene.ending(), "completed");
    assert!(!scene.text("results/pids").is_empty());
    assert_eq!(processes_with(&word), Vec::<String>::new());
}

async fn a_setup_cannot_write_into_the_agents_output_and_its_own_note(stage: &Stage) {
    let setup = "
for n in 0 1 2 3 4 5 6 7 8 9; do
    for path in /proc/$$/fd/$n /proc/$PPID/fd/$n /dev/fd/$n; do
        case $(readlink $path) in *stdout|*stderr|*launched)
            (echo 'setup ended 0' >>$path) 2>/dev/null && echo \"wrote to $path\" ;;
        esac
    done
done
(echo 'setup ended 0' >&4) 2>/dev/null && echo 'wrote to 4'
exit 5";
    let scene = prepared(setup, "true").run(stage).await;
    assert!(scene.outline().contains("failed with exit code 5"), "{}", scene.outline());
    assert_eq!(scene.text("logs/setup.txt"), "");
}
