//! `runbookd serve` as a process of its own, and a daemon with everything that a run needs.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use runbookd::provider::scripted::{Listen, Script, ScriptedProvider};
use runbookd::sandbox::EngineKind;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;

use super::home::{Home, Ran};
use super::stage::{host, image, is_required};

/// Longer than a start or a stop takes on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// The exit code of a tool that could not be set up here.
const NOT_SET_UP: i32 = 69;

/// Where a daemon's collection says that its runs find their model, and with which key.
const KEY: &str = "sk-ant-made-up-for-a-client";

/// A server that listens.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    log: Lines<BufReader<ChildStderr>>,
}

impl Server {
    /// Starts a server and waits until it listens.
    pub(crate) async fn start(home: &Home, env: &[(&str, &str)]) -> Self {
        let mut child = home
            .command(&["serve", "--listen", "127.0.0.1:0"])
            .envs(env.iter().copied())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening = async {
            let mut said = Vec::new();
            while let Some(line) = log.next_line().await.unwrap() {
                if let Some((_, rest)) = line.split_once("listening on http://") {
                    return rest.split(',').next().unwrap().to_owned();
                }
                said.push(line);
            }
            panic!("the server ended: {said:#?}");
        };
        let address = tokio::time::timeout(SOON, listening).await.unwrap();
        Self { child, address, log }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// The status line and the body of an answer.
    pub(crate) async fn get(&self, path: &str, token: &str) -> (String, String) {
        send(&self.address, ("GET", path), token, "").await
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// The exit code and the rest of the log.
    pub(crate) async fn ended(mut self) -> (Option<i32>, String) {
        let status = tokio::time::timeout(SOON, self.child.wait()).await.unwrap().unwrap();
        let mut rest = String::new();
        while let Some(line) = self.log.next_line().await.unwrap() {
            rest.push_str(&line);
            rest.push('\n');
        }
        (status.code(), rest)
    }
}

/// Asks, and gives the status line and the body of the answer.
async fn send(
    address: &str,
    (method, path): (&str, &str),
    token: &str,
    body: &str,
) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// Runs a tool against a server, with a token. Nothing where the tool could not be set up, which is a
/// fault where everything is required.
pub(crate) async fn run_tool(
    (tool, arguments): (&str, &[&str]),
    (address, token): (&str, &str),
) -> Option<Ran> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools").join(tool);
    let child = Command::new(program)
        .args(arguments)
        .env("JETTY_API_URL", format!("http://{address}"))
        .env("JETTY_API_TOKEN", token)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let ran = Ran::of(child).await;
    if ran.code == Some(NOT_SET_UP) && !is_required() {
        println!("SKIPPED {tool}: {}", ran.stderr);
        return None;
    }
    Some(ran)
}

/// A daemon that can do runs: an admin's token, a collection `team`, and in its environment a model
/// that says what a script says.
pub(crate) struct Daemon {
    home: Home,
    engine: EngineKind,
    pid: u32,
    address: String,
    token: String,
    model: ScriptedProvider,
    /// Reads the log on, so that the server never waits for its reader.
    server: JoinHandle<(Option<i32>, String)>,
}

impl Daemon {
    /// Starts one on an engine. Nothing where the full promises cannot be given, which only root can.
    pub(crate) async fn start(engine: EngineKind, script: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            assert!(!is_required(), "the full promises are given to root");
            println!("SKIPPED: the full promises are given to root");
            return None;
        }
        let listen = Listen::Tcp("0.0.0.0:0".parse().unwrap());
        let model = ScriptedProvider::start(Script::parse(script).unwrap(), listen).await.unwrap();
        let home = Home::new();
        let made = home.run(&["token", "create", "clients", "--admin"]).await;
        assert_eq!(made.code, Some(0), "{made:?}");
        let env = [
            ("RUNBOOKD_ENGINE", engine.to_string()),
            ("RUNBOOKD_SNAPSHOTS", snapshots(&home)),
            // The scripted model is on this machine.
            ("RUNBOOKD_UPSTREAM_PRIVATE", "1".to_owned()),
        ];
        let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
        let server = Server::start(&home, &env).await;
        let (pid, address) = (server.pid(), server.address.clone());
        let server = tokio::task::spawn(ended(server));
        let token = made.stdout.trim().to_owned();
        let daemon = Self { home, engine, pid, address, token, model, server };
        daemon.furnish().await;
        Some(daemon)
    }

