//! Agents that the real CLI cannot be made into: they break off, flood, lie and linger.

use std::time::Duration;

use expect_test::expect;

use crate::support::{Scene, Stage, Story};

stories! {
    f14_another_version_of_the_cli_is_refused_at_once,
    f14_a_cli_that_asks_for_a_login_failed,
    f14_a_missing_key_source_alone_proves_nothing,
    a_stream_without_a_result_is_no_success,
    the_last_of_two_results_counts,
    a_further_turn_that_broke_off_is_no_success,
    an_agent_that_says_nothing_did_nothing,
    an_exit_code_is_shown_with_the_standard_error,
    an_agent_that_kills_itself_crashed,
    bytes_that_are_not_utf_8_are_kept_and_counted,
    a_last_line_without_a_newline_counts,
    an_agent_that_floods_its_output_is_stopped,
    a_flood_does_not_keep_the_time_limit_waiting,
    an_agent_that_lingers_after_its_result_is_ended,
    an_agent_cannot_open_and_shorten_what_it_said,
    an_agent_that_shortens_its_own_output_is_found_out,
    a_success_without_a_turn_did_nothing,
    an_agent_that_uses_up_its_memory_is_named,
    a_program_that_cannot_be_executed_is_a_crash,
}

/// The first line of every stream.
const INIT: &str = r#"echo '{"type":"system","subtype":"init","cwd":"/app","session_id":"5e551011-0000-4000-8000-000000000000","tools":[],"mcp_servers":[],"model":"claude-sonnet-4-6","claude_code_version":"2.1.126"}'"#;

/// A reply of the model.
const REPLY: &str = r#"echo '{"type":"assistant","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-6","content":[{"type":"text","text":"I work."}],"usage":{"input_tokens":100,"output_tokens":1}},"session_id":"5e551011-0000-4000-8000-000000000000"}'"#;

/// A result of one turn: 100 tokens in, 17 out.
const RESULT: &str = r#"echo '{"type":"result","subtype":"success","is_error":false,"num_turns":1,"result":"All done.","stop_reason":"end_turn","session_id":"5e551011-0000-4000-8000-000000000000","total_cost_usd":0.1,"usage":{},"modelUsage":{"claude-sonnet-4-6":{"inputTokens":100,"outputTokens":17,"cacheReadInputTokens":0,"cacheCreationInputTokens":0,"webSearchRequests":0,"costUSD":0.1}},"terminal_reason":"completed"}'"#;

async fn fake(stage: &Stage, lines: &[&str]) -> Scene {
    Story::fake(&lines.join("\n")).run(stage).await
}

