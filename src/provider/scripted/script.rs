//! A script as checked data: what is said at which turn, and what goes wrong before it.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::ledger::SentUsage;

/// Input tokens of an answer that does not say how many.
pub(super) const DEFAULT_INPUT_TOKENS: u64 = 100;

/// Bytes of a reply that are counted as one output token where the answer does not say how many.
const BYTES_PER_TOKEN: usize = 4;

/// What the model will say. Read from YAML by [`Script::parse`].
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    pub(super) model: Option<String>,
    pub(super) main: Vec<Turn>,
    pub(super) subagents: Vec<Subagent>,
    pub(super) side: Answer,
    pub(super) compaction: Answer,
    pub(super) after_end: AfterEnd,
}

impl Script {
    /// The model's name for display, where the script gives one. Replies name the model asked for.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }
}

/// The turns of the sub-agents whose first user message contains `when`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Subagent {
    pub(super) when: String,
    pub(super) turns: Vec<Turn>,
}

/// One place of a conversation: an answer, and what happens to the first requests for it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Turn {
    pub(super) disturbances: Vec<Disturbance>,
    /// `None` only at the end of a list that ends with a disturbance: then `after_end` answers.
    pub(super) answer: Option<Answer>,
}

/// A message of the assistant.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) thinking: Option<String>,
    pub(super) text: String,
    pub(super) tools: Vec<ToolCall>,
    pub(super) stop: StopReason,
    pub(super) usage: SentUsage,
    /// Before the first byte.
    pub(super) delay: Duration,
    /// Before each streamed delta.
    pub(super) chunk_delay: Duration,
}

impl Answer {
    /// A plain text, with the usage that is counted when a script gives none.
    pub(super) fn said(text: &str) -> Self {
        let mut answer = Self {
            thinking: None,
            text: text.to_owned(),
            tools: Vec::new(),
            stop: StopReason::EndTurn,
            usage: SentUsage { input: DEFAULT_INPUT_TOKENS, ..SentUsage::default() },
            delay: Duration::ZERO,
            chunk_delay: Duration::ZERO,
        };
        answer.usage.output = answer.default_output();
        answer
    }

    pub(super) fn default_output(&self) -> u64 {
        (self.n_bytes() / BYTES_PER_TOKEN).max(1) as u64
    }

    pub(super) fn n_bytes(&self) -> usize {
        let thinking = self.thinking.as_ref().map_or(0, String::len);
        thinking + self.text.len() + self.tools.iter().map(ToolCall::n_bytes).sum::<usize>()
    }
}

impl ToolCall {
    fn n_bytes(&self) -> usize {
        self.name.len() + serde_json::to_string(&self.input).map_or(0, |json| json.len())
    }
}

/// A call of one tool.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ToolCall {
    pub(super) name: String,
    pub(super) input: Map<String, Value>,
}

/// Why the model stopped, on Anthropic's wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StopReason {
    EndTurn,
    ToolUse,
    MaxTokens,
    Refusal,
    PauseTurn,
    StopSequence,
    ModelContextWindowExceeded,
}

impl StopReason {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::EndTurn => "end_turn",
            Self::ToolUse => "tool_use",
            Self::MaxTokens => "max_tokens",
            Self::Refusal => "refusal",
            Self::PauseTurn => "pause_turn",
            Self::StopSequence => "stop_sequence",
            Self::ModelContextWindowExceeded => "model_context_window_exceeded",
        }
    }
}

/// A fault and how many requests meet it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Disturbance {
    pub(super) fault: Fault,
    pub(super) times: Times,
}

/// How often a fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    Exactly(u32),
    Forever,
}

/// What goes wrong instead of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fault {
    /// The service says no, before the reply or as an `error` event inside the stream.
    Fail { failure: Failure, inside: Option<CutPoint> },
    /// The connection is cut.
    Drop(CutPoint),
    /// The request is read and never answered.
    Hang,
    /// Something that need not be Anthropic's protocol at all.
    Raw(RawReply),
}

/// A service that says no. What it does not name gets the name that its wire has for the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) status: u16,
    pub(super) kind: Option<String>,
    pub(super) message: Option<String>,
    /// Seconds in `retry-after`.
    pub(super) retry_after: Option<u32>,
}

/// Where a reply ends too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CutPoint {
    /// Nothing of the reply is sent.
    Before,
    /// The status and the headers are sent.
    AfterHeaders,
    /// The first block has begun and is not finished.
    MidBlock,
    /// The first block is finished.
    AfterBlock,
    /// The first `tool_use` block is finished; without one, the last block.
    AfterToolBlock,
}

/// A reply that is sent as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawReply {
    pub(super) status: u16,
    pub(super) content_type: String,
    pub(super) body: String,
}

/// What a request gets that asks for more turns than there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AfterEnd {
    /// A plain `Done.`
    Done,
    /// The last answering turn once more, without the disturbances above it.
    RepeatLast,
    /// An error 400 that says which turn is missing.
    Refuse,
}
