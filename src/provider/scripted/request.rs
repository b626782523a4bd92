//! Reads a request of the Messages API as far as the script needs it: who is speaking, and at
//! which turn.

use serde_json::Value;

use super::script::Script;

/// What the agent CLI says when it asks for a summary because its context is full. All of its
/// wordings have both phrases; one alone could stand in a runbook.
const SUMMARY_REQUEST: [&str; 2] = ["Your task is to create a detailed summary of", "<summary>"];

/// Stands in a scripted summary before the number of turns that the summary replaces.
const TURNS_DONE: &str = "[scripted turns so far: ";

/// Opens the context that the agent CLI puts before a prompt.
const REMINDER: &str = "<system-reminder>";

/// The tool that starts sub-agents, by its new and its old name. A sub-agent never has it.
const AGENT_TOOLS: [&str; 2] = ["Agent", "Task"];

/// A phrase in the main loop's system prompt. It finds the main loop when its tools are switched
/// off; without it (the prompt was replaced), the tools decide.
const MAIN_PROMPT: &str = "You are an interactive agent that helps users";

/// Phrases in the system prompts of the agent CLI's built-in sub-agents. They find a sub-agent
/// that no `when` knows.
const SUBAGENT_PROMPTS: [&str; 3] = [
    "You are an agent for Claude Code",
    "You are a file search specialist for Claude Code",
    "You are a software architect and planning specialist for Claude Code",
];

/// Where a request for a message names its model and says whether it wants a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Envelope {
    /// In its body.
    Body,
    /// In its path. The body then names the version of the protocol instead.
    Path { model: String, stream: bool },
}

/// What the agent CLI asks for when it wants the session's title. Where the service can promise a
/// form (not on Bedrock, not on Vertex), the request's schema says it too.
const TITLE_REQUEST: &str = "Return JSON with a single \"title\" field";

/// A request for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) n_messages: usize,
    pub(super) voice: Voice,
    /// Turns that were answered before, of this conversation.
    pub(super) n_done: usize,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    Main,
    /// The sub-agent with this index in the script.
    Subagent(usize),
    UnknownSubagent,
    Side {
        /// Whether the answer must be JSON with a `title`.
        titled: bool,
    },
    Compaction,
}

impl Asked {
    /// Reads a request body.
    ///
    /// # Errors
    /// What Anthropic would say about it.
    pub(super) fn read(body: &[u8], envelope: Envelope, script: &Script) -> Result<Self, String> {
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| format!("the request body is not valid JSON: {error}"))?;
        let (model, stream) = match envelope {
            Envelope::Body => {
                let model = body["model"].as_str().ok_or("model: Field required")?;
                (model.to_owned(), body["stream"].as_bool().unwrap_or(false))
            }
            Envelope::Path { .. } if !body["anthropic_version"].is_string() => {
                return Err("anthropic_version: Field required".to_owned());
            }
            Envelope::Path { model, stream } => (model, stream),
        };
        let messages = body["messages"].as_array().ok_or("messages: Field required")?;
        let Some(first) = messages.first() else {
            return Err("messages: at least one message is required".to_owned());
        };
        Ok(Self {
            model,
            stream,
            n_messages: messages.len(),
            voice: voice(&body, first, messages.last().unwrap_or(first), script),
            n_done: n_turns_done(messages),
        })
    }
}

/// What a scripted summary ends with, so that the turns go on where they were.
pub(super) fn turns_done_note(n_done: usize) -> String {
    format!("{TURNS_DONE}{n_done}]")
}

