//! A message on Anthropic's wire: ids, content blocks, usage.

use serde_json::{Map, Value, json};

use super::ledger::{Place, SentUsage};
use super::script::Answer;

/// What the wire wants as a thinking block's signature. It signs nothing.
const SIGNATURE: &str = "c2NyaXB0ZWQ=";

/// An answer with the names it has in one reply.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) blocks: Vec<Block>,
    pub(super) stop_reason: &'static str,
    pub(super) usage: SentUsage,
}

/// A content block.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Block {
    Thinking { text: String, signature: &'static str },
    Text(String),
    ToolUse { id: String, name: String, input: Map<String, Value> },
}

impl Message {
    /// The reply to the request number `attempt` (from 0) for `place`. Its ids are made of the two,
    /// so that they are unique and the same each time a script is played.
    pub(super) fn new(answer: &Answer, model: &str, place: &Place, attempt: u32) -> Self {
        let name = name(place, attempt);
        let thinking = answer
            .thinking
            .iter()
            .map(|text| Block::Thinking { text: text.clone(), signature: SIGNATURE });
        let text = (!answer.text.is_empty()).then(|| Block::Text(answer.text.clone()));
        let tools = answer.tools.iter().enumerate().map(|(index, tool)| Block::ToolUse {
            id: format!("toolu_{name}_{}", index + 1),
            name: tool.name.clone(),
            input: tool.input.clone(),
        });
        Self {
            blocks: thinking.chain(text).chain(tools).collect(),
            id: format!("msg_{name}"),
            model: model.to_owned(),
            stop_reason: answer.stop.as_str(),
            usage: answer.usage,
        }
    }

    /// The message as the body of a reply that is not streamed.
    pub(super) fn whole(&self) -> Value {
        let content: Vec<Value> = self.blocks.iter().map(Block::whole).collect();
        self.envelope(content, Some(self.stop_reason), self.usage)
    }

    /// The message as a stream begins it: no content yet, and one token of output.
    pub(super) fn opening(&self) -> Value {
        self.envelope(Vec::new(), None, self.usage_at_start())
    }

    /// The usage that `message_start` says.
    pub(super) fn usage_at_start(&self) -> SentUsage {
        SentUsage { output: 1, ..self.usage }
    }

    fn envelope(
        &self,
        content: Vec<Value>,
        stop_reason: Option<&'static str>,
        usage: SentUsage,
    ) -> Value {
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": null,
            "usage": {
                "input_tokens": usage.input,
                "cache_creation_input_tokens":
                    usage.cache_write_5m.saturating_add(usage.cache_write_1h),
                "cache_read_input_tokens": usage.cache_read,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": usage.cache_write_5m,
                    "ephemeral_1h_input_tokens": usage.cache_write_1h,
                },
                "output_tokens": usage.output,
                "service_tier": "standard",
            },
        })
    }
}

impl Block {
    fn whole(&self) -> Value {
        match self {
            Self::Thinking { text, signature } => {
                json!({ "type": "thinking", "thinking": text, "signature": signature })
            }
            Self::Text(text) => json!({ "type": "text", "text": text }),
            Self::ToolUse { id, name, input } => {
                json!({ "type": "tool_use", "id": id, "name": name, "input": input })
            }
        }
    }
}

/// What a place is called inside an id, such as `main_3` or, asked for again, `main_3_again_1`.
fn name(place: &Place, attempt: u32) -> String {
    let mut name = match place {
        Place::Main { turn } => format!("main_{turn}"),
        Place::Subagent { entry, turn } => format!("sub{entry}_{turn}"),
        Place::UnknownSubagent { turn } => format!("sub_{turn}"),
        Place::Side => "side".to_owned(),
        Place::Compaction => "compaction".to_owned(),
        Place::CountTokens | Place::Models | Place::Liveness | Place::Token | Place::Nowhere => {
            "none".to_owned()
        }
    };
    if attempt > 0 {
        name.push_str(&format!("_again_{attempt}"));
    }
    name
}
