use super::super::read_back::{DocumentError, TrajectoryHead, read_head};
use std::time::Duration;

use expect_test::expect_file;
use uuid::Uuid;

use super::*;
use crate::run::{Asset, Base, DiskShare, Network, OutputCheck, RunId, RunName, RuntimeName, Slug};
use crate::trajectory::{AgentEvent, AgentResult, Block, Init, Message, ToolResult, ToolResults};

const CREATED: Timestamp = Timestamp::constant(1_790_000_000, 0);
const STARTED: Timestamp = Timestamp::constant(1_790_000_002, 500_000_000);
const ENDED: Timestamp = Timestamp::constant(1_790_000_012, 0);

fn plan() -> RunPlan {
    RunPlan {
        name: RunName {
            collection: Slug::new("acme").unwrap(),
            task: Slug::new("report").unwrap(),
            id: RunId::from_uuid(Uuid::from_u128(0xbb2b_b71e_0000_0000_0000_0000_0000_0000)),
        },
        step: "run".to_owned(),
        runtime: RuntimeName::ClaudeCode,
        provider: ProviderName::Scripted,
        model: "m-1".to_owned(),
        script: None,
        base: Base::Snapshot("maps".to_owned()),
        apt_packages: vec!["jq".to_owned()],
        credentials: Credentials::Gateway,
        guard: crate::guard::Guardrails::default(),
        redact_artifacts: false,
        provider_tools: ProviderTools::new(),
        network: Network::None,
        limits: Limits {
            wall: Duration::from_secs(60),
            setup: Duration::from_secs(30),
            linger: Duration::from_secs(5),
            stall: crate::run::StallLimits {
                model: Duration::from_secs(20),
                tool: Duration::from_secs(40),
                silent: Duration::from_secs(10),
            },
            max_turns: Some(9),
            model_retries: 10,
            memory_bytes: 1 << 30,
            disk: DiskShare { bytes: 1 << 30, n_files: 10_000 },
            n_cpus: 2.0,
            n_pids: 64,
            output_bytes: 1 << 20,
        },
        allowance: Allowance::default(),
        max_output_tokens: None,
        setup: Some("true".to_owned()),
        permissions: crate::run::Permissions::default(),
        init_params: Map::new(),
        runbook: Vec::new(),
        instruction: "Write the report.".to_owned(),
        session_id: Uuid::nil(),
        former: None,
        assets: vec![Asset { name: "in.csv".to_owned(), host_path: "/tmp/in.csv".into() }],
        secrets: BTreeMap::new(),
        agent_env: BTreeMap::new(),
        mcp_servers: [("files".to_owned(), serde_json::json!({"env": {"K": "hidden"}}))].into(),
        primary_outputs: vec!["report.md".to_owned()],
        notes: vec!["A note of the plan.".to_owned()],
    }
}

/// One reply that writes a file, its result, and the agent's last word.
fn recorder() -> Recorder {
    let mut recorder = Recorder::new();
    let (session_id, agent_version) = ("s-1".to_owned(), "2.1.126".to_owned());
    let model = "m-1".to_owned();
    let usage = Usage { input: 100, output: 1, cache_write_5m: 7, ..Usage::default() };
    let call = Block::ToolCall {
        id: "t-1".to_owned(),
        name: "Write".to_owned(),
        input: r#"{"file_path":"report.md"}"#.to_owned(),
    };
    let mut totals = UsageByModel::default();
    totals.add(
        &model,
        &Usage {
            input: 110,
            output: 42,
            cache_write_unsplit: 7,
            cost_usd: Some(0.25),
            ..Usage::default()
        },
    );
    let events = [
        AgentEvent::Init(Init {
            session_id,
            agent_version,
            model: model.clone(),
            ..Init::default()
        }),
        AgentEvent::Message(Message {
            message_id: "msg-1".to_owned(),
            model,
            blocks: vec![Block::Text("Writing.".to_owned()), call],
            usage,
            ..Message::default()
        }),
        AgentEvent::ToolResults(ToolResults {
            parent_tool_call: None,
            results: vec![ToolResult {
                call_id: "t-1".to_owned(),
                content: "written".to_owned(),
                is_error: false,
            }],
            timestamp: None,
        }),
        AgentEvent::Result(Box::new(AgentResult {
            subtype: "success".to_owned(),
            text: "The report is written.".to_owned(),
            n_turns: 2,
            usage: totals,
            ..AgentResult::default()
        })),
    ];
    for (line, event) in (1..).zip(events) {
        recorder.record(line, STARTED, event);
    }
    recorder
}

