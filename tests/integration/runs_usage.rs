//! Tokens where an agent asks a model in other ways than turn by turn. Every story compares the
//! record with what the provider sent; these are the ways in which it could go wrong.

use expect_test::expect;

use crate::support::{Stage, Story};

stories! {
    the_summary_of_a_long_conversation_is_counted,
    a_reply_that_was_asked_for_again_without_streaming_is_counted,
    a_reply_that_was_too_long_and_its_continuation_are_counted,
    many_calls_in_one_reply_count_it_once,
    a_side_call_is_counted,
}

async fn the_summary_of_a_long_conversation_is_counted(stage: &Stage) {
    let scene = Story::scripted(
        r#"
turns:
  - text: Almost full.
    tools: [{ Bash: { command: echo one } }]
    usage: { input: 185000, output: 40, cache_read: 1000, cache_write_5m: 200 }
  - text: Full no more.
    usage: { input: 500, output: 4 }
compaction:
  text: It echoed one.
  usage: { input: 7000, output: 300 }
"#,
    )
    .run(stage)
    .await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 192500/344/1000/200/0/0
        message: Almost full.
        Bash {"command":"echo one"} -> one
        compaction
        user: This session is being continued from a previous conversation that ran out of context. The summary below covers the earlier portion of the conversation.\n\nIt ec…
        message: Full no more.
        result success: Full no more.
        ! The conversation was too long and was replaced by a summary of itself.
        ! The run left no files in /app/results.
    "#]].assert_eq(&scene.outline());
}

async fn a_reply_that_was_asked_for_again_without_streaming_is_counted(stage: &Stage) {
    let scene = Story::scripted(
        r#"
turns:
  - fail: { status: 529, inside: after_headers }
  - text: At the second attempt.
    usage: { input: 70, output: 9, cache_write_1h: 3 }
"#,
    )
    .run(stage)
    .await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 70/9/0/0/3/0
        message: At the second attempt.
        result success: At the second attempt.
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
    let streams: Vec<bool> = scene.ledger.iter().map(|entry| entry["stream"] == true).collect();
    assert_eq!(streams, [true, false]);
}

async fn a_reply_that_was_too_long_and_its_continuation_are_counted(stage: &Stage) {
    let scene = Story::scripted(
        r#"
turns:
  - text: The first half
    stop: max_tokens
    usage: { input: 10, output: 32000 }
  - text: and the second.
    usage: { input: 32010, output: 5 }
"#,
    )
    .run(stage)
    .await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 32020/32005/0/0/0/0
        message: The first half
        message: and the second.
        result success: and the second.
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
}

async fn many_calls_in_one_reply_count_it_once(stage: &Stage) {
    let scene = Story::scripted(
        r#"
turns:
  - thinking: Three at once.
    text: I look at three things.
    tools:
      - Bash: { command: echo one }
      - Bash: { command: echo two }
      - Bash: { command: echo three }
    usage: { input: 1000, output: 333, cache_read: 50, cache_write_5m: 20, cache_write_1h: 10 }
  - text: Seen.
    usage: { input: 20, output: 2, cache_read: 1080 }
"#,
    )
    .run(stage)
    .await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 1020/335/1130/20/10/0
        message: (Three at once.) I look at three things.
        Bash {"command":"echo one"} -> one
        Bash {"command":"echo two"} -> two
        Bash {"command":"echo three"} -> three
        message: Seen.
        result success: Seen.
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
}

async fn a_side_call_is_counted(stage: &Stage) {
    let scene = Story::scripted(
        r#"
turns:
  - tools: [{ WebSearch: { query: runbooks } }]
    usage: { input: 11, output: 2 }
  - text: Nothing new.
    usage: { input: 12, output: 3 }
side:
  text: No results.
  usage: { input: 1300, output: 77 }
"#,
    )
    .run(stage)
    .await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 1323/82/0/0/0/0
        message: 
        WebSearch {"query":"runbooks"} -> Web search results for query: "runbooks"\n\nNo results.\n\n\nREMINDER: You MUST include the sources above in your response to the user using markdown hyperlinks…
        message: Nothing new.
        result success: Nothing new.
        ! The run left no files in /app/results.
    "#]].assert_eq(&scene.outline());
}
