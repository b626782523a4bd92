//! A run that waits in the middle of a tool call until it is told to go on.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{Listening, POLL, Site, events_in, trajectory_in, until};

/// Longer than a run takes that need not wait.
const SOON: Duration = Duration::from_secs(60);

const SCRIPT: &str = "
turns:
  - text: First a note.
    tools: [{ Bash: { command: echo started >>/app/results/starts } }]
  - text: Now I wait.
    tools: [{ Bash: { command: \"while [ ! -e /app/go ]; do sleep 0.1; done; echo gone on\" } }]
  - text: All done.
";

/// The run.
pub(super) struct Waiting<'a> {
    site: &'a Site,
    path: String,
}

/// Asks for a run whose model answers with a script, and gives its path.
pub(super) async fn submit(server: &Listening, script: &str) -> String {
    // Who asks for the second run finds the collection.
    server
        .ask("POST", "/api/v1/collections", Some(&json!({ "name": "team" })), None)
        .await
        .unwrap();
    let workflow = json!({
        "init_params": { "instruction": "# A story\n\nDo what the model says.\n" },
        "step_configs": { "run": {
            "activity": "runbook", "instruction_path": "init_params.instruction",
            "network_enabled": false,
        } },
        "steps": ["run"],
    });
    let body = json!({ "name": "story", "workflow": workflow });
    server.ask("POST", "/api/v1/tasks/team", Some(&body), None).await.unwrap();
    let body = json!({ "init_params": { "script": script } });
    let path = "/api/v1/run/team/story";
    let (status, answer) = server.ask("POST", path, Some(&body), None).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    format!("team/story/{}", answer["trajectory_id"].as_str().unwrap())
}

/// Waits until a run has ended, and gives its record.
pub(super) async fn end_of(site: &Site, server: &Listening, path: &str) -> Value {
    let ended = async {
        loop {
            let seen = server.get(&format!("/api/v1/db/trajectory/{path}")).await;
            if !matches!(seen["status"].as_str(), Some("pending" | "running")) {
                return seen;
            }
            tokio::time::sleep(POLL * 10).await;
        }
    };
    let seen = timeout(SOON, ended).await;
    let events = events_in(&site.run_folder(path));
    let seen = seen.unwrap_or_else(|_| panic!("the run ends: {events:#?}"));
    let n_ends = events.iter().filter(|event| event["kind"] == "finished").count();
    assert_eq!(n_ends, 1, "{events:#?}");
    assert_eq!(events.last().unwrap()["status"], seen["status"], "{events:#?}");
    seen
}

impl<'a> Waiting<'a> {
    /// Begins a run and waits until it waits.
    pub(super) async fn begin(site: &'a Site, server: &Listening) -> Self {
        let path = submit(server, SCRIPT).await;
        let run = Self { site, path };
        run.event("\"tool_started\",\"step\":4").await;
        run
    }

    /// Waits until an event holds this text.
    pub(super) async fn event(&self, text: &str) {
        let folder = self.site.run_folder(&self.path);
        let heard = until(|| {
            let events = std::fs::read_to_string(folder.join("events.jsonl"));
            events.unwrap_or_default().contains(text)
        });
        let in_time = timeout(SOON, heard).await;
        assert!(in_time.is_ok(), "{text} is told: {:#?}", events_in(&folder));
    }

    /// The folder of its sandbox.
    pub(super) fn sandbox(&self) -> PathBuf {
        let mut folders = std::fs::read_dir(self.site.folder().join("sandboxes")).unwrap();
        folders.next().expect("a sandbox").unwrap().path()
    }

    pub(super) fn go(&self) {
        std::fs::write(self.sandbox().join("rw/app/go"), "").unwrap();
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.site.run_folder(&self.path)
    }

    /// Asks for its end.
    pub(super) async fn cancel(&self, server: &Listening) {
        let (task, id) = self.path.rsplit_once('/').unwrap();
        let path = format!("/api/v1/trajectory/{task}/statuses");
        let wish = json!({ id: "cancelled" });
        let (status, answer) = server.ask("POST", &path, Some(&wish), None).await.unwrap();
        assert_eq!(status, 200, "{answer}");
    }

    /// Waits until it has ended, and gives its record.
    pub(super) async fn end(&self, server: &Listening) -> Value {
        end_of(self.site, server, &self.path).await
    }

    /// It ended well, and nothing of it happened twice.
    pub(super) async fn ends_whole(&self, server: &Listening) {
        let ended = self.end(server).await;
        assert_eq!(ended["status"], "completed", "{ended:#}");
        let starts = self.site.run_folder(&self.path).join("results/starts");
        assert_eq!(std::fs::read_to_string(starts).unwrap(), "started\n");
        let steps = self.steps();
        assert_eq!(steps, ["message", "tool_call", "message", "tool_call", "message", "result"]);
    }

    /// It failed for this reason, and what was said until then is kept.
    pub(super) async fn ends_failed(&self, server: &Listening, reason: &str) {
        let ended = self.end(server).await;
        assert_eq!(ended["status"], "failed", "{ended:#}");
        let events = events_in(&self.site.run_folder(&self.path));
        let failure = &events.last().unwrap()["failure"];
        assert!(failure.to_string().contains(reason), "{failure:#}");
        assert_eq!(self.steps(), ["message", "tool_call", "message", "tool_call"]);
    }

    /// The kinds of its steps. While nobody serves its model, an agent asks again, and tells that.
    fn steps(&self) -> Vec<String> {
        let trajectory = trajectory_in(&self.site.run_folder(&self.path));
        let steps = trajectory["agent_steps"].as_array().unwrap().iter();
        let kinds = steps.map(|step| step["kind"].as_str().unwrap().to_owned());
        kinds.filter(|kind| kind != "retry").collect()
    }
}
