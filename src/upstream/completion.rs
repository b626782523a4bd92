//! What a model said, put together from one answer or from the chunks of a stream.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::provider::{Billed, estimate};

/// Text that is kept of one completion, in bytes, arguments of tools included. Models say at most
/// some hundreds of thousands.
const MAX_KEPT_BYTES: usize = 1 << 20;

/// Choices and tool calls that are kept of one completion, each.
const MAX_KEPT_PARTS: usize = 128;

/// Longest error text that is kept, in bytes.
const MAX_ERROR_BYTES: usize = 4096;

/// What a model said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Completion {
    /// The service's own id.
    pub id: Option<String>,
    /// The model, as the service names it.
    pub model: Option<String>,
    /// What it said, by the choice's number. A request has one unless it asks for more.
    pub choices: BTreeMap<u64, Choice>,
    /// What it counted.
    pub usage: Option<TokenCounts>,
    /// What the service says went wrong.
    pub error: Option<String>,
    /// Whether the stream said that it is over.
    pub is_done: bool,
    /// Whether it was too long to be read.
    pub is_unread: bool,
    /// What was left out, in bytes.
    pub n_truncated_bytes: u64,
    n_kept_bytes: usize,
}

/// One of the answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Choice {
    /// The text.
    pub text: String,
    /// What the model says instead of answering.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub refusal: String,
    /// The tools that it calls, by number.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tool_calls: BTreeMap<u64, ToolCall>,
    /// Why it ended.
    pub finish_reason: Option<String>,
}

/// A call of one of the client's tools.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ToolCall {
    /// Its id.
    pub id: Option<String>,
    /// The tool.
    pub name: String,
    /// The arguments, as the model wrote them.
    pub arguments: String,
}

/// What a service counted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TokenCounts {
    /// Input, what came from a cache included.
    pub prompt: u64,
    /// Output.
    pub completion: u64,
    /// Both, as the service adds them.
    pub total: u64,
    /// Input that came from a cache.
    pub cached: u64,
    /// What it cost in dollars, where the service says so.
    pub cost_usd: Option<f64>,
}

impl Completion {
    /// Whether it came to its end: the model gave a reason, or the stream said so. Of what was not
    /// read nothing else is known.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_done
            || self.is_unread
            || self.choices.values().any(|choice| choice.finish_reason.is_some())
    }

    /// Adds an answer or a chunk of a stream. What has another shape than expected is left alone.
    pub(super) fn add(&mut self, said: &Value) {
        let text = |key: &str| said.get(key).and_then(Value::as_str).map(str::to_owned);
        self.id = self.id.take().or_else(|| text("id"));
        self.model = self.model.take().or_else(|| text("model"));
        self.usage = said.get("usage").and_then(TokenCounts::read).or(self.usage);
        if let Some(error) = said.get("error").filter(|error| !error.is_null()) {
            self.error.get_or_insert_with(|| error_text(error));
        }
        for (place, choice) in
            said.get("choices").and_then(Value::as_array).into_iter().flatten().enumerate()
        {
            let number = choice.get("index").and_then(Value::as_u64).unwrap_or(place as u64);
            self.add_choice(number, choice);
        }
    }

    fn add_choice(&mut self, number: u64, said: &Value) {
        if !self.choices.contains_key(&number) && self.choices.len() >= MAX_KEPT_PARTS {
            return;
        }
        let mut choice = self.choices.remove(&number).unwrap_or_default();
        let message = ["delta", "message"].iter().find_map(|key| said.get(*key));
        if let Some(message) = message {
            match message.get("content") {
                Some(Value::String(text)) => self.keep(&mut choice.text, text),
                Some(Value::Array(parts)) => {
                    for text in parts.iter().filter_map(|part| part.get("text")?.as_str()) {
                        self.keep(&mut choice.text, text);
                    }
                }
                Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => {
                }
            }
            if let Some(refusal) = message.get("refusal").and_then(Value::as_str) {
                self.keep(&mut choice.refusal, refusal);
            }
            let calls = message.get("tool_calls").and_then(Value::as_array);
            for (place, call) in calls.into_iter().flatten().enumerate() {
                self.add_call(&mut choice, place, call);
            }
        }
        if let Some(reason) = said.get("finish_reason").and_then(Value::as_str) {
            choice.finish_reason = Some(reason.to_owned());
        }
        self.choices.insert(number, choice);
    }

    fn add_call(&mut self, choice: &mut Choice, place: usize, said: &Value) {
        let number = said.get("index").and_then(Value::as_u64).unwrap_or(place as u64);
        if !choice.tool_calls.contains_key(&number) && choice.tool_calls.len() >= MAX_KEPT_PARTS {
            return;
        }
        let call = choice.tool_calls.entry(number).or_default();
        if let Some(id) = said.get("id").and_then(Value::as_str) {
            call.id.get_or_insert_with(|| id.to_owned());
        }
        let part =
            |key: &str| said.get("function").and_then(|f| f.get(key)).and_then(Value::as_str);
        self.keep(&mut call.name, part("name").unwrap_or_default());
        self.keep(&mut call.arguments, part("arguments").unwrap_or_default());
    }

    /// Adds to a text while there is room.
    fn keep(&mut self, kept: &mut String, more: &str) {
        let room = MAX_KEPT_BYTES - self.n_kept_bytes;
        let n_kept = more.floor_char_boundary(room);
        kept.push_str(&more[..n_kept]);
        self.n_kept_bytes += n_kept;
        self.n_truncated_bytes += (more.len() - n_kept) as u64;
    }
}

/// What a completion cost in dollars, and how that is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Charge {
    /// The service says so.
    Reported(f64),
    /// Reckoned from the tokens.
    Estimated(f64),
    /// Nobody knows.
    Unknown,
}

impl TokenCounts {
    /// What they cost at a model that has one of these names.
    #[must_use]
    pub fn charge<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Charge {
        if let Some(cost) = self.cost_usd {
            return Charge::Reported(cost);
        }
        let billed = Billed {
            input: self.prompt - self.cached,
            output: self.completion,
            cache_read: self.cached,
            ..Billed::default()
        };
        let known = names.into_iter().find_map(|name| estimate(name, &billed));
        known.map_or(Charge::Unknown, Charge::Estimated)
    }

    fn read(usage: &Value) -> Option<Self> {
        let count = |value: &Value, key: &str| value.get(key).and_then(Value::as_u64);
        let (prompt, completion) =
            (count(usage, "prompt_tokens")?, count(usage, "completion_tokens").unwrap_or(0));
        let details = usage.get("prompt_tokens_details");
        let cached = details.and_then(|details| count(details, "cached_tokens")).unwrap_or(0);
        let cost = usage.get("cost").and_then(Value::as_f64);
        Some(Self {
            prompt,
            completion,
            total: count(usage, "total_tokens").unwrap_or(prompt.saturating_add(completion)),
            cached: cached.min(prompt),
            cost_usd: cost.filter(|cost| cost.is_finite() && *cost >= 0.0),
        })
    }
}

/// The sentence of an error, whose shape differs from service to service.
fn error_text(error: &Value) -> String {
    let message = error.get("message").and_then(Value::as_str);
    let text = message.or(error.as_str()).map_or_else(|| error.to_string(), str::to_owned);
    text[..text.floor_char_boundary(MAX_ERROR_BYTES)].to_owned()
}
