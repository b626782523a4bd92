//! What `/openapi.json` says of chats. The bodies are read and written field by field; these describe
//! them.
#![expect(dead_code, reason = "they describe what is read and written elsewhere")]

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

/// A request. Whatever else OpenAI's clients send is passed on to a model, and means nothing to a
/// runbook.
#[derive(Debug, ToSchema)]
pub(super) struct ChatBody {
    /// The model, of the agent or of a service. An agent's name (`claude-code`) leaves it to that.
    model: Option<String>,
    /// What was said.
    messages: Vec<ChatMessage>,
    /// Whether the answer comes piece by piece.
    stream: Option<bool>,
    /// How it comes then.
    stream_options: Option<StreamOptions>,
    /// How a runbook is carried out.
    jetty: Option<JettyBlock>,
}

/// A message. For a runbook, `system` (or `developer`) is the runbook, front matter and all; `user`
/// is what the agent reads after it.
#[derive(Debug, ToSchema)]
pub(super) struct ChatMessage {
    /// `system`, `developer`, `user` or `assistant`.
    role: String,
    /// A text, or a list of parts. Runbooks read parts of the type `text`.
    content: Option<Value>,
}

/// How a stream comes.
#[derive(Debug, ToSchema)]
pub(super) struct StreamOptions {
    /// Whether a chunk with the usage comes at the end.
    include_usage: Option<bool>,
}

/// How a runbook is carried out. Fields that are not known are noted in the answer.
#[derive(Debug, ToSchema)]
pub(super) struct JettyBlock {
    /// `true` carries the system message out as a runbook; without one, the task's own.
    runbook: Option<bool>,
    /// Where the runbook is, instead of a system message: `https://` alone, at most 1 MiB.
    runbook_url: Option<String>,
    /// The collection; the token's own where it is not named.
    collection: Option<String>,
    /// The task under which the run is kept; made where it is missing.
    task: Option<String>,
    /// The agent CLI.
    agent: Option<String>,
    /// The model service.
    model_provider: Option<String>,
    /// The named image that the sandbox starts from.
    snapshot: Option<String>,
    /// A container image, instead of a snapshot.
    image: Option<String>,
    /// Values for the runbook's template variables.
    template_variables: Option<BTreeMap<String, Value>>,
    /// Stored files, by path.
    file_paths: Option<Vec<String>>,
    /// Stored files, by id (`file-…`).
    files: Option<Vec<String>>,
    /// How many seconds to wait for the answer; then it is a 202 and the run goes on.
    timeout_hint: Option<f64>,
    /// How long the agent may work, in seconds.
    timeout_sec: Option<u64>,
    /// How many model turns it may take.
    max_turns: Option<u64>,
    /// The most dollars that it may cost.
    max_cost_usd: Option<f64>,
    /// The most tokens that it may use, of every kind.
    max_tokens: Option<u64>,
    /// The most requests to a model.
    max_requests: Option<u64>,
    /// Processors.
    cpus: Option<f64>,
    /// Memory, such as `4G`, or a number of bytes.
    memory: Option<Value>,
    /// How much of the disk the sandbox may hold, such as `16G`, or a number of bytes.
    disk: Option<Value>,
    /// What the sandbox can reach: `none`, `public`, `open`, or an object with `mode` and `allow`.
    network: Option<Value>,
    /// Whether the sandbox has a network.
    network_enabled: Option<bool>,
    /// Environment variables for the agent. Their values are not recorded.
    agent_env: Option<BTreeMap<String, String>>,
    /// Secrets for this run alone, under the names that the runbook declares.
    secret_params: Option<BTreeMap<String, String>>,
    /// MCP servers, as in `.mcp.json`.
    mcp_servers: Option<BTreeMap<String, Value>>,
    /// Who is told of the end.
    webhook_url: Option<String>,
    /// What signs that call.
    webhook_secret: Option<String>,
    /// Whether the run's events come in the stream too, as `jetty_event`.
    stream_events: Option<bool>,
    /// Whether a client that goes away stops the run.
    cancel_on_disconnect: Option<bool>,
}

/// A completion.
#[derive(Debug, ToSchema)]
pub(super) struct ChatCompletion {
    /// `chatcmpl-` and the run's id; while it goes on, its workflow id.
    id: String,
    /// Always `chat.completion`.
    object: String,
    /// When the run was asked for, in seconds.
    created: i64,
    /// The model that was asked for.
    model: String,
    /// The one answer. Its content is empty while the run goes on.
    choices: Vec<ChatChoice>,
    /// The tokens of the whole run.
    usage: ChatUsage,
    /// Which run it is and how it stands.
    jetty_metadata: JettyMetadata,
}

/// The answer.
#[derive(Debug, ToSchema)]
pub(super) struct ChatChoice {
    /// Always 0.
    index: u64,
    /// What the agent said last.
    message: ChatAnswer,
    /// `stop`, once the run has ended.
    finish_reason: Option<String>,
}

/// What the agent said last.
#[derive(Debug, ToSchema)]
pub(super) struct ChatAnswer {
    /// Always `assistant`.
    role: String,
    /// The text.
    content: String,
}

/// The tokens of a run.
#[derive(Debug, ToSchema)]
pub(super) struct ChatUsage {
    /// All that went in, cached or not.
    prompt_tokens: u64,
    /// All that came out.
    completion_tokens: u64,
    /// Both.
    total_tokens: u64,
}

/// Which run an answer is about.
#[derive(Debug, ToSchema)]
pub(super) struct JettyMetadata {
    /// The run's id.
    trajectory_id: String,
    /// Its name as one word.
    workflow_id: String,
    /// Where it belongs.
    collection: String,
    /// Where in the collection.
    task: String,
    /// Its folder.
    storage_path: String,
    /// `pending`, `running`, `completed`, `failed` or `cancelled`.
    status: Option<String>,
    /// What it achieved.
    verdict: Option<Value>,
    /// What a person should know, as sentences.
    notes: Option<Vec<String>>,
}

/// How a path of OpenAI's is answered that cannot be answered as it was wished.
#[derive(Debug, ToSchema)]
pub(in crate::api) struct OpenAiFailure {
    /// What is wrong.
    error: OpenAiError,
    /// Which run it is about, once there is one.
    jetty_metadata: Option<JettyMetadata>,
}

/// What is wrong.
#[derive(Debug, ToSchema)]
pub(super) struct OpenAiError {
    /// What is wrong and what to do.
    message: String,
    /// `invalid_request_error`, `run_error`, `server_error` and others.
    r#type: String,
    /// The field that is at fault.
    param: Option<String>,
    /// A stable word.
    code: Option<String>,
}
