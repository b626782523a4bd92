//! The server as a process: how it starts, whom it lets in, how it stops.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Home, Server, until};

/// Longer than a server's start takes on a busy machine.
const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn tokens_are_made_used_and_revoked_while_the_server_is_up_and_when_it_is_down() {
    let home = Home::new();
    let before = home.run(&["token", "create", "laptop", "--admin"]).await;
    assert_eq!((before.code, before.stdout.trim().len()), (Some(0), 36), "{before:?}");
    let server = Server::start(&home, &[]).await;
    let during = home.run(&["token", "create", "ci", "--collection", "team"]).await;
    assert_eq!((during.code, during.stdout.trim().len()), (Some(0), 36), "{during:?}");

    let who = server.get("/api/v1/auth/whoami", during.stdout.trim()).await;
    assert_eq!(who.0, "HTTP/1.1 200 OK");
    assert!(who.1.contains(r#""collection_name":"team""#), "{who:?}");
    let who = server.get("//api/v1/auth/whoami/", before.stdout.trim()).await;
    assert!(who.1.contains(r#""scope":"admin""#), "{who:?}");
    assert_eq!(server.get("/api/v1/health", "").await.0, "HTTP/1.1 200 OK");

    let again = home.run(&["token", "create", "ci", "--collection", "team"]).await;
    assert_eq!(again.code, Some(4));
    assert!(again.stderr.contains("already exists"), "{again:?}");
    let list = home.run(&["token", "list"]).await.stdout;
    let id = list.lines().find(|line| line.ends_with(" ci")).unwrap().split(' ').next().unwrap();
    assert!(!list.contains(during.stdout.trim()), "a list shows no token");
    assert_eq!(home.run(&["token", "revoke", id]).await.code, Some(0));
    let refused = server.get("/api/v1/auth/whoami", during.stdout.trim()).await;
    assert_eq!(refused.0, "HTTP/1.1 401 Unauthorized");

    server.signal(Signal::TERM);
    let (code, log) = server.ended().await;
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(home.run(&["token", "revoke", id]).await.code, Some(4), "it is gone");
}

#[tokio::test]
async fn a_build_of_the_relay_that_no_sandbox_has_goes_when_the_server_starts() {
    let home = Home::new();
    let old = home.state().join("server/relay/old");
    std::fs::create_dir_all(&old).unwrap();
    std::fs::write(old.join("runbookd"), "old").unwrap();
    let server = Server::start(&home, &[("RUNBOOKD_ENGINE", "bubblewrap")]).await;
    tokio::time::timeout(SOON, until(|| !old.exists())).await.expect("it goes");
    server.signal(Signal::TERM);
    let (code, log) = server.ended().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("removed old builds of the relay"), "{log}");
}

#[tokio::test]
async fn a_server_has_its_folder_alone_and_logs_as_it_is_told() {
    let home = Home::new();
    let server = Server::start(&home, &[("RUNBOOKD_LOG", "debug")]).await;
    let second = home.run(&["serve", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(second.code, Some(69));
    let pid = server.pid();
    assert!(second.stderr.contains(&format!("is in use by process {pid}")), "{second:?}");
    server.signal(Signal::INT);
    assert_eq!(server.ended().await.0, Some(0));

    // Whoever was killed keeps nobody out, not even with the socket that it left.
    let server = Server::start(&home, &[]).await;
    server.signal(Signal::KILL);
    assert_eq!(server.ended().await.0, None);
    let server = Server::start(&home, &[("RUNBOOKD_LOG_FORMAT", "json")]).await;
    server.signal(Signal::TERM);
    let (code, log) = server.ended().await;
    assert_eq!(code, Some(0));
    for line in log.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    }
}

#[tokio::test]
async fn other_machines_are_let_in_only_on_purpose_and_when_somebody_has_a_token() {
    let home = Home::new();
    let serve = ["serve", "--listen", "0.0.0.0:0"];
    let refused = home.run(&serve).await;
    assert_eq!(refused.code, Some(78));
    assert!(refused.stderr.contains("--allow-remote"), "{refused:?}");
    let refused = home.run(&[&serve[..], &["--allow-remote"]].concat()).await;
    assert_eq!(refused.code, Some(78));
    assert!(refused.stderr.contains("runbookd token create"), "{refused:?}");
}
