//! `trajectory.json`: the record of a run as a file, in the shape that Jetty's clients read, with
//! our additions under keys of their own.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::egress_account::EgressAccount;
use super::event::McpServer;
use super::recorder::Recorder;
use super::step::Step;
use super::usage::{Usage, UsageByModel, UsageReport, UsageSource};
use super::wire_account::Reconciled;
use crate::run::{
    Allowance, Credentials, Exhausted, HostRule, Limits, NetworkMode, PermissionMode, ProviderName,
    ProviderTools, RunFailure, RunPlan, RunStatus, Verdict,
};

/// The version of `trajectory.json` that this program writes and reads.
pub const SCHEMA_VERSION: u32 = 1;

/// What stands where Jetty names a person or program as the author.
const AUTHOR: &str = "runbookd";

/// Everything that goes into `trajectory.json`.
#[derive(Debug, Clone, Copy)]
pub struct DocumentFacts<'a> {
    /// What the run was to do.
    pub plan: &'a RunPlan,
    /// Where its files lie, as clients ask for them.
    pub storage_path: &'a str,
    /// What its sandbox started from, once that is settled.
    pub started_from: Option<&'a StartedFrom>,
    /// What the client passed to the runbook, secrets left out.
    pub init_params: &'a Map<String, Value>,
    /// Where the run stands.
    pub status: &'a RunStatus,
    /// The times of its life.
    pub times: RunTimes,
    /// What the agent did.
    pub recorder: &'a Recorder,
    /// The settled usage.
    pub usage: &'a UsageReport,
    /// The same beside what was metered on the wire.
    pub reconciled: &'a Reconciled,
    /// What it tried to reach through its proxy, where it had one.
    pub egress: Option<&'a EgressAccount>,
    /// What it achieved.
    pub verdict: &'a Verdict,
    /// What was noticed beside the recorder's and the verdict's warnings, as sentences.
    pub notes: &'a [String],
    /// The files collected from `/app/results`.
    pub results: &'a [ResultFile],
    /// The other files of the run, such as the agent's log, as paths in the results directory.
    pub other_files: &'a [String],
}

/// What a sandbox started from, as it was in the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedFrom {
    /// The engine.
    pub engine: String,
    /// The snapshot, named or by default.
    pub snapshot: Option<String>,
    /// The image; none where the machine's own system stands in for one.
    pub image: Option<String>,
    /// The image's id: a name can move.
    pub image_id: Option<String>,
}

/// The times of a run's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunTimes {
    /// When it was asked for.
    pub created: Timestamp,
    /// When its agent started.
    pub started: Option<Timestamp>,
    /// When it reached a terminal status.
    pub ended: Option<Timestamp>,
    /// When this was written.
    pub updated: Timestamp,
}

impl RunTimes {
    fn duration_seconds(self) -> Option<f64> {
        let took = self.ended?.duration_since(self.started?);
        Some(took.as_secs_f64().max(0.0))
    }
}

/// A file that the run left in `/app/results`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultFile {
    /// Its path as clients ask for it.
    pub path: String,
    /// Its path relative to `/app/results`, as a runbook declares it.
    pub declared_path: String,
    /// Its size.
    pub n_bytes: u64,
}

/// `trajectory.json`.
#[derive(Debug, Serialize)]
pub struct TrajectoryDocument<'a> {
    schema_version: u32,
    name: String,
    trajectory_id: &'a str,
    storage_path: String,
    status: &'static str,
    attributes: Attributes<'a>,
    created: Timestamp,
    updated: Timestamp,
    author: &'static str,
    metadata_uri: String,
    steps: BTreeMap<&'a str, RunStep<'a>>,
    labels: [Value; 0],
    total_steps: [&'a str; 1],
    completed_steps: Vec<&'a str>,
    init_params: &'a Map<String, Value>,
    step_configs: BTreeMap<&'a str, Config<'a>>,
    org_id: Option<String>,
    resumed_from: Option<String>,
    error: Option<String>,
    failure: Option<FailureView<'a>>,
    verdict: VerdictView<'a>,
    warnings: Vec<String>,
    usage: UsageView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress: Option<&'a EgressAccount>,
    agent: AgentView<'a>,
    agent_steps: Vec<&'a Step>,
    n_agent_steps: u64,
    n_agent_steps_left_out: u64,
}