/// Writes the document of a run that stands at `status`.
fn written(status: &RunStatus, recorder: &Recorder, times: RunTimes) -> String {
    let verdict = Verdict {
        primary_outputs: vec![OutputCheck { path: "report.md".to_owned(), exists: true }],
        n_results: 1,
        ..Verdict::default()
    };
    let started_from = StartedFrom {
        engine: "docker".to_owned(),
        snapshot: Some("maps".to_owned()),
        image: Some("runbookd-snapshot/maps:0123456789abcdef".to_owned()),
        image_id: Some("sha256:00".to_owned()),
    };
    let facts = DocumentFacts {
        egress: None,
        plan: &plan(),
        storage_path: "acme/report/bb2bb71e",
        started_from: Some(&started_from),
        init_params: &Map::from_iter([("topic".to_owned(), "tea".into())]),
        status,
        times,
        recorder,
        usage: &recorder.usage(),
        reconciled: &Reconciled::default(),
        verdict: &verdict,
        notes: &["A note of the worker.".to_owned()],
        results: &[ResultFile {
            path: "results/report.md".to_owned(),
            declared_path: "report.md".to_owned(),
            n_bytes: 12,
        }],
        other_files: &["logs/agent/claude-code.txt".to_owned()],
    };
    serde_json::to_string_pretty(&TrajectoryDocument::new(&facts)).unwrap() + "\n"
}

fn times() -> RunTimes {
    RunTimes { created: CREATED, started: Some(STARTED), ended: Some(ENDED), updated: ENDED }
}

#[test]
fn a_run_is_written_in_the_shape_that_clients_read() {
    let written = written(&RunStatus::Completed, &recorder(), times());
    expect_file!["../../../tests/golden/trajectory.json"].assert_eq(&written);
}

#[test]
fn a_failure_says_what_happened_and_what_to_do() {
    let status = RunStatus::Failed(RunFailure::TurnLimit { limit: 9 });
    let written: Value = serde_json::from_str(&written(&status, &recorder(), times())).unwrap();
    assert_eq!(written["status"], "failed");
    assert_eq!(written["error"], "the run used up its turns (limit: 9)");
    assert_eq!(written["failure"]["code"], "turn_limit");
    assert_eq!(written["failure"]["mend"], "Raise the turn limit, or split the runbook.");
    assert_eq!(written["completed_steps"], serde_json::json!([]));
    assert_eq!(written["steps"]["run"]["outputs"]["success"], false);
}

#[test]
fn the_head_is_read_back_and_another_version_is_refused() {
    let times = RunTimes { started: None, ended: None, ..times() };
    let written = written(&RunStatus::Pending, &Recorder::new(), times);
    let head = TrajectoryHead {
        name: "acme/report".to_owned(),
        trajectory_id: "bb2bb71e".to_owned(),
        status: "pending".to_owned(),
        created: CREATED,
        updated: ENDED,
        error: None,
    };
    assert_eq!(read_head(written.as_bytes()).unwrap(), head);
    let newer = written.replacen("\"schema_version\": 1", "\"schema_version\": 2", 1);
    let error = read_head(newer.as_bytes()).unwrap_err();
    assert!(matches!(error, DocumentError::Version { found: 2 }), "{error}");
    assert!(matches!(read_head(b"{}").unwrap_err(), DocumentError::Read(_)));
}
