//! A provider that fails: each failure has its name, and no token is lost or made up.

use std::time::Duration;

use expect_test::expect;

use crate::support::{Scene, Stage, Story, Tokens};

stories! {
    f12_a_refused_key_ends_the_run_at_once,
    a_forbidden_request_is_a_refused_credential,
    an_empty_account_is_named,
    f12_an_unknown_model_is_named,
    a_rate_limit_that_passes_is_waited_for,
    a_rate_limit_that_stays_is_named,
    an_overload_that_stays_is_named,
    a_broken_provider_is_named,
    a_request_that_is_too_large_is_named,
    a_refusal_of_the_model_is_named,
    a_login_page_in_place_of_an_answer_is_an_error,
    a_stream_that_never_begins_is_asked_for_again,
    a_stream_cut_in_a_block_is_asked_for_again,
    a_stream_cut_after_a_text_ends_the_run,
    a_stream_cut_after_a_tool_call_goes_on,
}

async fn faulty(stage: &Stage, faults: &str) -> Scene {
    Story::scripted(format!("turns:\n{faults}  - text: Done.\n")).run(stage).await
}

async fn f12_a_refused_key_ends_the_run_at_once(stage: &Stage) {
    let scene = faulty(
        stage,
        "  - fail: { status: 401, type: authentication_error, message: invalid x-api-key }\n    times: forever\n",
    )
    .await;
    expect![[r#"
        failed: auth_refused: the provider refused the credential: HTTP 401, authentication_failed
        verdict: null, 0 files, report absent
        usage: none 
        retry 1 of 2: 401 authentication_failed
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
    // The CLI alone would try for minutes.
    assert!(scene.report.took < Duration::from_secs(30), "{:?}", scene.report.took);
    assert!(scene.ledger.len() <= 2, "{:?}", scene.ledger);
}

async fn a_forbidden_request_is_a_refused_credential(stage: &Stage) {
    let scene = faulty(stage, "  - fail: { status: 403 }\n    times: forever\n").await;
    expect![[r#"
        failed: auth_refused: the provider refused the credential: Failed to authenticate. API Error: 403 {"type":"error","error":{"type":"permission_error","message":"scripted failure (permission_error)"},"request_id":"req_scripted_1"}
        verdict: null, 0 files, report absent
        usage: agent_result 
        message [made up]: Failed to authenticate. API Error: 403 {"type":"error","error":{"type":"permission_error","message":"scripted failure (permission_error)"},"request_id":"req_scr…
        result success: Failed to authenticate. API Error: 403 {"type":"error","error":{"type":"permission_error","message":"scripted failure (permission_error)"},"request_id":"req_scr…
        ! The run left no files in /app/results.
    "#]].assert_eq(&scene.outline());
}

async fn an_empty_account_is_named(stage: &Stage) {
    let scene = faulty(
        stage,
        "  - fail: { status: 400, message: Your credit balance is too low to access the Anthropic API. }\n    times: forever\n",
    )
    .await;
    expect![[r#"
        failed: out_of_credit: the provider's account has no credit: Credit balance is too low
        verdict: null, 0 files, report absent
        usage: agent_result 
        message [made up]: Credit balance is too low
        result success: Credit balance is too low
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
}

async fn f12_an_unknown_model_is_named(stage: &Stage) {
    let scene = faulty(stage, "  - fail: { status: 404 }\n    times: forever\n").await;
    expect![[r#"
        failed: model_not_found: the model `claude-sonnet-4-6` was not found: There's an issue with the selected model (claude-sonnet-4-6). It may not exist or you may not have access to it. Run --model to pick a different model.
        verdict: null, 0 files, report absent
        usage: agent_result 
        message [made up]: There's an issue with the selected model (claude-sonnet-4-6). It may not exist or you may not have access to it. Run --model to pick a different model.
        result success: There's an issue with the selected model (claude-sonnet-4-6). It may not exist or you may not have access to it. Run --model to pick a different model.
        ! The run left no files in /app/results.
    "#]].assert_eq(&scene.outline());
}

async fn a_rate_limit_that_passes_is_waited_for(stage: &Stage) {
    let scene =
        faulty(stage, "  - fail: { status: 429, message: slow down, retry_after: 1 }\n").await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 100/1/0/0/0/0
        retry 1 of 2: 429 rate_limit
        message: Done.
        result success: Done.
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
}

async fn a_rate_limit_that_stays_is_named(stage: &Stage) {
    let scene =
        faulty(stage, "  - fail: { status: 429, message: slow down }\n    times: forever\n").await;
    expect![[r#"
        failed: rate_limited: the provider limited the rate: API Error: Request rejected (429) · slow down
        verdict: null, 0 files, report absent
        usage: agent_result 
        retry 1 of 2: 429 rate_limit
        retry 2 of 2: 429 rate_limit
        message [made up]: API Error: Request rejected (429) · slow down
        result success: API Error: Request rejected (429) · slow down
        ! The run left no files in /app/results.
    "#]].assert_eq(&scene.outline());
}

async fn an_overload_that_stays_is_named(stage: &Stage) {
    let scene = faulty(stage, "  - fail: { status: 529 }\n    times: forever\n").await;
    expect![[r#"
        failed: overloaded: the provider was overloaded: API Error: 529 scripted failure (overloaded_error). This is a server-side issue, usually temporary — try again in a moment. If it persists, check status.claude.com.
        verdict: null, 0 files, report absent
        usage: agent_result 
        retry 1 of 2: 529 rate_limit
        retry 2 of 2: 529 rate_limit
        message [made up]: API Error: 529 scripted failure (overloaded_error). This is a server-side issue, usually temporary — try again in a moment. If it persists, check status.claude.…
        result success: API Error: 529 scripted failure (overloaded_error). This is a server-side issue, usually temporary — try again in a moment. If it persists, check status.claude.…
        ! The run left no files in /app/results.
    "#]].assert_eq(&scene.outline());
}

async fn a_broken_provider_is_named(stage: &Stage) {
    let scene = faulty(stage, "  - fail: { status: 500 }\n    times: forever\n").await;
    expect![[r#"
        failed: provider_error: the provider answered with an error: API Error: 500 scripted failure (api_error). This is a server-side issue, usually temporary — try again in a moment. If it persists, check status.claude.com.
        verdict: null, 0 files, report absent
        usage: agent_result 
        retry 1 of 2: 500 server_error
        retry 2 of 2: 500 server_error
        message [made up]: API Error: 500 scripted failure (api_error). This is a server-side issue, usually temporary — try again in a moment. If it persists, check status.claude.com.
        result success: API Error: 500 scripted failure (api_error). This is a server-side issue, usually temporary — try again in a moment. If it persists, check status.claude.com.
        ! The run left no files in /app/results.
    "#]].assert_eq(&scene.outline());
}

async fn a_request_that_is_too_large_is_named(stage: &Stage) {
    let scene = faulty(stage, "  - fail: { status: 413 }\n    times: forever\n").await;
    assert_eq!(scene.ending(), "prompt_too_long");
}

async fn a_refusal_of_the_model_is_named(stage: &Stage) {
    let scene = Story::scripted("turns: [{ text: No., stop: refusal }]").run(stage).await;
    assert_eq!(scene.ending(), "model_refused");
}

async fn a_login_page_in_place_of_an_answer_is_an_error(stage: &Stage) {
    let page = "  - raw: { status: 200, content_type: text/html, body: \"<html>log in</html>\" }\n    times: forever\n";
    let scene = faulty(stage, page).await;
    expect![[r#"
        failed: provider_error: the provider answered with an error: API Error: API returned an empty or malformed response (HTTP 200) — check for a proxy or gateway intercepting the request
        verdict: null, 0 files, report absent
        usage: agent_result 
        message [made up]: API Error: API returned an empty or malformed response (HTTP 200) — check for a proxy or gateway intercepting the request
        result success: API Error: API returned an empty or malformed response (HTTP 200) — check for a proxy or gateway intercepting the request
        ! The run left no files in /app/results.
    "#]].assert_eq(&scene.outline());
}

async fn a_stream_that_never_begins_is_asked_for_again(stage: &Stage) {
    let scene = faulty(stage, "  - drop: before\n").await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 100/1/0/0/0/0
        retry 1 of 2: null unknown
        message: Done.
        result success: Done.
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
}

async fn a_stream_cut_in_a_block_is_asked_for_again(stage: &Stage) {
    let scene = faulty(stage, "  - drop: mid_block\n").await;
    expect![[r#"
        completed
        verdict: null, 0 files, report absent
        usage: agent_result claude-sonnet-4-6 100/1/0/0/0/0
        message: Done.
        result success: Done.
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
}

async fn a_stream_cut_after_a_text_ends_the_run(stage: &Stage) {
    let script = "turns:\n  - drop: after_block\n  - text: Done.\n";
    let scene =
        Story { tokens: Tokens::OfBegunReplies, ..Story::scripted(script) }.run(stage).await;
    expect![[r#"
        failed: provider_unreachable: the provider could not be reached: API Error: The socket connection was closed unexpectedly. For more information, pass `verbose: true` in the second argument to fetch()
        verdict: null, 0 files, report absent
        usage: session_files claude-sonnet-4-6 100/1/0/0/0/0
        message: Done.
        message [made up]: API Error: The socket connection was closed unexpectedly. For more information, pass `verbose: true` in the second argument to fetch()
        result success: API Error: The socket connection was closed unexpectedly. For more information, pass `verbose: true` in the second argument to fetch()
        ! The run left no files in /app/results.
    "#]]
    .assert_eq(&scene.outline());
}

async fn a_stream_cut_after_a_tool_call_goes_on(stage: &Stage) {
    let scene = Story::scripted(
        "turns:\n  - drop: after_tool_block\n  - tools: [{ Bash: { command: echo hi >/app/results/a } }]\n  - text: Done.\n",
    )
    .run(stage)
    .await;
    expect![[r#"
        completed
        verdict: null, 1 files, report absent
        usage: agent_result claude-sonnet-4-6 100/1/0/0/0/0
        message: 
        Bash {"command":"echo hi >/app/results/a"} -> (Bash completed with no output)
        message [made up]: API Error: The socket connection was closed unexpectedly. For more information, pass `verbose: true` in the second argument to fetch()
        message: Done.
        result success: Done.
    "#]].assert_eq(&scene.outline());
}
