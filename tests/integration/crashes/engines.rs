//! What dies is the agent, its container, or the engine itself.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use super::waiting::{Waiting, end_of, submit};
use crate::support::{Site, image, is_required, until};

/// Longer than a Docker daemon takes to start or to stop.
const SOON: Duration = Duration::from_secs(60);

/// A Docker daemon of its own: it can be killed and started again, and nobody else notices.
struct OwnDocker {
    folder: tempfile::TempDir,
    options: &'static [&'static str],
    daemon: Child,
}

impl OwnDocker {
    /// `None`, said aloud, where there is no Docker daemon to start.
    async fn new(options: &'static [&'static str]) -> Option<Self> {
        let is_there = Command::new("dockerd").arg("--version").output().is_ok();
        if !is_there || !rustix::process::geteuid().is_root() {
            assert!(!is_required(), "there is no Docker daemon to start");
            println!("SKIPPED: there is no Docker daemon to start");
            return None;
        }
        // Its sockets' paths must be short.
        let folder = tempfile::Builder::new().prefix("rbd").tempdir_in("/tmp").unwrap();
        let daemon = start(folder.path(), options);
        let docker = Self { folder, options, daemon };
        docker.answers().await;
        docker.takes(&image());
        Some(docker)
    }

    fn host(&self) -> String {
        format!("unix://{}/s", self.folder.path().display())
    }

    /// What a command says.
    fn ask(&self, arguments: &[&str]) -> Option<String> {
        let asked = Command::new("docker").args(["-H", &self.host()]).args(arguments).output();
        let asked = asked.unwrap();
        asked.status.success().then(|| String::from_utf8(asked.stdout).unwrap())
    }

    async fn answers(&self) {
        let awake = until(|| self.ask(&["version"]).is_some());
        let log = self.folder.path().join("log");
        let in_time = timeout(SOON, awake).await;
        assert!(in_time.is_ok(), "{}", std::fs::read_to_string(log).unwrap());
    }

    /// Takes an image from the machine's usual daemon.
    fn takes(&self, image: &str) {
        let archive = self.folder.path().join("image.tar");
        let archive = archive.to_str().unwrap();
        let saved = Command::new("docker").args(["save", "-o", archive, image]).status();
        assert!(saved.unwrap().success(), "the image {image} is there");
        self.ask(&["load", "-i", archive]).expect("the image is loaded");
        std::fs::remove_file(archive).unwrap();
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.daemon.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Ends the daemon.
    async fn end(&mut self, signal: Signal) {
        self.signal(signal);
        let gone = until(|| self.daemon.try_wait().unwrap().is_some());
        timeout(SOON, gone).await.expect("the Docker daemon ends");
    }

    async fn start_again(&mut self) {
        // A killed daemon leaves the numbers of its processes behind, and where nobody buries the
        // dead, those seem to live.
        for file in ["pid", "exec/containerd/containerd.pid"] {
            let _ = std::fs::remove_file(self.folder.path().join(file));
        }
        self.daemon = start(self.folder.path(), self.options);
        self.answers().await;
    }

    fn containers(&self) -> String {
        self.ask(&["ps", "--all", "--format", "{{.Names}}"]).unwrap()
    }

    async fn site(&self) -> Site {
        Site::new(&[
            ("RUNBOOKD_ENGINE", "docker"),
            ("DOCKER_HOST", &self.host()),
            ("RUNBOOKD_MIN_FREE_BYTES", "0"),
        ])
        .await
    }
}

/// A story that fails leaves no container and no daemon behind.
impl Drop for OwnDocker {
    fn drop(&mut self) {
        let left = self.ask(&["ps", "--all", "--quiet"]).unwrap_or_default();
        for container in left.lines() {
            self.ask(&["rm", "--force", container]);
        }
        if matches!(self.daemon.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
            let _ = self.daemon.wait();
        }
    }
}

