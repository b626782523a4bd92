//! OpenAI's published clients, unmodified, carry runbooks out with the real agent CLI.

use runbookd::sandbox::EngineKind;

use crate::support::Daemon;

/// The agent says two things, and between them looks at what it was given and sleeps as long as it
/// was told to.
const SCRIPT: &str = r#"
turns:
  - text: "I look around.\nThen I write."
    tools:
      - Bash: { command: "cd /app; sleep ${NAP:-0}; ls assets >results/seen.txt 2>/dev/null; true" }
  - text: All done.
"#;

/// The lines of a page that a person types.
fn typed(page: &str) -> String {
    let blocks = page.split("```sh\n").skip(1);
    blocks.filter_map(|block| block.split("\n```").next()).collect::<Vec<_>>().join("\n")
}

/// A client's story is told to its end, and nothing is left.
async fn tell(engine: EngineKind, story: &[&str]) {
    let Some(daemon) = Daemon::start(engine, SCRIPT).await else { return };
    if let Some(ran) = daemon.tell("openai-clients", story).await {
        assert_eq!(ran.code, Some(0), "{story:?}\n{}\n{}", ran.stdout, ran.stderr);
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_is_a_run_with_its_prompt_its_task_and_its_record() {
    tell(EngineKind::Bubblewrap, &["runbook.py", "completions"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_task_runs_by_chat_and_stays_as_it_is() {
    tell(EngineKind::Bubblewrap, &["runbook.py", "stored"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_what_the_agent_says_and_is_taken_up_again_anywhere() {
    tell(EngineKind::Bubblewrap, &["runbook.py", "streams"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_by_chat_reach_the_agent_or_are_refused() {
    tell(EngineKind::Bubblewrap, &["runbook.py", "files"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_chat_cannot_do_is_refused_before_it_starts() {
    tell(EngineKind::Bubblewrap, &["runbook.py", "completions", "refusals"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_fails_is_an_error_that_clients_do_not_repeat() {
    tell(EngineKind::Bubblewrap, &["runbook.py", "completions", "failures"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_be_impatient_or_go_away() {
    tell(EngineKind::Bubblewrap, &["runbook.py", "completions", "patience"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_streams_go_on_at_once() {
    tell(EngineKind::Bubblewrap, &["runbook.py", "many"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_for_javascript_does_the_same_on_docker() {
    tell(EngineKind::Docker, &["runbook.mjs"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_documentation_says_to_type_works() {
    let Some(daemon) = Daemon::start(EngineKind::Bubblewrap, SCRIPT).await else { return };
    let ran = daemon.examples(&typed(include_str!("../../docs/chat.md"))).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let said: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(said[0], "All done.", "{ran:?}");
    assert!(said[1].starts_with("team/hello/"), "{ran:?}");
    let rest = [
        r#""content":"""#,
        r#""content":"I look around.\nThen I write.""#,
        r#""content":"\n\nAll done.""#,
        "data: [DONE]",
        "",
        "completed",
        "completed",
    ];
    assert_eq!(said[2..], rest, "{ran:?}");

    let readme = include_str!("../../README.md");
    let chat = readme.split_once("Any client of OpenAI's").unwrap().1;
    let chat = typed(chat.split("\n## ").next().unwrap());
    let ran = daemon.examples(&chat.replace("127.0.0.1:8000", daemon.address())).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let said: Vec<&str> = ran.stdout.lines().collect();
    assert!(said.contains(&"data: [DONE]"), "{ran:?}");
    assert!(said.last().unwrap().contains(r#""id":"claude-code""#), "{ran:?}");
    daemon.stop().await;
}
