//! What a request would have the model service do beside answering: reach the network in the
//! agent's stead, past everything that keeps the sandbox in.

use std::fmt;

use serde::Deserialize;
use serde::de::{IgnoredAny, SeqAccess, Visitor};

/// How the tools begin that the service itself carries out, with a network of its own. The ones
/// that the agent carries out have a schema, or one of the other names.
const SERVICE_TOOLS: [&str; 4] = ["web_search", "web_fetch", "code_execution", "mcp_toolset"];

/// Deepest nesting of content. The agent CLI has results in messages and blocks in results.
const MAX_DEPTH: usize = 8;

/// What the gateway reads of a request's body. Everything else passes unread.
#[derive(Debug, Default, Deserialize)]
struct Body {
    model: Option<String>,
    #[serde(default)]
    tools: Vec<Tool>,
    #[serde(default)]
    mcp_servers: Vec<IgnoredAny>,
    container: Option<IgnoredAny>,
    #[serde(default)]
    messages: Vec<Message>,
    #[serde(default)]
    system: Content,
}

#[derive(Debug, Deserialize)]
struct Tool {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Message {
    #[serde(default)]
    content: Content,
}

/// Text, or blocks. Of blocks only where their media comes from.
#[derive(Debug, Default)]
struct Content(Vec<Block>);

#[derive(Debug, Deserialize)]
struct Block {
    source: Option<Source>,
    #[serde(default)]
    content: Content,
}

#[derive(Debug, Default, Deserialize)]
struct Source {
    #[serde(rename = "type", default)]
    kind: String,
}

/// What was found in a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The model that it asks for.
    pub(super) model: Option<String>,
    /// The first rule that it breaks, as a fragment.
    pub(super) broken_rule: Option<String>,
}

/// Reads a request's body; the error says why it cannot be read.
pub(super) fn inspect(body: &[u8]) -> Result<Found, serde_json::Error> {
    let body: Body = serde_json::from_slice(body)?;
    let broken_rule = broken_rule(&body);
    Ok(Found { model: body.model, broken_rule })
}

fn broken_rule(body: &Body) -> Option<String> {
    let kinds = body.tools.iter().filter_map(|tool| tool.kind.as_deref());
    for kind in kinds {
        if SERVICE_TOOLS.iter().any(|tool| kind.starts_with(tool)) {
            let kind: String = kind.chars().take(64).collect();
            return Some(format!("the tool `{kind}` is carried out by the model service"));
        }
    }
    if !body.mcp_servers.is_empty() {
        return Some("`mcp_servers` are called by the model service".to_owned());
    }
    if body.container.is_some() {
        return Some("a `container` is a computer of the model service".to_owned());
    }
    let contents = body.messages.iter().map(|message| &message.content);
    let mut contents = contents.chain([&body.system]);
    contents.any(|content| has_remote_media(content, 0)).then(|| {
        "media that is given by a URL or a file's id is fetched by the model service".to_owned()
    })
}

fn has_remote_media(Content(blocks): &Content, depth: usize) -> bool {
    // What is nested deeper than anything that is known is not understood, and so not let through.
    if depth > MAX_DEPTH {
        return true;
    }
    blocks.iter().any(|block| {
        let source = block.source.as_ref().map_or("", |source| source.kind.as_str());
        matches!(source, "url" | "file") || has_remote_media(&block.content, depth + 1)
    })
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or a list of blocks")
    }

    fn visit_str<E>(self, _: &str) -> Result<Content, E> {
        Ok(Content::default())
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut blocks: A) -> Result<Content, A::Error> {
        let mut content = Content::default();
        while let Some(block) = blocks.next_element()? {
            content.0.push(block);
        }
        Ok(content)
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, block: A) -> Result<Content, A::Error> {
        let block = Block::deserialize(serde::de::value::MapAccessDeserializer::new(block))?;
        Ok(Content(vec![block]))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rule(body: Value) -> Option<String> {
        inspect(body.to_string().as_bytes()).unwrap().broken_rule
    }

    #[test]
    fn what_the_agent_does_itself_may_pass() {
        let body = json!({
            "model": "claude-sonnet-4-6", "stream": true, "container": null, "mcp_servers": [],
            "system": [{"type": "text", "text": "You are…"}],
            "tools": [
                {"name": "Bash", "input_schema": {"properties": {"source": {"type": "url"}}}},
                {"type": "custom", "name": "mcp__a__b", "input_schema": {}},
                {"type": "bash_20250124", "name": "bash"},
            ],
            "messages": [
                {"role": "user", "content": "https://example.org"},
                {"role": "assistant", "content": [
                    {"type": "tool_use", "input": {"source": {"type": "url", "url": "https://x"}}}]},
                {"role": "user", "content": [{"type": "tool_result", "content": [
                    {"type": "image", "source": {"type": "base64", "data": "QQ=="}}]}]},
            ],
        });
        let found = inspect(body.to_string().as_bytes()).unwrap();
        assert_eq!(found, Found { model: Some("claude-sonnet-4-6".to_owned()), broken_rule: None });
    }

    #[test]
    fn what_the_service_would_do_on_the_network_is_found() {
        let image = json!({"type": "image", "source": {"type": "url", "url": "https://x/?secret"}});
        let file = json!({"type": "document", "source": {"type": "file", "file_id": "file_1"}});
        let nested = json!([{"type": "tool_result", "content": [image]}]);
        for body in [
            json!({"tools": [{"name": "Bash"}, {"type": "web_search_20250305", "name": "web_search"}]}),
            json!({"tools": [{"type": "web_fetch_20250910", "name": "f"}]}),
            json!({"tools": [{"type": "code_execution_20250825", "name": "c"}]}),
            json!({"tools": [{"type": "mcp_toolset"}]}),
            json!({"mcp_servers": [{"type": "url", "url": "https://x"}]}),
            json!({"container": {"skills": []}}),
            json!({"messages": [{"role": "user", "content": [image]}]}),
            json!({"messages": [{"role": "user", "content": image}]}),
            json!({"messages": [{"role": "user", "content": [file]}]}),
            json!({"messages": [{"role": "user", "content": nested}]}),
            json!({"system": [image]}),
        ] {
            assert!(rule(body.clone()).is_some(), "{body}");
        }
    }

    #[test]
    fn a_body_that_two_readers_could_read_differently_cannot_be_read() {
        for body in [
            r#"{"tools": [], "tools": [{"type": "web_search_20250305"}]}"#,
            r#"{"messages": [{"content": "a", "content": [{"source": {"type": "url"}}]}]}"#,
            r#"{"messages": [{"content": 5}]}"#,
            r#"{"tools": {"type": "web_search_20250305"}}"#,
            r#"["#,
            "",
        ] {
            assert!(inspect(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn content_that_is_nested_without_end_is_no_way_through() {
        let mut content = json!("end");
        for _ in 0..20 {
            content = json!([{"content": content}]);
        }
        assert!(rule(json!({"messages": [{"content": content}]})).is_some());
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(inspect(format!(r#"{{"system": {deep}}}"#).as_bytes()).is_err());
    }
}
