//! What a request would have the model service do beside answering: reach the network in the
//! agent's stead, past everything that keeps the sandbox in.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::blocks::{Gather, gather};
use crate::run::{ProviderTool, ProviderTools};

/// How the tools begin that the service itself carries out, with a network of its own. The ones
/// that the agent carries out have a schema, or one of the other names.
const SERVICE_TOOLS: [(&str, ProviderTool); 4] = [
    ("web_search", ProviderTool::WebSearch),
    ("web_fetch", ProviderTool::WebFetch),
    ("code_execution", ProviderTool::CodeExecution),
    ("mcp_toolset", ProviderTool::RemoteMcp),
];

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
    /// What it wants of the service's own tools.
    pub(super) wants: ProviderTools,
    /// Each rule that it breaks, as a fragment, with the tool that lifts it, where one does.
    rules: Vec<(Option<ProviderTool>, String)>,
}

impl Found {
    /// The first rule that it breaks, as a fragment, where these tools are granted.
    pub(super) fn broken_rule(&self, granted: &ProviderTools) -> Option<String> {
        let is_lifted =
            |tool: &Option<ProviderTool>| tool.is_some_and(|tool| granted.contains(&tool));
        let broken = self.rules.iter().find(|(tool, _)| !is_lifted(tool));
        broken.map(|(_, rule)| rule.clone())
    }
}

/// Reads a request's body; the error says why it cannot be read.
pub(super) fn inspect(body: &[u8]) -> Result<Found, serde_json::Error> {
    let body: Body = serde_json::from_slice(body)?;
    let rules = rules(&body);
    let wants = rules.iter().filter_map(|(tool, _)| *tool).collect();
    Ok(Found { model: body.model, wants, rules })
}

fn rules(body: &Body) -> Vec<(Option<ProviderTool>, String)> {
    let mut rules = Vec::new();
    let kinds = body.tools.iter().filter_map(|tool| tool.kind.as_deref());
    for kind in kinds {
        if let Some((_, tool)) = SERVICE_TOOLS.iter().find(|(start, _)| kind.starts_with(start)) {
            let kind: String = kind.chars().take(64).collect();
            let rule = format!("the tool `{kind}` is carried out by the model service");
            rules.push((Some(*tool), rule));
        }
    }
    let mut breaks = |tool, rule: &str| rules.push((tool, rule.to_owned()));
    if !body.mcp_servers.is_empty() {
        let rule = "`mcp_servers` are called by the model service";
        breaks(Some(ProviderTool::RemoteMcp), rule);
    }
    if body.container.is_some() {
        let rule = "a `container` is a computer of the model service";
        breaks(Some(ProviderTool::CodeExecution), rule);
    }
    let contents = body.messages.iter().map(|message| &message.content);
    let contents: Vec<&Content> = contents.chain([&body.system]).collect();
    if contents.iter().any(|content| has_media(content, "url", 0)) {
        let rule = "media that is given by a URL is fetched by the model service";
        breaks(Some(ProviderTool::UrlMedia), rule);
    }
    // No grant opens these: whose file it is cannot be known.
    if contents.iter().any(|content| has_media(content, "file", 0)) {
        breaks(None, "media that is given by a file's id is kept by the model service");
    }
    if contents.iter().any(|content| is_too_deep(content, 0)) {
        breaks(None, "content that is nested this deep is known to nobody but the model service");
    }
    rules
}

fn has_media(Content(blocks): &Content, from: &str, depth: usize) -> bool {
    depth <= MAX_DEPTH
        && blocks.iter().any(|block| {
            let source = block.source.as_ref().map_or("", |source| source.kind.as_str());
            source == from || has_media(&block.content, from, depth + 1)
        })
}

/// What is nested deeper than anything that is known is not understood, and so not let through.
fn is_too_deep(Content(blocks): &Content, depth: usize) -> bool {
    depth > MAX_DEPTH || blocks.iter().any(|block| is_too_deep(&block.content, depth + 1))
}

impl Gather for Content {
    type Block = Block;

    fn take(&mut self, block: Block) {
        self.0.push(block);
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        gather(from)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rule(body: Value) -> Option<String> {
        inspect(body.to_string().as_bytes()).unwrap().broken_rule(&ProviderTools::new())
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
        let model = Some("claude-sonnet-4-6".to_owned());
        assert_eq!(found, Found { model, wants: [].into(), rules: vec![] });
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
    fn a_grant_opens_its_own_tool_and_no_other() {
        let url = json!({"type": "image", "source": {"type": "url", "url": "https://x"}});
        let file = json!({"type": "image", "source": {"type": "file", "file_id": "file_1"}});
        let content = |block: &Value| json!({"messages": [{"role": "user", "content": [block]}]});
        for (tool, body) in [
            (ProviderTool::WebSearch, json!({"tools": [{"type": "web_search_20250305"}]})),
            (ProviderTool::WebFetch, json!({"tools": [{"type": "web_fetch_20250910"}]})),
            (ProviderTool::CodeExecution, json!({"tools": [{"type": "code_execution_20250825"}]})),
            (ProviderTool::CodeExecution, json!({"container": "container_1"})),
            (ProviderTool::RemoteMcp, json!({"mcp_servers": [{"type": "url"}]})),
            (ProviderTool::UrlMedia, content(&url)),
        ] {
            let found = inspect(body.to_string().as_bytes()).unwrap();
            assert_eq!(found.wants, ProviderTools::from([tool]));
            let opens = |granted: &ProviderTool| found.broken_rule(&[*granted].into()).is_none();
            let openers: Vec<ProviderTool> = ProviderTool::ALL.into_iter().filter(opens).collect();
            assert_eq!(openers, [tool], "{body}");
        }
        let found = inspect(content(&file).to_string().as_bytes()).unwrap();
        assert!(found.broken_rule(&ProviderTool::ALL.into()).is_some());
        let both = json!({"tools": [{"type": "web_search_1"}, {"type": "web_fetch_1"}]});
        let found = inspect(both.to_string().as_bytes()).unwrap();
        let rule = found.broken_rule(&[ProviderTool::WebSearch].into()).unwrap();
        assert!(rule.contains("web_fetch_1"), "{rule}");
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
