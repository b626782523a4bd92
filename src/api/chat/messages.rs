//! The messages of a chat that carries a runbook out: which of them is the runbook, and what is left
//! for the agent to read after it.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::ChatError;
use crate::api::extract::from_json;

/// Longest prompt, in bytes. It is a request in words; what is larger is a file.
const MAX_PROMPT_BYTES: usize = 1 << 20;

/// What the messages say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Conversation {
    /// The system messages: the runbook, front matter and all.
    pub(super) runbook: Option<String>,
    /// Everything else, for the agent.
    pub(super) prompt: Option<String>,
}

/// Whose words a message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    System,
    User,
    Assistant,
}

#[derive(Deserialize)]
struct Body {
    messages: Option<Value>,
}

impl Conversation {
    /// Reads the messages of a body.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, ChatError> {
        let Body { messages } = from_json(bytes)?;
        let Some(Value::Array(messages)) = messages else {
            let problem = "it must be a list of messages, such as [{\"role\": \"user\", …}]";
            return Err(ChatError::field("messages", problem));
        };
        let mut said = Vec::new();
        for (index, message) in messages.into_iter().enumerate() {
            said.push(message_of(&format!("messages[{index}]"), message)?);
        }
        let system = said.iter().filter(|(role, _)| *role == Role::System);
        let runbook = system.map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n\n");
        let prompt = prompt(&said);
        if prompt.len() > MAX_PROMPT_BYTES {
            let problem = format!(
                "the user's messages have {} bytes and may have {MAX_PROMPT_BYTES}: send what is \
                 larger as a file",
                prompt.len()
            );
            return Err(ChatError::field("messages", problem));
        }
        let filled = |text: String| Some(text).filter(|text| !text.trim().is_empty());
        Ok(Self { runbook: filled(runbook), prompt: filled(prompt) })
    }
}

/// What the agent reads after the runbook. Where the assistant spoke too, everybody is named.
fn prompt(said: &[(Role, String)]) -> String {
    let is_conversation = said.iter().any(|(role, _)| *role == Role::Assistant);
    let words = said.iter().filter(|(_, text)| !text.trim().is_empty());
    let parts = words.filter_map(|(role, text)| match (role, is_conversation) {
        (Role::System, _) => None,
        (Role::User, false) => Some(text.clone()),
        (Role::User, true) => Some(format!("User: {text}")),
        (Role::Assistant, _) => Some(format!("Assistant: {text}")),
    });
    parts.collect::<Vec<_>>().join("\n\n")
}

fn message_of(at: &str, message: Value) -> Result<(Role, String), ChatError> {
    let Value::Object(mut message) = message else {
        return Err(ChatError::field(at, "it must be an object with `role` and `content`"));
    };
    let role = match message.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some(_) | None => {
            let problem = "a runbook reads messages of `system`, `user` and `assistant`";
            return Err(ChatError::field(format!("{at}.role"), problem));
        }
    };
    let text = match message.shift_remove("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            let parts = parts.into_iter().enumerate();
            let texts = parts.map(|(index, part)| part_of(&format!("{at}.content[{index}]"), part));
            texts.collect::<Result<Vec<_>, _>>()?.join("\n\n")
        }
        // What the assistant only did with tools has no words.
        None | Some(Value::Null) if role == Role::Assistant => String::new(),
        None | Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            let problem = "it must be a text, or a list of parts of the type `text`";
            return Err(ChatError::field(format!("{at}.content"), problem));
        }
    };
    Ok((role, text))
}

fn part_of(at: &str, part: Value) -> Result<String, ChatError> {
    let mut part = match part {
        Value::Object(part) => part,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    };
    let text = part.shift_remove("text");
    match (part.get("type").and_then(Value::as_str), text) {
        (Some("text"), Some(Value::String(text))) => Ok(text),
        _ => Err(ChatError::field(
            at,
            "a runbook reads parts of the type `text`: send images and documents as files \
             (POST /v1/files, then `jetty.files`)",
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(messages: &Value) -> Result<Conversation, ChatError> {
        Conversation::read(json!({ "messages": messages }).to_string().as_bytes())
    }

    fn says(runbook: Option<&str>, prompt: Option<&str>) -> Conversation {
        let text = |text: &str| text.to_owned();
        Conversation { runbook: runbook.map(text), prompt: prompt.map(text) }
    }

    #[test]
    fn system_messages_are_the_runbook_and_the_others_the_prompt() {
        for (messages, expected) in [
            (json!([]), says(None, None)),
            (json!([{"role": "system", "content": "# R"}]), says(Some("# R"), None)),
            (json!([{"role": "user", "content": "  "}]), says(None, None)),
            (
                json!([{"role": "system", "content": "# R"}, {"role": "user", "content": "Go."}]),
                says(Some("# R"), Some("Go.")),
            ),
            (
                json!([
                    {"role": "developer", "content": [{"type": "text", "text": "# R"}]},
                    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                    {"role": "system", "content": "more"},
                    {"role": "user", "content": "c"},
                ]),
                says(Some("# R\n\nmore"), Some("a\n\nb\n\nc")),
            ),
            (
                json!([
                    {"role": "user", "content": "Do it."},
                    {"role": "assistant", "content": null, "tool_calls": []},
                    {"role": "assistant", "content": "Done."},
                    {"role": "user", "content": "Again."},
                ]),
                says(None, Some("User: Do it.\n\nAssistant: Done.\n\nUser: Again.")),
            ),
        ] {
            assert_eq!(read(&messages).unwrap(), expected, "{messages}");
        }
    }

    #[test]
    fn what_an_agent_cannot_read_is_refused_with_its_place() {
        let long = "x".repeat(MAX_PROMPT_BYTES + 1);
        for (messages, field) in [
            (json!(null), "messages"),
            (json!("hello"), "messages"),
            (json!(["hello"]), "messages[0]"),
            (json!([{"content": "x"}]), "messages[0].role"),
            (json!([{"role": "tool", "content": "x"}]), "messages[0].role"),
            (json!([{"role": "user"}]), "messages[0].content"),
            (json!([{"role": "user", "content": 7}]), "messages[0].content"),
            (
                json!([{"role": "user", "content": [{"type": "text", "text": "a"},
                    {"type": "image_url", "image_url": {"url": "data:x"}}]}]),
                "messages[0].content[1]",
            ),
            (json!([{"role": "user", "content": long}]), "messages"),
        ] {
            match read(&messages) {
                Err(ChatError::Field { field: found, .. }) => assert_eq!(found, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }
}
