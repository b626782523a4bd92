//! Stops that were asked for, a second server, and a disk without room.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;

use super::waiting::{Waiting, end_of, submit};
use crate::support::{Home, Listening, POLL, Site, is_required, until};

/// The whole disk of the story, in megabytes.
const DISK_MB: u64 = 96;

/// What is to be kept free of it, in megabytes.
const FLOOR_MB: u64 = 16;

const HELLO: &str = "turns: [{ text: Hello. }]";

/// The engine of these stories.
const OWN: (&str, &str) = ("RUNBOOKD_ENGINE", "bubblewrap");

/// Whether the full promises cannot be given here. It is said aloud.
fn is_skipped() -> bool {
    if rustix::process::geteuid().is_root() {
        return false;
    }
    assert!(!is_required(), "the full promises are given to root");
    println!("SKIPPED: the full promises are given to root");
    true
}

/// A server on Bubblewrap, where the full promises can be given.
async fn site(env: &[(&str, &str)]) -> Option<Site> {
    if is_skipped() {
        return None;
    }
    let own = [OWN, ("RUNBOOKD_MIN_FREE_BYTES", "0")];
    Some(Site::new(&[&own[..], env].concat()).await)
}

async fn is_draining(server: &Listening) -> bool {
    server.ask("GET", "/readyz", None, None).await.unwrap().1.to_string().contains("stopping")
}

async fn drains(server: &Listening) {
    while !is_draining(server).await {
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_takes_nothing_new_and_lets_runs_end() {
    let Some(site) = site(&[("RUNBOOKD_DRAIN_SECONDS", "60")]).await else { return };
    let (serving, server) = site.start().await;
    let run = Waiting::begin(&site, &server).await;
    serving.signal(Signal::TERM);
    drains(&server).await;
    let path = "/api/v1/run/team/story";
    let body = json!({ "init_params": { "script": HELLO } });
    let (status, answer) = server.ask("POST", path, Some(&body), None).await.unwrap();
    assert_eq!(status, 503, "{answer}");
    assert!(answer.to_string().contains("is stopping"), "{answer}");
    run.go();
    // The server goes as soon as its last run has ended.
    let (code, log) = serving.ended().await;
    assert_eq!(code, Some(0), "{log}");
    let (serving, server) = site.start().await;
    run.ends_whole(&server).await;
    serving.signal(Signal::TERM);
    assert_eq!(serving.ended().await.0, Some(0));
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_wish_to_stop_leaves_runs_to_the_next_server() {
    let Some(site) = site(&[("RUNBOOKD_DRAIN_SECONDS", "600")]).await else { return };
    let (serving, server) = site.start().await;
    let run = Waiting::begin(&site, &server).await;
    serving.signal(Signal::TERM);
    drains(&server).await;
    serving.signal(Signal::TERM);
    let (code, log) = serving.ended().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(run.sandbox().exists(), "the sandbox works on");
    let (serving, server) = site.start().await;
    run.event("runbookd was restarted").await;
    run.go();
    run.ends_whole(&server).await;
    serving.signal(Signal::TERM);
    assert_eq!(serving.ended().await.0, Some(0));
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_database_is_refused_whatever_its_path() {
    let Some(site) = site(&[]).await else { return };
    let (serving, server) = site.start().await;
    let run = Waiting::begin(&site, &server).await;
    let other = site.home.path().join("other");
    std::os::unix::fs::symlink(site.home.state(), &other).unwrap();
    let second = site
        .home
        .command(&["serve", "--listen", "127.0.0.1:0", "--engine", "bubblewrap"])
        .env("RUNBOOKD_STATE", &other)
        .output()
        .await
        .unwrap();
    let words = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(69), "{words}");
    assert!(words.contains("is in use by process"), "{words}");
    // It has touched nothing.
    run.go();
    run.ends_whole(&server).await;
    serving.signal(Signal::TERM);
    assert_eq!(serving.ended().await.0, Some(0));
}

/// A disk that can be filled.
struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    fn new(folder: PathBuf) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        let size = format!("size={DISK_MB}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "none"]).arg(&folder);
        assert!(mount.status().unwrap().success(), "a small disk can be mounted");
        Self { folder }
    }

    fn path(&self) -> &Path {
        &self.folder
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Leaves at most this much room.
    fn fill(&self, leave_bytes: u64) {
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        let free = stat.f_bavail * stat.f_frsize;
        let filler = vec![0_u8; usize::try_from(free.saturating_sub(leave_bytes)).unwrap()];
        match std::fs::write(self.filler(), filler) {
            Ok(()) => {}
            // The server was faster with the rest.
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::StorageFull),
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_takes_nothing_in_and_loses_nothing() {
    if is_skipped() {
        return;
    }
    let home = Home::new();
    let disk = SmallDisk::new(home.state());
    let floor = (FLOOR_MB << 20).to_string();
    let env = [OWN, ("RUNBOOKD_MIN_FREE_BYTES", &floor), ("RUNBOOKD_SLOTS", "1")];
    let site = Site::on(home, &env).await;
    // What lies on the home goes before it.
    let disk = disk;
    let (serving, server) = site.start().await;
    let run = Waiting::begin(&site, &server).await;
    let waits = submit(&server, HELLO).await;

    // Below the floor: nothing new is taken in or begun, and what goes on goes on.
    disk.fill((FLOOR_MB << 20) / 2);
    let body = json!({ "init_params": { "script": HELLO } });
    let ask = || server.ask("POST", "/api/v1/run/team/story", Some(&body), Some("made-up-key"));
    let (status, answer) = ask().await.unwrap();
    assert_eq!(status, 503, "{answer}");
    assert!(answer.to_string().contains("disk is nearly full"), "{answer}");
    run.go();
    run.ends_whole(&server).await;
    let still = server.get(&format!("/api/v1/db/trajectory/{waits}")).await;
    assert_eq!(still["status"], "pending", "{still}");

    // Room again: what waited runs, and the request comes through.
    disk.make_room();
    assert_eq!(end_of(&site, &server, &waits).await["status"], "completed");
    let (status, answer) = ask().await.unwrap();
    assert_eq!(status, 200, "{answer}");
    let asked = format!("team/story/{}", answer["trajectory_id"].as_str().unwrap());
    assert_eq!(end_of(&site, &server, &asked).await["status"], "completed");

    // Not a byte left, and the server is killed: the next one takes the run over when it has room.
    let run = Waiting::begin(&site, &server).await;
    disk.fill(0);
    assert_eq!(ask().await.unwrap().0, 503);
    serving.kill().await;
    let (full, _) = site.start().await;
    // It takes the run over, or says what it needs for that.
    until(|| ["taking over", "disk is full"].iter().any(|word| full.log().contains(word))).await;
    full.kill().await;
    disk.make_room();
    let (serving, server) = site.start().await;
    run.event("runbookd was restarted").await;
    run.go();
    run.ends_whole(&server).await;
    serving.signal(Signal::TERM);
    let (code, log) = serving.ended().await;
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(site.leftovers(), Vec::<String>::new());
}
