//! What runs achieve: outputs, the runbook's own report, and a run that did nothing.

use expect_test::expect;

use crate::support::{Stage, Story};

stories! {
    a_run_writes_its_outputs_and_passes,
    f12_a_run_without_a_declared_output_completes_and_does_not_pass,
    a_report_that_says_no_is_believed,
    a_report_that_cannot_be_read_is_no_pass,
    f12_a_run_that_left_nothing_is_warned_of,
    an_answer_without_content_is_warned_of,
}

/// A run with declared outputs whose agent runs one command.
fn commanded(outputs: &str, command: &str) -> Story {
    let command = serde_json::to_string(command).unwrap();
    Story {
        runbook: format!("---\nprimary_outputs: {outputs}\n---\n# Write\n"),
        ..Story::scripted(format!(
            "turns:\n  - tools: [{{ Bash: {{ command: {command} }} }}]\n  - text: Done.\n"
        ))
    }
}

async fn a_run_writes_its_outputs_and_passes(stage: &Stage) {
    let story = Story {
        runbook: "---\nprimary_outputs: [a.md, sub/b.csv]\n---\n# Write\n".to_owned(),
        ..Story::scripted(
            r##"
turns:
  - thinking: Two files.
    text: I write.
    tools:
      - Write: { file_path: /app/results/a.md, content: "# A" }
      - Bash: { command: "mkdir /app/results/sub && echo 1,2 >/app/results/sub/b.csv" }
      - Write: { file_path: /app/results/validation_report.json, content: '{"overall_passed": true}' }
    usage: { input: 1200, output: 80, cache_read: 900, cache_write_5m: 100, cache_write_1h: 7 }
  - text: Done.
    usage: { input: 3, output: 5, cache_read: 1900, cache_write_5m: 11, cache_write_1h: 0 }
"##,
        )
    };
    let scene = story.run(stage).await;
    expect![[r##"
        completed
        verdict: true, 3 files, report read, a.md there, sub/b.csv there
        usage: agent_result claude-sonnet-4-6 1203/85/2800/111/7/0
        message: (Two files.) I write.
        Write {"file_path":"/app/results/a.md","content":"# A"} -> File created successfully at: /app/results/a.md
        Bash {"command":"mkdir /app/results/sub && echo 1,2 >/app/results/sub/b.csv"} -> (Bash completed with no output)
        Write {"file_path":"/app/results/validation_report.json","content":"{\"overall_passed\": true}"} -> File created successfully at: /app/results/validation_report.json
        message: Done.
        result success: Done.
    "##]].assert_eq(&scene.outline());
    assert_eq!(scene.text("results/a.md"), "# A");
    assert_eq!(scene.text("results/sub/b.csv"), "1,2\n");
}

async fn f12_a_run_without_a_declared_output_completes_and_does_not_pass(stage: &Stage) {
    let scene =
        commanded("[a.md, b.md]", "echo x >/app/results/b.md; ln -s b.md /app/results/a.md")
            .run(stage)
            .await;
    expect![[r#"
        completed
        verdict: false, 1 files, report absent, a.md missing, b.md there
        usage: agent_result claude-sonnet-4-6 200/19/0/0/0/0
        message: 
        Bash {"command":"echo x >/app/results/b.md; ln -s b.md /app/results/a.md"} -> (Bash completed with no output)
        message: Done.
        result success: Done.
        ! Not collected from results: a.md: it is a symbolic link.
        ! Declared outputs are missing: a.md.
    "#]].assert_eq(&scene.outline());
}

async fn a_report_that_says_no_is_believed(stage: &Stage) {
    let report = r#"echo '{"overall_passed": false}' >/app/results/validation_report.json"#;
    let scene = commanded("[]", report).run(stage).await;
    expect![[r#"
        completed
        verdict: false, 1 files, report read
        usage: agent_result claude-sonnet-4-6 200/23/0/0/0/0
        message: 
        Bash {"command":"echo '{\"overall_passed\": false}' >/app/results/validation_report.json"} -> (Bash completed with no output)
        message: Done.
        result success: Done.
    "#]].assert_eq(&scene.outline());
}

async fn a_report_that_cannot_be_read_is_no_pass(stage: &Stage) {
    let report = r#"echo '{"overall_passed": tru' >/app/results/validation_report.json"#;
    let scene = commanded("[]", report).run(stage).await;
    expect![[r#"
        completed
        verdict: false, 1 files, report unreadable
        usage: agent_result claude-sonnet-4-6 200/22/0/0/0/0
        message: 
        Bash {"command":"echo '{\"overall_passed\": tru' >/app/results/validation_report.json"} -> (Bash completed with no output)
        message: Done.
        result success: Done.
    "#]].assert_eq(&scene.outline());
}

async fn f12_a_run_that_left_nothing_is_warned_of(stage: &Stage) {
    let scene = Story::scripted("turns: [{text: I know the answer.}]").run(stage).await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 100/4/0/0/0/0
        message: I know the answer.
        result success: I know the answer.
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
}

async fn an_answer_without_content_is_warned_of(stage: &Stage) {
    let scene = Story::scripted("turns: [{text: \"\"}]").run(stage).await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 100/1/0/0/0/0
        result success: 
        ! The agent's final answer is empty.
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
}
