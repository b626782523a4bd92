//! The server as a process that can be asked over HTTP, killed, and started again in the same home.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::timeout;

use super::home::Home;
use super::stage::POLL;

/// Longer than a start, an answer or a stop takes on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A home whose server may be many processes, one after the other.
pub(crate) struct Site {
    pub(crate) home: Home,
    token: String,
    env: Vec<(String, String)>,
}

/// One process of the server.
pub(crate) struct Serving {
    child: Child,
    log: PathBuf,
}

/// A server that listens.
pub(crate) struct Listening {
    pub(crate) address: String,
    pub(crate) token: String,
}

impl Site {
    /// A home with a token that opens everything.
    pub(crate) async fn new(env: &[(&str, &str)]) -> Self {
        Self::on(Home::new(), env).await
    }

    /// [`Site::new`] in a home that is prepared already.
    pub(crate) async fn on(home: Home, env: &[(&str, &str)]) -> Self {
        let made = home.run(&["token", "create", "story", "--admin"]).await;
        assert_eq!(made.code, Some(0), "{made:?}");
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let env = env.collect();
        Self { token: made.stdout.trim().to_owned(), home, env }
    }

    /// Starts a process and does not wait for it.
    pub(crate) fn spawn(&self) -> Serving {
        let log = self.home.path().join("serve.log");
        let errors = std::fs::File::create(&log).unwrap();
        let child = self
            .home
            .command(&["serve", "--listen", "127.0.0.1:0"])
            // The models of the stories are on this machine.
            .env("RUNBOOKD_UPSTREAM_PRIVATE", "1")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .unwrap();
        Serving { child, log }
    }

    /// Starts a process and waits until it listens.
    pub(crate) async fn start(&self) -> (Serving, Listening) {
        let mut serving = self.spawn();
        let address = serving.address().await;
        (serving, Listening { address, token: self.token.clone() })
    }

    /// The server's own folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.home.state().join("server")
    }

    /// The folder of a run.
    pub(crate) fn run_folder(&self, path: &str) -> PathBuf {
        self.home.state().join("results").join(path)
    }

    /// What lives of the server's sandboxes and their gateways: processes, folders, control groups,
    /// mounts.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let sandboxes = self.folder().join("sandboxes");
        let here = sandboxes.to_str().unwrap().to_owned();
        let mut found = super::stage::processes_with(&here);
        let models = self.folder().join("models");
        found.extend(super::stage::processes_with(models.to_str().unwrap()));
        for folder in [sandboxes, models] {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            found.extend(entries.map(|entry| entry.path().display().to_string()));
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        found.extend(mounts.lines().filter(|line| line.contains(&here)).map(str::to_owned));
        found.extend(self.home.groups());
        found
    }
}

impl Serving {
    async fn address(&mut self) -> String {
        let listening = async {
            loop {
                let log = self.log();
                let line = log.lines().find_map(|line| line.split_once("listening on http://"));
                if let Some((_, rest)) = line {
                    return rest.split(',').next().unwrap().to_owned();
                }
                let ended = self.child.try_wait().unwrap();
                assert!(ended.is_none(), "the server ended: {log}");
                tokio::time::sleep(POLL).await;
            }
        };
        timeout(SOON, listening).await.expect("the server listens")
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Ends it as a power cut would, and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.start_kill().unwrap();
        timeout(SOON, self.child.wait()).await.expect("a killed process ends").unwrap();
    }

    /// Waits for its end, and gives its exit code and its log.
    pub(crate) async fn ended(mut self) -> (Option<i32>, String) {
        let status = timeout(SOON, self.child.wait()).await.expect("the server ends").unwrap();
        (status.code(), self.log())
    }
}

impl Listening {
    /// Asks for something that must succeed.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask("GET", path, None, None).await.unwrap();
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// A request and its answer. What is not JSON comes as text.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        idempotency_key: Option<&str>,
    ) -> io::Result<(u16, Value)> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let key = idempotency_key.map(|key| format!("idempotency-key: {key}\r\n"));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n{}connection: close\r\n\r\n{body}",
            self.token,
            body.len(),
            key.unwrap_or_default(),
        );
        let mut stream = TcpStream::connect(&self.address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await.expect("an answer comes")?;
        let broken = || io::Error::other("the answer broke off");
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
        Ok((status.ok_or_else(broken)?, body))
    }
}

/// The events of a run. Their numbers are checked: from 1, without a gap.
pub(crate) fn events_in(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("events.jsonl")).unwrap_or_default();
    // The last line may be in the making.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let events: Vec<Value> =
        whole.lines().map(|line| serde_json::from_str(line).expect("a whole line")).collect();
    let numbers = events.iter().map(|event| event["seq"].as_u64().unwrap());
    assert!(numbers.eq(1..=events.len() as u64), "{text}");
    events
}

/// A run's record as it lies on the disk.
pub(crate) fn trajectory_in(folder: &Path) -> Value {
    let text = std::fs::read(folder.join("trajectory.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}