fn start(folder: &std::path::Path, options: &[&str]) -> Child {
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    // A daemon without a bridge removes the bridge of the machine's own one: it gets a network apart.
    Command::new("unshare")
        .args(["--net", "dockerd"])
        .args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")])
        .args(["--host", &format!("unix://{}", at("s"))])
        .args(["--bridge=none", "--iptables=false"])
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// The server works on: it carries the next run out, ends, and leaves nothing.
async fn works_on(site: &Site, docker: &OwnDocker) {
    let (serving, server) = site.start().await;
    let next = submit(&server, "turns: [{ text: Hello. }]").await;
    let ended = end_of(site, &server, &next).await;
    assert_eq!(ended["status"], "completed", "{ended:#}");
    serving.signal(Signal::TERM);
    let (code, log) = serving.ended().await;
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(docker.containers(), "");
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_fails_its_run_once() {
    if !rustix::process::geteuid().is_root() {
        assert!(!is_required(), "the full promises are given to root");
        println!("SKIPPED: the full promises are given to root");
        return;
    }
    let site =
        Site::new(&[("RUNBOOKD_ENGINE", "bubblewrap"), ("RUNBOOKD_MIN_FREE_BYTES", "0")]).await;
    let (serving, server) = site.start().await;
    let run = Waiting::begin(&site, &server).await;
    let sandbox = run.sandbox();
    let session = sandbox.file_name().unwrap().to_str().unwrap().split('-').nth(1).unwrap();
    let agent = format!("--session-id={session}");
    let processes = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let is_it = String::from_utf8_lossy(&command).contains(&agent);
        is_it.then(|| entry.file_name().to_str()?.parse::<i32>().ok())?
    });
    let agent = processes.max().expect("the agent runs");
    kill_process(Pid::from_raw(agent).unwrap(), Signal::KILL).unwrap();
    run.ends_failed(&server, "somebody killed it").await;
    serving.signal(Signal::TERM);
    assert_eq!(serving.ended().await.0, Some(0));
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_killed_fails_its_run_once() {
    let Some(docker) = OwnDocker::new(&[]).await else { return };
    let site = docker.site().await;
    let (serving, server) = site.start().await;
    let run = Waiting::begin(&site, &server).await;
    docker.ask(&["kill", docker.containers().trim()]).expect("the container is killed");
    run.ends_failed(&server, "agent_crashed").await;
    // And while nobody watches.
    let run = Waiting::begin(&site, &server).await;
    serving.kill().await;
    docker.ask(&["kill", docker.containers().trim()]).expect("the container is killed");
    let (serving, server) = site.start().await;
    run.ends_failed(&server, "agent_crashed").await;
    serving.signal(Signal::TERM);
    assert_eq!(serving.ended().await.0, Some(0));
    works_on(&site, &docker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_daemon_that_is_restarted_and_ends_its_containers_fails_their_runs() {
    let Some(mut docker) = OwnDocker::new(&[]).await else { return };
    let site = docker.site().await;
    for signal in [Signal::TERM, Signal::KILL] {
        let (serving, server) = site.start().await;
        let run = Waiting::begin(&site, &server).await;
        docker.end(signal).await;
        docker.start_again().await;
        run.ends_failed(&server, "agent_crashed").await;
        serving.signal(Signal::TERM);
        assert_eq!(serving.ended().await.0, Some(0));
    }
    works_on(&site, &docker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cancelled_while_the_docker_daemon_is_away_is_stopped_when_it_is_back() {
    let Some(mut docker) = OwnDocker::new(&["--live-restore"]).await else { return };
    let site = docker.site().await;
    let (serving, server) = site.start().await;
    let run = Waiting::begin(&site, &server).await;
    docker.end(Signal::TERM).await;
    run.cancel(&server).await;
    let refused = until(|| serving.log().contains("the agent cannot be ended yet"));
    timeout(SOON, refused).await.expect("the order is refused");
    docker.start_again().await;
    let ended = run.end(&server).await;
    assert_eq!(ended["status"], "cancelled", "{ended:#}");
    // What the agent had made is kept.
    assert!(run.folder().join("results/starts").is_file());
    serving.signal(Signal::TERM);
    assert_eq!(serving.ended().await.0, Some(0));
    works_on(&site, &docker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_daemon_that_is_restarted_and_keeps_its_containers_costs_no_run() {
    let Some(mut docker) = OwnDocker::new(&["--live-restore"]).await else { return };
    let site = docker.site().await;
    for signal in [Signal::TERM, Signal::KILL] {
        let (serving, server) = site.start().await;
        let run = Waiting::begin(&site, &server).await;
        docker.end(signal).await;
        docker.start_again().await;
        run.go();
        run.ends_whole(&server).await;
        serving.signal(Signal::TERM);
        assert_eq!(serving.ended().await.0, Some(0));
    }
    // Both at once, and the engine is back after the server was started.
    let (serving, server) = site.start().await;
    let run = Waiting::begin(&site, &server).await;
    serving.kill().await;
    docker.end(Signal::KILL).await;
    docker.start_again().await;
    let (serving, server) = site.start().await;
    run.event("runbookd was restarted").await;
    run.go();
    run.ends_whole(&server).await;
    serving.signal(Signal::TERM);
    assert_eq!(serving.ended().await.0, Some(0));
    works_on(&site, &docker).await;
}