#[derive(Debug, Serialize)]
struct Attributes<'a> {
    asset_type: &'static str,
    asset_filename: &'static str,
    created: Timestamp,
    params: &'a Map<String, Value>,
}

/// The step in Jetty's sense: the whole work of the agent.
#[derive(Debug, Serialize)]
struct RunStep<'a> {
    inputs: Inputs<'a>,
    outputs: Outputs<'a>,
    activity: &'static str,
    key: &'a str,
    depends_on: [&'static str; 0],
    created: Option<Timestamp>,
    ended: Option<Timestamp>,
    duration_seconds: Option<f64>,
    author: &'static str,
    origin: Map<String, Value>,
    config: Config<'a>,
    status: &'static str,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Inputs<'a> {
    assets: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
struct Outputs<'a> {
    success: bool,
    agent: &'static str,
    model: &'a str,
    text: Option<&'a str>,
    num_files_saved: usize,
    results_files: Vec<FileView<'a>>,
    files: Vec<&'a str>,
    primary_files: Vec<&'a str>,
    usage: JettyUsage<'a>,
}

#[derive(Debug, Serialize)]
struct FileView<'a> {
    path: &'a str,
    content_type: &'static str,
    extension: &'a str,
    size: u64,
}

/// Usage in the words of Jetty's clients: `prompt_tokens` is all input, `input_tokens` the part of
/// it that did not touch the cache.
#[derive(Debug, Serialize)]
struct JettyUsage<'a> {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    input_tokens: u64,
    output_tokens: u64,
    cached_input_tokens: u64,
    cache_read_input_tokens: u64,
    cache_creation_input_tokens: u64,
    cost_usd: Option<f64>,
    duration_seconds: Option<f64>,
    model: &'a str,
}

/// What the run was made of, as it was decided.
#[derive(Debug, Clone, Serialize)]
struct Config<'a> {
    agent: &'static str,
    model: &'a str,
    model_provider: ProviderName,
    image: Option<&'a str>,
    snapshot: Option<&'a str>,
    apt_packages: &'a [String],
    started_from: Option<&'a StartedFrom>,
    network: NetworkMode,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    network_allow: &'a [HostRule],
    credentials: Credentials,
    #[serde(skip_serializing_if = "ProviderTools::is_empty")]
    provider_tools: &'a ProviderTools,
    permission_mode: PermissionMode,
    allowed_tools: Option<&'a [String]>,
    disallowed_tools: &'a [String],
    limits: &'a Limits,
    #[serde(skip_serializing_if = "Allowance::is_none")]
    allowance: Allowance,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u64>,
    mcp_servers: Vec<&'a str>,
    primary_outputs: &'a [String],
}

#[derive(Debug, Serialize)]
struct FailureView<'a> {
    code: &'static str,
    message: String,
    mend: &'static str,
    /// The limit that was reached; dollars are in millionths.
    #[serde(skip_serializing_if = "Option::is_none")]
    exhausted: Option<&'a Exhausted>,
}

#[derive(Debug, Serialize)]
struct VerdictView<'a> {
    passed: Option<bool>,
    #[serde(flatten)]
    verdict: &'a Verdict,
}

#[derive(Debug, Serialize)]
struct UsageView<'a> {
    source: UsageSource,
    total: Usage,
    models: &'a UsageByModel,
    #[serde(flatten)]
    reconciled: &'a Reconciled,
}

#[derive(Debug, Serialize)]
struct AgentView<'a> {
    name: &'static str,
    version: Option<&'a str>,
    session_ids: &'a [String],
    models_seen: Vec<&'a str>,
    mcp_servers: Vec<McpView<'a>>,
}