    async fn furnish(&self) {
        let Listen::Tcp(model) = self.model.address() else { panic!("a TCP address") };
        let url = format!("http://{}:{}", host(self.engine), model.port());
        let variables = json!({ "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": KEY });
        let team = json!({ "name": "team", "environment_variables": variables }).to_string();
        let path = ("POST", "/api/v1/collections");
        let made = send(&self.address, path, &self.token, &team).await;
        assert_eq!(made.0, "HTTP/1.1 200 OK", "{made:?}");
    }

    /// What an admin gets at a path.
    pub(crate) async fn get(&self, path: &str) -> String {
        let (status, body) = send(&self.address, ("GET", path), &self.token, "").await;
        assert_eq!(status, "HTTP/1.1 200 OK", "{path}: {body}");
        body
    }

    /// Runs a tool against the daemon. Nothing where the tool could not be set up, which is a fault
    /// where everything is required.
    pub(crate) async fn tell(&self, tool: &str, arguments: &[&str]) -> Option<Ran> {
        run_tool((tool, arguments), (&self.address, &self.token)).await
    }

    /// Runs the lines of a page of the documentation, in the daemon's home beside the runbooks of this
    /// repository, with the token of the collection.
    pub(crate) async fn examples(&self, lines: &str) -> Ran {
        let runbooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks");
        let script = format!(
            r#"ln -sfn '{}' runbooks
            JETTY_API_TOKEN=$(curl -sf -H "Authorization: Bearer $JETTY_API_TOKEN" \
                -d '{{"name": "examples-'$RANDOM'", "collection_name": "team"}}' \
                "$JETTY_API_URL/api/v1/api-keys" | jq -r .api_key)
            {lines}"#,
            runbooks.display()
        );
        let child = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &script])
            .env("JETTY_API_URL", format!("http://{}", self.address))
            .env("JETTY_API_TOKEN", &self.token)
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Ran::of(child).await
    }

    /// Where the daemon listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Stops the daemon, waits for the drain, and sees to it that nothing is left.
    pub(crate) async fn stop(self) {
        let pid = Pid::from_raw(i32::try_from(self.pid).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let ended = tokio::time::timeout(SOON, self.server).await;
        let (code, log) = ended.expect("it drains in time").unwrap();
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains(&self.token) && !log.contains(KEY), "no secret in the log: {log}");
        assert_eq!(self.home.leftovers_of_server(self.engine), Vec::<String>::new(), "{log}");
        let asked = self.model.stop().await;
        assert!(asked.iter().all(|entry| !entry.unexpected), "{asked:#?}");
    }
}

/// A folder in which the default snapshot is the tests' image, and promises nothing.
fn snapshots(home: &Home) -> String {
    let folder = home.path().join("snapshots");
    let default = folder.join("python312-uv");
    std::fs::create_dir_all(&default).unwrap();
    let description = "description: What the tests have.\ntools: []\n";
    std::fs::write(default.join("snapshot.yaml"), description).unwrap();
    std::fs::write(default.join("Dockerfile"), format!("FROM {}\n", image())).unwrap();
    folder.to_str().unwrap().to_owned()
}

/// The exit code and the log of a server, read while it is written.
async fn ended(mut server: Server) -> (Option<i32>, String) {
    let mut log = String::new();
    while let Some(line) = server.log.next_line().await.unwrap() {
        log.push_str(&line);
        log.push('\n');
    }
    (server.child.wait().await.unwrap().code(), log)
}
