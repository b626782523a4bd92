//! `runbookd serve` as a process of its own, in a home of its own.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder, Response};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::agent::Agent;
use crate::common::{Outcome, peak_bytes};

/// Longer than a start, an answer, a stop or a run without work takes.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// How often the end of something is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The collection and the task of all runs.
const PLACE: &str = "bench/load";

/// The memory that a run may use: the least that runbookd takes.
const RUN_MEMORY: &str = "256M";

/// A server that listens.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    url: String,
    token: String,
    client: Client,
    home: TempDir,
}

impl Server {
    /// Starts one with so many slots, and a task for the agent.
    pub(crate) async fn start(agent: Agent, engine: &str, slots: usize) -> Outcome<Self> {
        let home = tempfile::Builder::new().prefix("runbookd-bench-").tempdir()?;
        let agent = agent.install(home.path())?;
        let made = command(home.path()).args(["token", "create", "bench", "--admin"]).output();
        let made = made.await?;
        let token = String::from_utf8(made.stdout)?.trim().to_owned();
        let log = home.path().join("log");
        let slots = slots.to_string();
        let child = command(home.path())
            .args(["serve", "--listen", "127.0.0.1:0", "--engine", engine, "--slots", &slots])
            .arg("--agent-cli")
            .arg(agent)
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        let mut server = Self { child, url: String::new(), token, client: Client::new(), home };
        server.url = server.address().await?;
        let task = json!({ "name": "load", "workflow": {
            "init_params": { "instruction": "# Load\n\nDo what you do.\n" },
            "step_configs": { "run": {
                "activity": "runbook", "instruction_path": "init_params.instruction",
                "model": "claude-sonnet-4-6", "model_provider": "anthropic",
                "memory": RUN_MEMORY, "cpus": 0.5, "network_enabled": false,
            } },
            "steps": ["run"],
        } });
        let keys = json!({ "ANTHROPIC_API_KEY": "sk-ant-made-up-for-a-benchmark" });
        let collection = json!({ "name": "bench", "environment_variables": keys });
        server.post("/api/v1/collections", &collection).await?;
        server.post("/api/v1/tasks/bench", &task).await?;
        Ok(server)
    }

    /// The server's folder of everything.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// What the server holds in RAM now, in bytes.
    pub(crate) fn resident_bytes(&self) -> Outcome<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = line.unwrap_or_default().trim().trim_end_matches(" kB").parse()?;
        Ok(kib << 10)
    }

    /// The most that it has held so far, in bytes.
    pub(crate) fn peak_bytes(&self) -> Outcome<u64> {
        Ok(peak_bytes(&self.process()).ok_or("the server has ended")?)
    }

    fn process(&self) -> String {
        self.child.id().map(|id| id.to_string()).unwrap_or_default()
    }

    /// Asks for a run, and says what it is called.
    pub(crate) async fn submit(&self) -> Outcome<String> {
        let answer = self.post(&format!("/api/v1/run/{PLACE}"), &json!({})).await?;
        let id = answer["trajectory_id"].as_str().ok_or("the answer names no run")?;
        Ok(id.to_owned())
    }

    /// Waits until so many runs have a status, and gives the moment.
    pub(crate) async fn await_status(&self, status: &str, n_runs: usize) -> Outcome<Instant> {
        let path = format!("/api/v1/db/trajectories/{PLACE}?limit=1&status=");
        let since = Instant::now();
        let mut before = 0;
        let mut news = since;
        while news.elapsed() < SOON {
            let n = count(&self.get(&format!("{path}{status}")).await?);
            if n >= n_runs {
                return Ok(Instant::now());
            }
            let failed = self.get(&format!("{path}failed")).await?;
            if count(&failed) > 0 {
                return Err(format!("a run failed: {}", failed["trajectories"][0]["error"]).into());
            }
            if n > before {
                (before, news) = (n, Instant::now());
            }
            sleep(LOOK_EVERY).await;
        }
        Err(format!("{before} of {n_runs} runs are {status}, and no more in {SOON:?}").into())
    }

    /// The events of a run as they come.
    pub(crate) async fn events(&self, run: &str) -> Outcome<Response> {
        let request =
            self.client.get(format!("{}/api/v1/trajectory/{PLACE}/{run}/events", self.url));
        Ok(request.bearer_auth(&self.token).send().await?.error_for_status()?)
    }

    /// Stops every run that goes on.
    pub(crate) async fn cancel(&self, runs: &[String]) -> Outcome<()> {
        let path = format!("/api/v1/trajectory/{PLACE}/statuses");
        let body: serde_json::Map<String, Value> =
            runs.iter().map(|run| (run.clone(), "cancelled".into())).collect();
        self.answer(self.client.post(format!("{}{path}", self.url)).json(&body)).await?;
        self.await_status("cancelled", runs.len()).await.map(drop)
    }

    /// Stops the server, and waits until it has ended.
    pub(crate) async fn stop(mut self) -> Outcome<()> {
        let id = self.child.id().ok_or("the server has ended")?;
        let pid = Pid::from_raw(i32::try_from(id)?).ok_or("the server has no process id")?;
        kill_process(pid, Signal::TERM)?;
        let ended = tokio::time::timeout(SOON, self.child.wait()).await;
        let status = ended.map_err(|_| "the server did not end")??;
        if status.success() { Ok(()) } else { Err(self.complaint(&status.to_string())) }
    }

    async fn address(&mut self) -> Outcome<String> {
        let since = Instant::now();
        while since.elapsed() < SOON {
            let log = fs::read_to_string(self.home.path().join("log"))?;
            if let Some((_, rest)) = log.split_once("listening on ") {
                return Ok(rest.split(',').next().unwrap_or_default().to_owned());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(self.complaint(&status.to_string()));
            }
            sleep(LOOK_EVERY).await;
        }
        Err(self.complaint("it does not listen"))
    }

    fn complaint(&self, what: &str) -> Box<dyn std::error::Error + Send + Sync> {
        let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
        format!("the server: {what}\n{log}").into()
    }

    async fn get(&self, path: &str) -> Outcome<Value> {
        self.answer(self.client.get(format!("{}{path}", self.url))).await
    }

    async fn post(&self, path: &str, body: &Value) -> Outcome<Value> {
        self.answer(self.client.post(format!("{}{path}", self.url)).json(body)).await
    }

    async fn answer(&self, request: RequestBuilder) -> Outcome<Value> {
        let answer = request.bearer_auth(&self.token).timeout(SOON).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            return Err(format!("{status}: {text}").into());
        }
        Ok(serde_json::from_str(&text)?)
    }
}

/// The binary, with nothing of the environment but what it needs.
fn command(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runbookd"));
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", home)
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    command
}

/// How many there are in all of what a list shows.
fn count(list: &Value) -> usize {
    list["total"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
}