#[derive(Debug, Serialize)]
struct McpView<'a> {
    name: &'a str,
    status: &'a str,
}

impl<'a> TrajectoryDocument<'a> {
    /// Brings the facts into the file's shape.
    #[must_use]
    pub fn new(facts: &DocumentFacts<'a>) -> Self {
        let name = &facts.plan.name;
        let path = facts.storage_path.to_owned();
        let completed = matches!(facts.status, RunStatus::Completed);
        let failure = failure(facts.status);
        let step = facts.plan.step.as_str();
        Self {
            schema_version: SCHEMA_VERSION,
            name: format!("{}/{}", name.collection, name.task),
            trajectory_id: name.id.as_str(),
            metadata_uri: format!("{path}/trajectory.json"),
            storage_path: path,
            status: facts.status.as_str(),
            attributes: Attributes {
                asset_type: "trajectory",
                asset_filename: "trajectory.json",
                created: facts.times.created,
                params: facts.init_params,
            },
            created: facts.times.created,
            updated: facts.times.updated,
            author: AUTHOR,
            steps: BTreeMap::from([(step, run_step(facts))]),
            labels: [],
            total_steps: [step],
            completed_steps: if completed { vec![step] } else { Vec::new() },
            init_params: facts.init_params,
            step_configs: BTreeMap::from([(step, config(facts))]),
            org_id: None,
            resumed_from: facts.plan.former.as_ref().map(|former| former.name.to_string()),
            error: failure.map(RunFailure::to_string),
            failure: failure.map(|failure| FailureView {
                code: failure.code(),
                message: failure.to_string(),
                mend: failure.mend(),
                exhausted: failure.exhausted(),
            }),
            verdict: VerdictView { passed: facts.verdict.passed(), verdict: facts.verdict },
            warnings: warnings(facts),
            egress: facts.egress,
            usage: UsageView {
                source: facts.usage.source,
                total: facts.usage.by_model.total(),
                models: &facts.usage.by_model,
                reconciled: facts.reconciled,
            },
            agent: agent(facts),
            agent_steps: facts.recorder.steps().collect(),
            n_agent_steps: facts.recorder.n_steps(),
            n_agent_steps_left_out: facts.recorder.n_steps_left_out(),
        }
    }
}

fn failure(status: &RunStatus) -> Option<&RunFailure> {
    match status {
        RunStatus::Failed(failure) => Some(failure),
        RunStatus::Pending | RunStatus::Running | RunStatus::Completed | RunStatus::Cancelled => {
            None
        }
    }
}

fn run_step<'a>(facts: &DocumentFacts<'a>) -> RunStep<'a> {
    RunStep {
        inputs: Inputs {
            assets: facts.plan.assets.iter().map(|asset| asset.name.as_str()).collect(),
        },
        outputs: outputs(facts),
        activity: "runbook",
        key: &facts.plan.step,
        depends_on: [],
        created: facts.times.started,
        ended: facts.times.ended,
        duration_seconds: facts.times.duration_seconds(),
        author: AUTHOR,
        origin: Map::new(),
        config: config(facts),
        status: facts.status.as_str(),
        error: failure(facts.status).map(RunFailure::to_string),
    }
}

fn outputs<'a>(facts: &DocumentFacts<'a>) -> Outputs<'a> {
    let total = facts.usage.by_model.total();
    let results = facts.results.iter().map(|file| file.path.as_str());
    Outputs {
        success: matches!(facts.status, RunStatus::Completed),
        agent: facts.plan.runtime.as_str(),
        model: &facts.plan.model,
        text: facts.recorder.summary().last_result.as_ref().map(|result| result.text.as_str()),
        num_files_saved: facts.results.len(),
        results_files: facts.results.iter().map(file_view).collect(),
        files: results.chain(facts.other_files.iter().map(String::as_str)).collect(),
        primary_files: primary_files(facts),
        usage: JettyUsage {
            prompt_tokens: total.total_input(),
            completion_tokens: total.output,
            total_tokens: total.total(),
            input_tokens: total.input,
            output_tokens: total.output,
            cached_input_tokens: total.cache_read,
            cache_read_input_tokens: total.cache_read,
            cache_creation_input_tokens: total.cache_write(),
            cost_usd: total.cost_usd,
            duration_seconds: facts.times.duration_seconds(),
            model: &facts.plan.model,
        },
    }
}

