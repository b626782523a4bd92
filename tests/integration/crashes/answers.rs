//! A server that is killed while an answer of a model is on its way.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use runbookd::provider::scripted::{Delivery, LedgerEntry, Listen, Script, ScriptedProvider};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::waiting::end_of;
use crate::support::{Listening, Site, is_required, trajectory_in, until};

/// Longer than a server's start and a slow answer take.
const SOON: Duration = Duration::from_secs(60);

/// An answer that takes some seconds.
const SCRIPT: &str = "
turns:
  - text: One two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen.
    chunk_delay_ms: 400
    tools: [{ Bash: { command: echo started >>/app/results/starts } }]
    usage: { input: 700, output: 60 }
  - text: All done.
after_end: refuse
";

const RUNBOOK: &str = "---\nmodel_provider: anthropic\n---\n# A story\n\nDo what the model says.\n";

/// Asks for a run of a runbook whose model is at this address, and gives its path.
pub(super) async fn submit(server: &Listening, runbook: &str, url: &str) -> String {
    let environment = json!({
        "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "sk-ant-made-up-slow",
    });
    let collection = json!({ "name": "team", "environment_variables": environment });
    let workflow = json!({
        "init_params": { "instruction": runbook },
        "step_configs": { "run": {
            "activity": "runbook", "instruction_path": "init_params.instruction",
        } },
        "steps": ["run"],
    });
    let task = json!({ "name": "story", "workflow": workflow });
    for (path, body) in [
        ("/api/v1/collections", collection),
        ("/api/v1/tasks/team", task),
        ("/api/v1/run/team/story", json!({})),
    ] {
        let (status, answer) = server.ask("POST", path, Some(&body), None).await.unwrap();
        assert!(matches!(status, 200 | 201), "{answer}");
        if let Some(id) = answer["trajectory_id"].as_str() {
            return format!("team/story/{id}");
        }
    }
    panic!("no run was begun")
}

fn messages(model: &ScriptedProvider) -> Vec<LedgerEntry> {
    let mut asked = model.ledger();
    asked.retain(|entry| entry.method == "POST");
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_on_its_way_outlives_the_server_and_is_asked_for_once() {
    if !rustix::process::geteuid().is_root() {
        assert!(!is_required(), "the full promises are given to root");
        println!("SKIPPED: the full promises are given to root");
        return;
    }
    let listen = Listen::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let model = ScriptedProvider::start(Script::parse(SCRIPT).unwrap(), listen).await.unwrap();
    let Listen::Tcp(address) = model.address() else { panic!("a TCP address") };
    let own = [("RUNBOOKD_ENGINE", "bubblewrap"), ("RUNBOOKD_MIN_FREE_BYTES", "0")];
    let site = Site::new(&own).await;
    let (serving, server) = site.start().await;
    let path = submit(&server, RUNBOOK, &format!("http://{address}")).await;
    let ledger = site.run_folder(&path).join("logs/gateway.jsonl");
    let on_its_way =
        || std::fs::read_to_string(&ledger).is_ok_and(|text| text.contains("in_flight"));
    timeout(SOON, until(on_its_way)).await.expect("the model is asked");
    serving.kill().await;
    // Nobody serves any more, and the answer arrives whole.
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&ledger).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert!(!lines().iter().any(|line| line["outcome"] == "complete"), "{:#?}", lines());
    let done =
        || site.run_folder(&path).exists() && lines().iter().any(|line| line["usage"].is_object());
    timeout(SOON, until(done)).await.expect("the answer arrives");
    let (serving, server) = site.start().await;
    let ended = end_of(&site, &server, &path).await;
    assert_eq!(ended["status"], "completed", "{ended:#}");
    let asked = messages(&model);
    let deliveries: Vec<Delivery> = asked.iter().map(|entry| entry.delivery).collect();
    assert_eq!(deliveries, [Delivery::Complete, Delivery::Complete]);
    let usage = &trajectory_in(&site.run_folder(&path))["usage"];
    assert_eq!(usage["reconciliation"], "exact", "{usage:#}");
    assert_eq!(usage["wire"]["requests"], json!({ "complete": 2 }), "{usage:#}");
    serving.signal(Signal::TERM);
    assert_eq!(serving.ended().await.0, Some(0));
    assert_eq!(site.leftovers(), Vec::<String>::new());
    model.stop().await;
}
