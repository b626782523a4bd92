//! What an agent said, one event a line, in our words instead of its CLI's dialect.

use jiff::Timestamp;

use super::usage::{Usage, UsageByModel};

/// One line of an agent's output. Lines that a dialect does not know or cannot read are events too,
/// so that nothing is lost and nothing is an error.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentEvent {
    /// A turn of the agent's process begins. The first one opens the run.
    Init(Init),
    /// A part of a model's reply.
    Message(Message),
    /// What tool calls gave back.
    ToolResults(ToolResults),
    /// Text that was put before the model in the user's name: a sub-agent's prompt, a summary.
    UserText(UserText),
    /// A request to the provider failed and is tried again.
    Retry(Retry),
    /// The conversation was replaced by a summary of itself.
    Compacted(Compacted),
    /// A sub-agent or a background command began, moved on or ended.
    Task(Task),
    /// The provider's word on how much of the account's allowance is used.
    RateLimit(RateLimit),
    /// The agent says how its turn ended.
    Result(Box<AgentResult>),
    /// The agent says what it is busy with; `None` when it is done with that.
    Status(Option<String>),
    /// A hook ran.
    Hook(Hook),
    /// The agent's notice to a person.
    Notice(String),
    /// A fragment of a reply that a later [`AgentEvent::Message`] carries whole.
    Partial,
    /// A well-formed line of a kind that the dialect does not know.
    Unknown {
        /// The kind, as the line names it.
        kind: String,
    },
    /// A line that is not what the dialect speaks.
    Unparsed {
        /// What is wrong with it. Never quotes the line.
        reason: String,
    },
}

impl AgentEvent {
    /// When the agent wrote the line, by the sandbox's clock; few lines say so. It stands in for the
    /// time of arrival when a stored log is read again.
    #[must_use]
    pub fn own_time(&self) -> Option<Timestamp> {
        match self {
            Self::ToolResults(results) => results.timestamp,
            Self::UserText(text) => text.timestamp,
            Self::Init(_)
            | Self::Message(_)
            | Self::Retry(_)
            | Self::Compacted(_)
            | Self::Task(_)
            | Self::RateLimit(_)
            | Self::Result(_)
            | Self::Status(_)
            | Self::Hook(_)
            | Self::Notice(_)
            | Self::Partial
            | Self::Unknown { .. }
            | Self::Unparsed { .. } => None,
        }
    }
}

/// The beginning of a turn of the agent's process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Init {
    /// The agent's name for the conversation.
    pub session_id: String,
    /// The version that the CLI reports of itself.
    pub agent_version: String,
    /// The model that the main loop will ask.
    pub model: String,
    /// The tools that the agent starts with.
    pub tools: Vec<String>,
    /// The MCP servers and how far they got.
    pub mcp_servers: Vec<McpServer>,
    /// How the agent treats requests to use tools.
    pub permission_mode: String,
    /// Where the agent says its credential came from. "none" proves nothing.
    pub credential_source: String,
}

/// An MCP server as the agent sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpServer {
    /// Its configured name.
    pub name: String,
    /// How far it got, in the agent's word; `connected` is the good one.
    pub status: String,
}

/// A part of a model's reply. Several parts share one `message_id` and repeat its usage.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// The provider's id of the reply.
    pub message_id: String,
    /// The model that wrote it.
    pub model: String,
    /// The tool call that started the sub-agent which got this reply; `None` in the main loop.
    pub parent_tool_call: Option<String>,
    /// The reply's finished blocks.
    pub blocks: Vec<Block>,
    /// What the reply cost, as far as the agent knew when it wrote the line: input counts are
    /// right, the output count may be a placeholder.
    pub usage: Usage,
    /// The agent's word for the error that this message stands for.
    pub error: Option<String>,
    /// Whether the agent made the message up itself: no model was asked.
    pub synthetic: bool,
}

/// One block of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// Words for the reader.
    Text(String),
    /// The model's reasoning.
    Thinking(String),
    /// The model asks for a tool.
    ToolCall {
        /// The call's id, which the result repeats.
        id: String,
        /// The tool's name.
        name: String,
        /// The arguments, as the JSON text that the agent wrote.
        input: String,
    },
    /// Anything else, by its kind.
    Other {
        /// The kind, as the line names it.
        kind: String,
    },
}

/// What tool calls gave back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolResults {
    /// The tool call whose sub-agent made the calls; `None` in the main loop.
    pub parent_tool_call: Option<String>,
    /// One result for each call.
    pub results: Vec<ToolResult>,
    /// When the agent wrote the line, by the sandbox's clock.
    pub timestamp: Option<Timestamp>,
}

