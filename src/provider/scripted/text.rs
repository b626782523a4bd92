//! Reads what a turn says: tool calls, and texts that are written short and sent long.

use serde::de::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::checked::checked;
use super::script::ToolCall;

/// Longest text that one `text_repeat` may make, and all of a script's together, in bytes. The
/// agent CLI sends it back with each request, and 64 MiB is the largest request that is read.
pub(super) const MAX_REPEATED_BYTES: usize = 64 * 1024 * 1024;

/// The key that stands for a long text, beside `text` and inside a tool's input.
const TEXT_REPEAT: &str = "text_repeat";

/// A text that is written short and sent long.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, expecting = "`{ text: …, times: … }`")]
pub(super) struct Repeat {
    text: String,
    times: usize,
}

impl Repeat {
    pub(super) fn text(&self) -> Result<String, String> {
        match self.text.len().checked_mul(self.times) {
            Some(n_bytes) if n_bytes <= MAX_REPEATED_BYTES => Ok(self.text.repeat(self.times)),
            Some(_) | None => Err(format!(
                "`{TEXT_REPEAT}` makes more than {MAX_REPEATED_BYTES} bytes: lower `times`"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for ToolCall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expecting = "a tool and its input, such as `- Bash: { command: ls }`";
        checked::<Map<String, Value>, Self, D>(deserializer, expecting)
    }
}

impl TryFrom<Map<String, Value>> for ToolCall {
    type Error = String;

    /// Reads `Bash: { command: ls }`, or the longer `name: Bash, input: { command: ls }`.
    fn try_from(mut fields: Map<String, Value>) -> Result<Self, Self::Error> {
        let (name, input) = match fields.shift_remove("name") {
            Some(name) => (name, fields.shift_remove("input")),
            None => match fields.keys().next().cloned() {
                Some(name) => (Value::String(name.clone()), fields.shift_remove(&name)),
                None => (Value::Null, None),
            },
        };
        let Value::String(name) = name else {
            return Err("a tool has a name: write `- Bash: { command: ls }`".to_owned());
        };
        if let Some(extra) = fields.keys().next() {
            return Err(format!(
                "`{extra}` is one key too many: a tool is one entry of the list, \
                 such as `- {name}: {{ … }}`"
            ));
        }
        let input = match input.unwrap_or_default() {
            Value::Object(input) => input,
            Value::Null => Map::new(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(format!(
                    "the input of `{name}` must be a mapping, such as `{{ command: ls }}`"
                ));
            }
        };
        let input = input.into_iter().map(|(key, value)| Ok((key, expanded(value)?)));
        Ok(Self { name, input: input.collect::<Result<_, String>>()? })
    }
}

/// The value with each `{ text_repeat: { text, times } }` in it replaced by its text.
fn expanded(value: Value) -> Result<Value, String> {
    match value {
        Value::Object(mut fields) if fields.len() == 1 && fields.contains_key(TEXT_REPEAT) => {
            let repeat = fields.shift_remove(TEXT_REPEAT).unwrap_or_default();
            let repeat: Repeat = serde_json::from_value(repeat)
                .map_err(|error| format!("in `{TEXT_REPEAT}`: {error}"))?;
            repeat.text().map(Value::String)
        }
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| Ok((key, expanded(value)?)))
            .collect::<Result<_, String>>()
            .map(Value::Object),
        Value::Array(values) => {
            values.into_iter().map(expanded).collect::<Result<_, String>>().map(Value::Array)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(value),
    }
}
