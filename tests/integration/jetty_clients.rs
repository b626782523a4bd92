//! Jetty's published clients, unmodified, against a live server with the real agent CLI.

use runbookd::sandbox::EngineKind;

use crate::support::Daemon;

/// The agent grades what it was given, as Jetty's own grader does.
const SCRIPT: &str = r#"
turns:
  - text: I grade the case.
    tools:
      - Bash: { command: "cd /app; cat assets/case.json >results/seen.json; echo '{\"score\": 5}' >results/grade.json; echo \"$MADE_UP_SECRET\" | wc -c >results/secret.txt" }
  - text: All done.
"#;

/// A client's story is told to its end, and nothing is left.
async fn tell(engine: EngineKind, story: &str) {
    let Some(daemon) = Daemon::start(engine, SCRIPT).await else { return };
    let ran = daemon.tell("public-clients", &[story]).await;
    if let Some(ran) = ran {
        assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_of_the_sdk_works() {
    let Some(daemon) = Daemon::start(EngineKind::Bubblewrap, SCRIPT).await else { return };
    if let Some(ran) = daemon.tell("public-clients", &["sdk.mjs"]).await {
        assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
        // The agents asked their model through gateways: once for each turn, at least.
        let figures = daemon.get("/metrics").await;
        for name in [
            "gateway_request_seconds_count{outcome=\"complete\"}",
            "gateway_first_byte_seconds_count",
        ] {
            let line =
                figures.lines().find_map(|line| line.strip_prefix("runbookd_")?.strip_prefix(name));
            let n: u64 = line.and_then(|n| n.trim().parse().ok()).unwrap_or_default();
            assert!(n >= 2, "{name}: {figures}");
        }
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_grades_with_a_run_on_docker() {
    let Some(daemon) = Daemon::start(EngineKind::Docker, SCRIPT).await else { return };
    if let Some(ran) = daemon.tell("public-clients", &["grade.mjs"]).await {
        assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tool_of_the_mcp_server_works() {
    tell(EngineKind::Bubblewrap, "mcp.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_the_shell_client_work() {
    tell(EngineKind::Bubblewrap, "shell.sh").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_keeps_what_its_description_says() {
    let Some(daemon) = Daemon::start(EngineKind::Bubblewrap, SCRIPT).await else { return };
    if let Some(ran) = daemon.tell("api-fuzzer", &[]).await {
        assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
    }
    daemon.stop().await;
}