async fn f14_another_version_of_the_cli_is_refused_at_once(stage: &Stage) {
    let init = INIT.replace("2.1.126", "2.1.127");
    let scene = fake(stage, &[&init, "sleep 1000"]).await;
    expect![[r#"
        failed: wrong_agent_version: the agent CLI reports version 2.1.127, but 2.1.126 is pinned
        verdict: null, 0 files, report absent
        usage: none 
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
    assert!(scene.report.took < Duration::from_secs(20), "{:?}", scene.report.took);
}

async fn a_stream_without_a_result_is_no_success(stage: &Stage) {
    let scene = fake(stage, &[INIT, REPLY]).await;
    expect![[r#"
        failed: no_result: the agent ended without a result: exit code 0 after 2 lines of output
        verdict: null, 0 files, report absent
        usage: live claude-sonnet-4-6 100/1/0/0/0/0
        message: I work.
        ! The output tokens of 1 of the model's replies are a lower bound: the run ended before the agent wrote their final counts.
        ! The run left no files in /app/results.
    "#]].assert_eq(&scene.outline());
}

async fn the_last_of_two_results_counts(stage: &Stage) {
    let failed = RESULT
        .replace(r#""is_error":false"#, r#""is_error":true,"api_error_status":500"#)
        .replace("All done.", "API Error: 500");
    let scene = fake(stage, &[INIT, REPLY, RESULT, INIT, &failed]).await;
    expect![[r#"
        failed: provider_error: the provider answered with an error: API Error: 500
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 100/17/0/0/0/0
        message: I work.
        result success: All done.
        result success: API Error: 500
        ! The agent began a further turn after its first (a background task or a hook woke it).
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
}

async fn a_further_turn_that_broke_off_is_no_success(stage: &Stage) {
    let scene = fake(stage, &[INIT, REPLY, RESULT, INIT, REPLY]).await;
    expect![[r#"
        failed: no_result: the agent ended without a result: exit code 0 in the middle of a further turn, after an earlier result
        verdict: null, 0 files, report absent
        usage: live claude-sonnet-4-6 100/1/0/0/0/0
        message: I work.\n\nI work.
        result success: All done.
        ! The agent began a further turn after its first (a background task or a hook woke it).
        ! The output tokens of 1 of the model's replies are a lower bound: the run ended before the agent wrote their final counts.
        ! The run left no files in /app/results.
    "#]].assert_eq(&scene.outline());
}

async fn an_agent_that_says_nothing_did_nothing(stage: &Stage) {
    let scene = fake(stage, &["exit 0"]).await;
    expect![[r#"
        failed: no_result: the agent ended without a result: exit code 0 without a word on its standard output
        verdict: null, 0 files, report absent
        usage: none 
        ! The run left no files in /app/results.
    "#]].assert_eq(&scene.outline());
}

async fn an_exit_code_is_shown_with_the_standard_error(stage: &Stage) {
    let scene = fake(stage, &[INIT, "echo 'out of luck' >&2", "exit 3"]).await;
    expect![[r#"
        failed: agent_crashed: the agent crashed: exit code 3 (standard error: out of luck) after 1 line of output
        verdict: null, 0 files, report absent
        usage: none 
        ! The run left no files in /app/results.
    "#]].assert_eq(&scene.outline());
    assert_eq!(scene.text("logs/agent/stderr.txt"), "out of luck\n");
}

async fn an_agent_that_kills_itself_crashed(stage: &Stage) {
    let scene = fake(stage, &[INIT, REPLY, RESULT, "kill -9 $$"]).await;
    expect![[r#"
        failed: agent_crashed: the agent crashed: signal 9, after it had reported success (not sent by runbookd: the agent did it itself, somebody killed it, or its engine was stopped)
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 100/17/0/0/0/0
        message: I work.
        result success: All done.
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
}

async fn bytes_that_are_not_utf_8_are_kept_and_counted(stage: &Stage) {
    let scene = fake(stage, &[INIT, REPLY, r"printf 'a\xff\xfe\n\x00\n'", RESULT]).await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 100/17/0/0/0/0
        message: I work.
        result success: All done.
        ! 2 lines of the agent's output could not be read; the log has them. The first is line 3: the line is not a JSON object.
        ! The run left no files in /app/results.
    "#]].assert_eq(&scene.outline());
    assert!(scene.log.windows(6).any(|bytes| bytes == b"a\xff\xfe\n\0\n"));
}

async fn a_last_line_without_a_newline_counts(stage: &Stage) {
    let scene = fake(stage, &[INIT, REPLY, &RESULT.replacen("echo", "echo -n", 1)]).await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 100/17/0/0/0/0
        message: I work.
        result success: All done.
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
    assert_eq!(scene.log.last(), Some(&b'}'));
}

async fn an_agent_that_floods_its_output_is_stopped(stage: &Stage) {
    let mut story = Story::fake(&[INIT, "yes '{\"type\":\"flood\"}'"].join("\n"));
    story.limits = |limits| limits.output_bytes = 4 << 20;
    let scene = story.run(stage).await;
    assert_eq!(scene.ending(), "output_limit");
    // The file's own limit is twice that of the run.
    assert!(scene.log.len() <= 8 << 20, "{}", scene.log.len());
}

async fn a_flood_does_not_keep_the_time_limit_waiting(stage: &Stage) {
    // Reading it takes longer than the agent lives.
    let flood = "yes '{\"type\":\"flood\"}' | head -c 32M";
    // It ends the flood and itself, however slow its start was, and not when it is asked to.
    let mut story = Story::fake(&["trap '' TERM", INIT, flood, "sleep 3"].join("\n"));
    story.overrides.wall = Some(Duration::from_secs(2));
    let scene = story.run(stage).await;
    assert_eq!(scene.ending(), "timeout");
    assert!(scene.log.len() >= 32 << 20, "what it said is kept: {}", scene.log.len());
}

async fn an_agent_that_lingers_after_its_result_is_ended(stage: &Stage) {
    let mut story = Story::fake(&[INIT, REPLY, RESULT, "sleep 1000"].join("\n"));
    story.limits = |limits| limits.linger = Duration::from_secs(1);
    let scene = story.run(stage).await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 100/17/0/0/0/0
        message: I work.
        result success: All done.
        ! The agent's process did not end after its result and was stopped: a background task probably held it.
        ! The run left no files in /app/results.
    "#]].assert_eq(&scene.outline());
}

async fn an_agent_cannot_open_and_shorten_what_it_said(stage: &Stage) {
    let shorten = "
for path in /proc/self/fd/1 /dev/stdout /proc/$$/fd/1 /proc/$PPID/fd/1 /proc/1/fd/1; do
    (: >$path) 2>/dev/null && echo \"opened $path\" >&2
    truncate -s 0 $path 2>/dev/null && echo \"shortened $path\" >&2
done";
    let scene = fake(stage, &[INIT, REPLY, shorten, RESULT]).await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 100/17/0/0/0/0
        message: I work.
        result success: All done.
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
    assert_eq!(scene.text("logs/agent/stderr.txt"), "");
}

async fn an_agent_that_shortens_its_own_output_is_found_out(stage: &Stage) {
    // Only the CLI itself holds the descriptor; what it starts gets a pipe.
    let shorten = "sleep 1; python3 -c 'import os; os.ftruncate(1, 0)'";
    let scene = fake(stage, &[INIT, REPLY, shorten, RESULT]).await;
    let log = String::from_utf8(scene.log.clone()).unwrap();
    assert!(log.starts_with("{\"type\":\"system\"") && log.contains("I work."), "{log}");
    let changed = |warning: &&str| warning.contains("was changed after it was read");
    assert!(scene.warnings().iter().any(changed), "{:?}", scene.warnings());
}

async fn a_success_without_a_turn_did_nothing(stage: &Stage) {
    let idle = RESULT.replace(r#""num_turns":1"#, r#""num_turns":0"#);
    let scene = fake(stage, &[INIT, &idle]).await;
    assert_eq!(scene.ending(), "did_nothing");
}

async fn an_agent_that_uses_up_its_memory_is_named(stage: &Stage) {
    let mut story = Story::fake(&[INIT, "exec tail /dev/zero"].join("\n"));
    story.limits = |limits| limits.memory_bytes = 48 << 20;
    let scene = story.run(stage).await;
    assert_eq!(scene.ending(), "out_of_memory");
}

async fn a_program_that_cannot_be_executed_is_a_crash(stage: &Stage) {
    let mut story = Story::fake("");
    story.fake_agent = Some("#!/no/such/interpreter\n".to_owned());
    let scene = story.run(stage).await;
    assert_eq!(scene.ending(), "agent_crashed");
    assert!(scene.text("logs/agent/stderr.txt").contains("/opt/runbookd/bin/claude"));
}

async fn f14_a_cli_that_asks_for_a_login_failed(stage: &Stage) {
    let login = RESULT
        .replace(r#""is_error":false"#, r#""is_error":true"#)
        .replace("All done.", "Not logged in · Please run /login");
    let scene = fake(stage, &[INIT, &login, "exit 1"]).await;
    assert_eq!(scene.ending(), "no_credentials");
}

async fn f14_a_missing_key_source_alone_proves_nothing(stage: &Stage) {
    // What the CLI says of a bearer token, of Bedrock and of Vertex, and of no login at all.
    let init = INIT.replace(r#""tools":[]"#, r#""tools":[],"apiKeySource":"none""#);
    assert_ne!(init, INIT);
    let scene = fake(stage, &[&init, REPLY, RESULT]).await;
    assert_eq!(scene.ending(), "completed");
}
