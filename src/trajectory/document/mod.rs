//! `trajectory.json`: the record of a run as a file, in the shape that Jetty's clients read, with
//! our additions under keys of their own.

#[cfg(test)]
mod tests;

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