fn voice(body: &Value, first: &Value, last: &Value, script: &Script) -> Voice {
    if texts(&last["content"])
        .any(|text| SUMMARY_REQUEST.iter().all(|phrase| text.contains(phrase)))
    {
        return Voice::Compaction;
    }
    let system_says = |phrase: &str| texts(&body["system"]).any(|text| text.contains(phrase));
    let tools = body["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let starts_agents = AGENT_TOOLS.iter().any(|name| tools.iter().any(|t| t["name"] == *name));
    if starts_agents || system_says(MAIN_PROMPT) {
        return Voice::Main;
    }
    // Tools that the service itself runs (web search) have no schema, and are side calls too.
    if !tools.iter().any(|tool| tool["input_schema"].is_object()) {
        let format = &body["output_config"]["format"]["schema"]["properties"];
        return Voice::Side { titled: format["title"].is_object() || system_says(TITLE_REQUEST) };
    }
    let prompt: Vec<&str> =
        texts(&first["content"]).filter(|text| !text.starts_with(REMINDER)).collect();
    let known = script
        .subagents
        .iter()
        .position(|subagent| prompt.iter().any(|text| text.contains(&subagent.when)));
    match known {
        Some(index) => Voice::Subagent(index),
        None if SUBAGENT_PROMPTS.into_iter().any(system_says) => Voice::UnknownSubagent,
        None => Voice::Main,
    }
}

/// Counts the assistant's answers. Messages of the assistant that follow each other are one
/// answer; a scripted summary counts for the turns it replaces.
fn n_turns_done(messages: &[Value]) -> usize {
    let mut n_done = 0;
    let mut in_answer = false;
    for message in messages {
        let is_answer = message["role"] == "assistant";
        if is_answer && !in_answer {
            n_done += 1;
        }
        in_answer = is_answer;
        if !is_answer && let Some(noted) = texts(&message["content"]).find_map(noted_turns) {
            n_done = noted;
        }
    }
    n_done
}

/// The number in a note made by [`turns_done_note`], if the text holds one.
fn noted_turns(text: &str) -> Option<usize> {
    let (_, rest) = text.rsplit_once(TURNS_DONE)?;
    rest.split_once(']')?.0.parse().ok()
}

/// The texts of a content that is a string or a list of blocks.
fn texts(content: &Value) -> impl Iterator<Item = &str> {
    let blocks = content.as_array().map(Vec::as_slice).unwrap_or_default();
    content.as_str().into_iter().chain(blocks.iter().filter_map(|block| block["text"].as_str()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn script() -> Script {
        Script::parse(
            "
turns: [{ text: a }]
subagents:
  - { when: count the files, turns: [{ text: b }] }
  - { when: list the files, turns: [{ text: c }] }
",
        )
        .unwrap()
    }

    fn asked(body: &Value) -> Asked {
        Asked::read(body.to_string().as_bytes(), Envelope::Body, &script()).unwrap()
    }

    fn tool(name: &str) -> Value {
        json!({ "name": name, "input_schema": { "type": "object" } })
    }

    const SUMMARY: &str = "CRITICAL: Respond with TEXT ONLY. Your task is to create a detailed \
        summary of the conversation so far: an <analysis> block, then a <summary> block.";

    #[test]
    fn each_request_is_known_by_its_voice() {
        let title = json!({ "schema": { "properties": { "title": { "type": "string" } } } });
        let reminder = "<system-reminder>count the files</system-reminder>";
        let cases = [
            ("hello", vec![tool("Agent"), tool("Bash")], "", Voice::Main),
            ("hello", vec![tool("Task"), tool("Bash")], "", Voice::Main),
            // The runbook tells what its sub-agent is to do, and stays the main loop.
            ("count the files", vec![tool("Agent")], "", Voice::Main),
            ("count the files", vec![tool("Bash")], MAIN_PROMPT, Voice::Main),
            ("hello", vec![], MAIN_PROMPT, Voice::Main),
            ("hello", vec![tool("Bash")], "You are a pirate.", Voice::Main),
            ("count the files", vec![tool("Bash")], "", Voice::Subagent(0)),
            ("list the files", vec![tool("Bash")], "", Voice::Subagent(1)),
            (reminder, vec![tool("Bash")], SUBAGENT_PROMPTS[1], Voice::UnknownSubagent),
            ("hello", vec![], "", Voice::Side { titled: false }),
            ("hello", vec![], TITLE_REQUEST, Voice::Side { titled: true }),
            (
                "hello",
                vec![json!({ "type": "web_search_20250305", "name": "web_search" })],
                "",
                Voice::Side { titled: false },
            ),
            (SUMMARY, vec![tool("Agent")], MAIN_PROMPT, Voice::Compaction),
            ("write a <summary>", vec![tool("Agent")], "", Voice::Main),
        ];
        for (prompt, tools, system, voice) in cases {
            let body = json!({
                "model": "m",
                "system": [{ "type": "text", "text": system }],
                "tools": tools,
                "messages": [{ "role": "user", "content": [{ "type": "text", "text": prompt }] }],
            });
            let expected =
                Asked { model: "m".to_owned(), stream: false, n_messages: 1, voice, n_done: 0 };
            assert_eq!(asked(&body), expected, "{body}");
        }
        let body = json!({
            "model": "m", "stream": true, "output_config": { "format": title },
            "messages": [{ "role": "user", "content": "hello" }],
        });
        assert_eq!(asked(&body).voice, Voice::Side { titled: true });
        assert!(asked(&body).stream);
    }

    #[test]
    fn a_path_is_believed_before_a_body() {
        let body = json!({
            "anthropic_version": "vertex-2023-10-16", "model": "of the body", "stream": true,
            "tools": [tool("Agent")], "messages": [{ "role": "user", "content": "hello" }],
        });
        let envelope = Envelope::Path { model: "of the path".to_owned(), stream: false };
        assert_eq!(
            Asked::read(body.to_string().as_bytes(), envelope, &script()),
            Ok(Asked {
                model: "of the path".to_owned(),
                stream: false,
                n_messages: 1,
                voice: Voice::Main,
                n_done: 0,
            })
        );
    }

    #[test]
    fn an_unreadable_request_is_refused_with_its_reason() {
        let cases = [
            (
                "{",
                "the request body is not valid JSON: EOF while parsing an object at line 1 column 1",
            ),
            ("{}", "model: Field required"),
            (r#"{"model":"m"}"#, "messages: Field required"),
            (r#"{"model":"m","messages":[]}"#, "messages: at least one message is required"),
        ];
        for (body, complaint) in cases {
            let read = Asked::read(body.as_bytes(), Envelope::Body, &script());
            assert_eq!(read, Err(complaint.to_owned()));
        }
        let envelope = Envelope::Path { model: "m".to_owned(), stream: true };
        let read = Asked::read(br#"{"messages":[]}"#, envelope, &script());
        assert_eq!(read, Err("anthropic_version: Field required".to_owned()));
    }

    /// A conversation of `n_turns` answers; an answer may come in several messages.
    fn conversation(first: &str, n_turns: usize, n_parts: usize) -> Value {
        let mut messages = vec![json!({ "role": "user", "content": first })];
        for _ in 0..n_turns {
            for part in 0..n_parts {
                let block = json!({ "type": "text", "text": format!("part {part}") });
                messages.push(json!({ "role": "assistant", "content": [block] }));
            }
            let result = json!({ "type": "tool_result", "content": "ok" });
            messages.push(json!({ "role": "user", "content": [result] }));
        }
        json!({ "model": "m", "tools": [tool("Agent")], "messages": messages })
    }

    proptest! {
        #[test]
        fn the_turn_is_the_number_of_answers(n_turns in 0_usize..20, n_parts in 1_usize..4) {
            prop_assert_eq!(asked(&conversation("go", n_turns, n_parts)).n_done, n_turns);
        }

        #[test]
        fn a_summary_counts_for_the_turns_it_replaces(before in 0_usize..50, n_turns in 0_usize..9) {
            let summary = format!("So far: much.\n{}\nGo on.", turns_done_note(before));
            prop_assert_eq!(asked(&conversation(&summary, n_turns, 1)).n_done, before + n_turns);
        }
    }
}