/// The declared outputs that are there, in their order, as clients ask for them.
fn primary_files<'a>(facts: &DocumentFacts<'a>) -> Vec<&'a str> {
    let results = facts.results;
    let outputs = facts.verdict.primary_outputs.iter().filter(|output| output.exists);
    outputs
        .filter_map(|output| results.iter().find(|file| file.declared_path == output.path))
        .map(|file| file.path.as_str())
        .collect()
}

fn file_view(file: &ResultFile) -> FileView<'_> {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    FileView {
        path: &file.path,
        content_type: content_type(extension),
        extension,
        size: file.n_bytes,
    }
}

/// The media type that clients expect of an extension. What is not listed is bytes.
/// What a file is, by its extension.
#[must_use]
pub fn content_type(extension: &str) -> &'static str {
    match extension.to_ascii_lowercase().as_str() {
        "md" => "text/markdown",
        "txt" | "log" => "text/plain",
        "csv" => "text/csv",
        "html" | "htm" => "text/html",
        "json" => "application/json",
        "jsonl" | "ndjson" => "application/x-ndjson",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "svg" => "image/svg+xml",
        "webp" => "image/webp",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "pptx" => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        _ => "application/octet-stream",
    }
}

fn config<'a>(facts: &DocumentFacts<'a>) -> Config<'a> {
    let plan = facts.plan;
    Config {
        agent: plan.runtime.as_str(),
        model: &plan.model,
        model_provider: plan.provider,
        image: plan.base.image(),
        snapshot: plan.base.snapshot(),
        apt_packages: &plan.apt_packages,
        started_from: facts.started_from,
        network: plan.network.mode(),
        network_allow: plan.network.allowed(),
        credentials: plan.credentials,
        provider_tools: &plan.provider_tools,
        permission_mode: plan.permissions.mode,
        allowed_tools: plan.permissions.allowed.as_deref(),
        disallowed_tools: &plan.permissions.denied,
        limits: &plan.limits,
        allowance: plan.allowance,
        max_output_tokens: plan.max_output_tokens,
        // Only the names: a server's settings can hold credentials.
        mcp_servers: plan.mcp_servers.keys().map(String::as_str).collect(),
        primary_outputs: &plan.primary_outputs,
    }
}

/// Every warning there is, in one list for a person.
fn warnings(facts: &DocumentFacts<'_>) -> Vec<String> {
    let mut all = facts.plan.notes.clone();
    all.extend(facts.recorder.warnings());
    all.extend_from_slice(facts.notes);
    all.extend_from_slice(&facts.verdict.warnings);
    all
}

fn agent<'a>(facts: &DocumentFacts<'a>) -> AgentView<'a> {
    let summary = facts.recorder.summary();
    let server = |server: &'a McpServer| McpView { name: &server.name, status: &server.status };
    AgentView {
        name: facts.plan.runtime.as_str(),
        version: summary.agent_version.as_deref(),
        session_ids: &summary.session_ids,
        models_seen: summary.models_seen.iter().map(String::as_str).collect(),
        mcp_servers: summary.mcp_servers.iter().map(server).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_back::{DocumentError, TrajectoryHead, read_head};
    use std::time::Duration;

    use expect_test::expect_file;
    use uuid::Uuid;

    use super::*;
    use crate::run::{
        Asset, Base, DiskShare, Network, OutputCheck, RunId, RunName, RuntimeName, Slug,
    };
    use crate::trajectory::{
        AgentEvent, AgentResult, Block, Init, Message, ToolResult, ToolResults,
    };

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
        expect_file!["../../tests/golden/trajectory.json"].assert_eq(&written);
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
}
