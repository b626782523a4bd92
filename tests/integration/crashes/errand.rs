//! One run that is asked for, with a model of its own that outlives every server and notes what it
//! was asked.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use runbookd::provider::scripted::{
    Delivery, LedgerEntry, Listen, Place, Script, ScriptedProvider,
};
use serde_json::{Value, json};

use crate::support::Listening;

const RUNBOOK: &str = "---\nmodel_provider: anthropic\n---\n# A story\n\nDo what the model says.\n";

/// A run and its model.
#[derive(Debug)]
pub(super) struct Errand {
    number: usize,
    model: ScriptedProvider,
    is_known: bool,
    /// The run's id, once the server has said it.
    pub(super) run: Option<String>,
    pub(super) has_ended: bool,
}

/// How many tool calls a run makes.
fn n_calls(number: usize) -> usize {
    [0, 1, 3, 4][number % 4]
}

fn said(number: usize, call: usize) -> String {
    format!("Errand {number} comes to its call {call}.")
}

fn command(number: usize, call: usize) -> String {
    // Some calls take their time, most do not.
    let pause = if (number + call).is_multiple_of(3) { "sleep 0.4; " } else { "" };
    format!("{pause}echo call-{call} >>/app/results/calls; echo answer-{number}-{call}")
}

fn script(number: usize) -> Script {
    let calls = (1..=n_calls(number)).map(|call| {
        json!({
            "text": said(number, call),
            "tools": [{ "Bash": { "command": command(number, call) } }],
            "chunk_delay_ms": (number % 3) * 20,
        })
    });
    let end = json!({ "text": format!("Errand {number} is done.") });
    let turns: Vec<Value> = calls.chain([end]).collect();
    // A question too many is to be seen.
    Script::parse(&json!({ "turns": turns, "after_end": "refuse" }).to_string()).unwrap()
}

impl Errand {
    pub(super) async fn new(number: usize) -> Self {
        let listen = Listen::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let model = ScriptedProvider::start(script(number), listen).await.unwrap();
        Self { number, model, is_known: false, run: None, has_ended: false }
    }

    pub(super) fn collection(&self) -> String {
        format!("errand-{}", self.number)
    }

    /// Where the run lies below the results.
    pub(super) fn path(&self) -> String {
        format!("{}/story/{}", self.collection(), self.run.as_ref().unwrap())
    }

    /// Asks for the run as often as it takes. What a killed server did of it is not done again.
    pub(super) async fn submit(&mut self, server: &Listening) {
        let collection = self.collection();
        if !self.is_known {
            let Listen::Tcp(address) = self.model.address() else { unreachable!("it has a port") };
            let environment = json!({
                "ANTHROPIC_BASE_URL": format!("http://{address}"),
                "ANTHROPIC_API_KEY": "sk-ant-made-up-errand",
            });
            let body = json!({ "name": collection, "environment_variables": environment });
            self.make(server, "/api/v1/collections", &body).await;
            // Where the one before was killed between the two, the collection has no environment.
            let path = format!("/api/v1/collections/{collection}/environment");
            let body = json!({ "environment_variables": environment });
            let answer = server.ask("PATCH", &path, Some(&body), None).await.unwrap();
            assert_eq!(answer.0, 200, "{answer:?}");
            let workflow = json!({
                "init_params": { "instruction": RUNBOOK },
                "step_configs": { "run": {
                    "activity": "runbook", "instruction_path": "init_params.instruction",
                } },
                "steps": ["run"],
            });
            let body = json!({ "name": "story", "workflow": workflow });
            self.make(server, &format!("/api/v1/tasks/{collection}"), &body).await;
            self.is_known = true;
        }
        let path = format!("/api/v1/run/{collection}/story");
        let key = format!("made-up-key-{}", self.number);
        let (status, answer) =
            server.ask("POST", &path, Some(&json!({})), Some(&key)).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        self.run = Some(answer["trajectory_id"].as_str().unwrap().to_owned());
    }

    /// Makes what may be there already.
    async fn make(&self, server: &Listening, path: &str, body: &Value) {
        let (status, answer) = server.ask("POST", path, Some(body), None).await.unwrap();
        let is_there = answer["detail"].to_string().contains("already exists");
        assert!(matches!(status, 200 | 201) || is_there, "{status} {answer}");
    }

