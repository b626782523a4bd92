//! The entries of a trajectory.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::clip::{Arguments, Clipped};
use super::event::TaskUsage;
use super::usage::Usage;

/// One entry of a trajectory. Part of `trajectory.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Its place among the steps, from 1. Numbers stay when steps between are left out.
    pub number: u64,
    /// The line of the agent's log that began it, from the caller's count.
    pub line: u64,
    /// When that line arrived.
    pub started: Timestamp,
    /// When it was over; `None` while it lasts, and for ever if its end never came.
    pub ended: Option<Timestamp>,
    /// The tool call whose sub-agent took this step; `None` in the main loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_tool_call: Option<String>,
    /// What it is.
    #[serde(flatten)]
    pub kind: StepKind,
}

impl Step {
    /// How long it took by the arrival of its lines, once it is over.
    #[must_use]
    pub fn took(&self) -> Option<Duration> {
        let ended = self.ended?;
        // A clock that was set back must not make a negative duration.
        Some(Duration::try_from(ended.duration_since(self.started)).unwrap_or_default())
    }

    /// How much it holds in memory, roughly, in bytes.
    pub(super) fn n_bytes(&self) -> usize {
        /// The fields of fixed size, and short names.
        const FIXED_BYTES: usize = 500;
        FIXED_BYTES
            + match &self.kind {
                StepKind::Message(message) => message.text.text.len() + message.thinking.text.len(),
                StepKind::ToolCall(call) => {
                    let result = call.result.as_ref();
                    call.input.n_bytes + result.map_or(0, |result| result.content.text.len())
                }
                StepKind::UserText { text, .. } | StepKind::Result { text, .. } => text.text.len(),
                StepKind::Retry { .. }
                | StepKind::Compaction { .. }
                | StepKind::Task { .. }
                | StepKind::RateLimit { .. } => 0,
            }
    }
}

/// What a step is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StepKind {
    /// A model's reply.
    Message(MessageStep),
    /// A tool call with its result.
    ToolCall(ToolCallStep),
    /// Text that was put before the model in the user's name.
    UserText {
        /// The text.
        text: Clipped,
        /// Whether the agent wrote it itself.
        synthetic: bool,
    },
    /// A request to the provider failed and was tried again.
    Retry {
        /// Which retry, from 1.
        attempt: u32,
        /// How many the agent makes.
        max_retries: u32,
        /// The HTTP status, where an answer came.
        status: Option<u16>,
        /// The agent's word for the error.
        error: String,
    },
    /// The conversation was replaced by a summary of itself.
    Compaction {
        /// Why.
        trigger: String,
        /// Tokens before.
        tokens_before: Option<u64>,
        /// Tokens after.
        tokens_after: Option<u64>,
    },
    /// A sub-agent or background command that no tool call of the record started.
    Task(TaskReport),
    /// The provider's word on the account's allowance.
    RateLimit {
        /// `allowed`, `allowed_warning` or `rejected`.
        status: String,
        /// Which allowance.
        allowance: String,
        /// The used share of it.
        utilization: Option<f64>,
    },
    /// The agent said how its turn ended.
    Result {
        /// Its word for the ending.
        subtype: String,
        /// Whether it calls it a failure.
        is_error: bool,
        /// The answer, or the text of the failure.
        text: Clipped,
    },
}

/// A model's reply: everything that came under one message id.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MessageStep {
    /// The provider's id of it.
    pub message_id: String,
    /// The model that wrote it.
    pub model: String,
    /// What it said.
    pub text: Clipped,
    /// What it thought, where it shows that.
    #[serde(skip_serializing_if = "Clipped::is_empty")]
    pub thinking: Clipped,
    /// Its usage as the agent knew it when the reply began: input counts are right, the output
    /// count may be a placeholder.
    pub usage_at_start: Usage,
    /// The agent's word for the error that it stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether the agent made it up itself.
    pub synthetic: bool,
}

/// A tool call with its result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ToolCallStep {
    /// The id of the reply that asked for it.
    pub message_id: String,
    /// The call's id.
    pub call_id: String,
    /// The tool.
    pub name: String,
    /// The arguments.
    pub input: Arguments,
    /// What came back; `None` while it is out.
    pub result: Option<ToolOutcome>,
    /// The sub-agent or background command that it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskReport>,
}

/// What a tool call gave back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToolOutcome {
    /// What the model saw.
    pub content: Clipped,
    /// Whether the tool says that it failed.
    pub is_error: bool,
}

/// What is known of a sub-agent or a background command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskReport {
    /// The agent's id of it.
    pub task_id: String,
    /// The agent's word for what it is.
    #[serde(rename = "task_kind")]
    pub kind: String,
    /// `running`, or how it ended in the agent's word.
    pub status: String,
    /// What it is about.
    pub description: String,
    /// What it used, as last reported.
    pub usage: Option<TaskUsage>,
}

/// What a live view should show next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepUpdate {
    /// The model said something.
    Said {
        /// The step's number.
        number: u64,
        /// The first line of it.
        text: String,
        /// All of it, up to a limit.
        content: String,
        /// What the limit cut off, in bytes.
        n_truncated_bytes: u64,
        /// Whether a sub-agent said it.
        in_sub_agent: bool,
    },
    /// A tool call began.
    Started {
        /// The step's number.
        number: u64,
        /// The tool and its most telling argument.
        title: String,
        /// Whether a sub-agent makes the call.
        in_sub_agent: bool,
    },
    /// A tool call is over.
    Finished {
        /// The step's number.
        number: u64,
        /// The tool and its most telling argument.
        title: String,
        /// How long it took.
        took: Duration,
        /// Whether the tool says that it failed.
        is_error: bool,
        /// Whether a sub-agent made the call.
        in_sub_agent: bool,
    },
    /// Something else that a person should see, as a sentence.
    Note(String),
}