/// What one tool call gave back to the model. The CLI's second, structured copy is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolResult {
    /// The call's id.
    pub call_id: String,
    /// The text that the model sees; an image stands there as a note.
    pub content: String,
    /// Whether the tool says that it failed.
    pub is_error: bool,
}

/// Text that was put before the model in the user's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserText {
    /// The tool call whose sub-agent gets the text; `None` in the main loop.
    pub parent_tool_call: Option<String>,
    /// The text.
    pub text: String,
    /// Whether the agent wrote it itself, as it does after a compaction.
    pub synthetic: bool,
    /// When the agent wrote the line, by the sandbox's clock.
    pub timestamp: Option<Timestamp>,
}

/// A request to the provider failed and is tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Which retry this is, from 1.
    pub attempt: u32,
    /// How many the agent will make.
    pub max_retries: u32,
    /// How long it waits first, in milliseconds.
    pub delay_ms: u64,
    /// The HTTP status; `None` where no answer came.
    pub status: Option<u16>,
    /// The agent's word for the error.
    pub error: String,
}

/// The conversation was replaced by a summary of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Why: `auto` when the agent found it too long.
    pub trigger: String,
    /// Tokens before.
    pub tokens_before: Option<u64>,
    /// Tokens after.
    pub tokens_after: Option<u64>,
}

/// News of a sub-agent or a background command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The agent's id of the task.
    pub task_id: String,
    /// The tool call that started it, where the line names it.
    pub tool_call: Option<String>,
    /// What happened to it.
    pub stage: TaskStage,
    /// What it is about, in the agent's words.
    pub description: String,
    /// What it used so far, where the line says so.
    pub usage: Option<TaskUsage>,
}

/// How far a task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskStage {
    /// It began. `kind` is the agent's word: a sub-agent or a command.
    Started {
        /// The agent's word for what it is.
        kind: String,
    },
    /// It works. `tool` is what it used last.
    Progress {
        /// The tool that it used last.
        tool: Option<String>,
    },
    /// It ended, in the agent's word: `completed`, `failed` or `stopped`.
    Ended {
        /// How it ended.
        status: String,
    },
    /// Something about it changed that does not end it.
    Updated,
}

/// What a task used. The agent gives one number for all its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct TaskUsage {
    /// Tokens of all kinds.
    pub total_tokens: u64,
    /// Tool calls.
    pub tool_uses: u64,
    /// How long it worked, in milliseconds.
    pub duration_ms: u64,
}

/// The provider's word on the account's allowance.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RateLimit {
    /// `allowed`, `allowed_warning` or `rejected`.
    pub status: String,
    /// Which allowance: `five_hour` and others.
    pub kind: String,
    /// The used share of it, 1.0 being all.
    pub utilization: Option<f64>,
    /// When it starts anew, in seconds since 1970.
    pub resets_at: Option<i64>,
}

/// How a turn of the agent's process ended, in the agent's words.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AgentResult {
    /// The agent's name for the conversation.
    pub session_id: String,
    /// Its word for the ending. Alone it says nothing: failures of the API say `success`.
    pub subtype: String,
    /// Whether it calls the ending a failure. A result that does not say counts as one.
    pub is_error: bool,
    /// The provider's HTTP status, where that is what ended it.
    pub api_error_status: Option<u16>,
    /// The final answer, or the text of the failure.
    pub text: String,
    /// The failures that it lists.
    pub errors: Vec<String>,
    /// Turns of the main loop, as the agent counts them.
    pub n_turns: u64,
    /// Why the model stopped.
    pub stop_reason: Option<String>,
    /// Why the main loop stopped. Failures of the API say `completed`.
    pub terminal_reason: Option<String>,
    /// From the turn's start to its end, in milliseconds.
    pub duration_ms: u64,
    /// Of that, waiting for the provider, in milliseconds.
    pub duration_api_ms: u64,
    /// What the whole process has used until now, by model. Complete, unlike the sum of messages;
    /// cache writes are not split by their lifetime.
    pub usage: UsageByModel,
    /// The process's whole cost until now at list prices, where the agent says so.
    pub cost_usd: Option<f64>,
    /// The names of the tools that it was not allowed to use, once for each refusal.
    pub permission_denials: Vec<String>,
}

/// A hook ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// Its exit code, once it ended.
    pub exit_code: Option<i64>,
}