    /// Looks whether the run has ended. What has ended stays so.
    pub(super) async fn look(&mut self, server: &Listening) {
        let Some(run) = &self.run else { return };
        let path = format!("/api/v1/db/trajectory/{}/story/{run}", self.collection());
        let seen = server.get(&path).await;
        let status = seen["status"].as_str().unwrap().to_owned();
        self.has_ended = !matches!(status.as_str(), "pending" | "running");
    }

    /// What the run's record says is what its model was asked and what it answered, each thing once.
    pub(super) async fn agrees_with(
        self,
        folder: &Path,
        events: &[Value],
        trajectory: &Value,
        (session, usage): (&str, (u64, u64)),
    ) {
        let Self { number, model, .. } = self;
        let ledger = model.stop().await;
        let context = format!("{folder:?}\n{ledger:#?}\n{trajectory:#}");
        let n_calls = n_calls(number);
        let asked: Vec<&LedgerEntry> =
            ledger.iter().filter(|entry| matches!(entry.place, Place::Main { .. })).collect();
        // One agent, one conversation: each turn was asked for once and answered in full.
        let turns = asked.iter().map(|entry| (entry.place.clone(), entry.delivery));
        let expected = (1..=n_calls + 1).map(|turn| (Place::Main { turn }, Delivery::Complete));
        assert!(turns.eq(expected), "{context}");
        for entry in &asked {
            let body = entry.json().expect("the ledger keeps the last requests");
            assert!(body["metadata"].to_string().contains(session), "{context}");
        }
        assert_eq!(trajectory["agent"]["session_ids"], json!([session]), "{context}");
        assert_eq!(steps(trajectory), replies(number, &asked), "{context}");
        assert_eq!(told(events), titles(number), "{context}");
        let calls = std::fs::read_to_string(folder.join("results/calls")).unwrap_or_default();
        let expected: String = (1..=n_calls).map(|call| format!("call-{call}\n")).collect();
        assert_eq!(calls, expected, "{context}");
        let counted = ledger.iter().filter_map(LedgerEntry::counted_usage);
        let sent = counted.fold((0, 0), |sum, sent| (sum.0 + sent.input, sum.1 + sent.output));
        assert_eq!(usage, sent, "{context}");
    }
}

/// What the trajectory holds: texts, and calls with their results.
fn steps(trajectory: &Value) -> Vec<String> {
    let steps = trajectory["agent_steps"].as_array().unwrap();
    let shown = steps.iter().filter(|step| step["kind"] != "result").map(|step| match step["kind"]
        .as_str()
        .unwrap()
    {
        "message" => step["text"]["text"].as_str().or(step["text"].as_str()).unwrap().to_owned(),
        "tool_call" => {
            let content = &step["result"]["content"];
            let content = content["text"].as_str().or(content.as_str());
            content.unwrap_or("no result").to_owned()
        }
        other => format!("another step: {other}"),
    });
    shown.collect()
}

/// What the model said, and what it was told of its calls in the request after.
fn replies(number: usize, asked: &[&LedgerEntry]) -> Vec<String> {
    let mut replies = Vec::new();
    for (call, entry) in asked.iter().enumerate().skip(1) {
        replies.push(said(number, call));
        let body = entry.json().expect("the ledger keeps the last requests");
        let last = body["messages"].as_array().unwrap().iter().rev();
        let result = last
            .flat_map(|message| message["content"].as_array().into_iter().flatten())
            .find(|block| block["type"] == "tool_result")
            .expect("the result of the call before");
        let text = result["content"].as_str().or(result["content"][0]["text"].as_str());
        assert_eq!(text.unwrap(), format!("answer-{number}-{call}"));
        replies.push(text.unwrap().to_owned());
    }
    replies.push(format!("Errand {number} is done."));
    replies
}

/// The texts and titles of the run's events, in order.
fn told(events: &[Value]) -> Vec<String> {
    let of_the_agent = events.iter().filter(|event| event["update"].is_u64());
    let told = of_the_agent.map(|event| event["text"].as_str().or(event["title"].as_str()));
    told.map(|told| told.expect("a text or a title").to_owned()).collect()
}

/// What the events are to tell: a call begins and ends.
fn titles(number: usize) -> Vec<String> {
    let calls = (1..=n_calls(number)).flat_map(|call| {
        let title = format!("Bash: {}", command(number, call));
        [said(number, call), title.clone(), title]
    });
    calls.chain([format!("Errand {number} is done.")]).collect()
}
