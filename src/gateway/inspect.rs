//! What a request would have the model service do beside answering: reach the network in the
//! agent's stead, past everything that keeps the sandbox in.
//!
//! `tools.rs` tells the service's tools from the agent's, `content.rs` where media come from. Here is
//! everything else that such a request can say, on every wire: a service that speaks Anthropic's may
//! know more words than Anthropic does.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::blocks::each;
use super::content::{Content, Message};
use super::headers::closed_beta;
use super::tools::Tools;
use crate::run::{ProviderTool, ProviderTools};

/// The plugin by which OpenRouter searches before it asks a model. Others have it read files, or
/// choose the model.
const WEB_PLUGIN: &str = "web";

/// What stands after a model's name where OpenRouter is to search first. The other variants
/// (`nitro`, `floor`, `free`, `extended`…) choose who answers, and nothing else.
const ONLINE: &str = "online";

/// What stands before a name of settings that an account at OpenRouter keeps: nobody here knows what
/// they say.
const PRESET: &str = "@preset/";

/// How an edit of the context begins that the service makes with a model.
const COMPACT: &str = "compact";

/// A rule that a request breaks, as a fragment, with the tool that lifts it, where one does.
type Rule = (Option<ProviderTool>, String);

/// What the gateway reads of a request's body. Everything else passes unread.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    model: Option<String>,
    tools: Tools,
    mcp_servers: Vec<IgnoredAny>,
    container: Option<IgnoredAny>,
    messages: Messages,
    system: Content,
    /// Of Bedrock and Vertex AI, where others have a header.
    anthropic_beta: Option<Betas>,
    context_management: Option<Edits>,
    /// Of OpenRouter, from here on.
    plugins: Option<Plugins>,
    web_search_options: Option<IgnoredAny>,
    models: Option<IgnoredAny>,
    fallbacks: Option<IgnoredAny>,
    route: Option<IgnoredAny>,
    preset: Option<IgnoredAny>,
}

/// The contents of all messages.
#[derive(Debug, Default)]
struct Messages(Content);

/// The first closed beta for each tool that opens it.
#[derive(Debug, Default)]
struct Betas(Vec<Rule>);

#[derive(Debug, Default)]
struct Plugins {
    has_web: bool,
    has_others: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Edits {
    edits: CompactOrNot,
}

#[derive(Debug, Default)]
struct CompactOrNot(bool);

/// What was found in a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The model that it asks for.
    pub(super) model: Option<String>,
    /// What it wants of the service's own tools.
    pub(super) wants: ProviderTools,
    rules: Vec<Rule>,
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
    let mut rules = tool_rules(&body);
    rules.extend(content_rules(body.messages.0.and(body.system)));
    rules.extend(service_rules(&body));
    let Body { model, anthropic_beta, .. } = body;
    rules.extend(anthropic_beta.unwrap_or_default().0);
    let wants = rules.iter().filter_map(|(tool, _)| *tool).collect();
    Ok(Found { model, wants, rules })
}

/// A list of rules, of those that are broken.
fn broken<const N: usize>(rules: [(bool, Option<ProviderTool>, &str); N]) -> Vec<Rule> {
    let broken = rules.into_iter().filter(|(is_broken, _, _)| *is_broken);
    broken.map(|(_, tool, rule)| (tool, rule.to_owned())).collect()
}

fn tool_rules(body: &Body) -> Vec<Rule> {
    let of_the_service = body.tools.of_the_service().map(|(tool, kind)| {
        let rule = match tool {
            Some(_) => "carried out by the model service, with a network of its own",
            None => "none that is known to be the agent's own",
        };
        (tool, format!("the tool `{kind}` is {rule}"))
    });
    let mut rules: Vec<Rule> = of_the_service.collect();
    rules.extend(broken([
        (body.tools.are_too_many(), None, "the request has more tools than any agent"),
        (
            !body.mcp_servers.is_empty(),
            Some(ProviderTool::RemoteMcp),
            "`mcp_servers` are called by the model service, with a network of its own",
        ),
        (
            body.container.is_some(),
            Some(ProviderTool::CodeExecution),
            "a `container` is a computer of the model service, with a network of its own",
        ),
    ]));
    rules
}

fn content_rules(content: Content) -> Vec<Rule> {
    broken([
        (
            content.has_urls,
            Some(ProviderTool::UrlMedia),
            "media that is given by a URL is fetched by the model service",
        ),
        // No grant opens these: whose file it is cannot be known.
        (
            content.has_files,
            None,
            "media that is given by a file's id is kept by the model service",
        ),
        (content.has_strangers, None, "media must be in the request itself"),
        (
            content.is_too_deep(),
            None,
            "content that is nested this deep is known to nobody but the model service",
        ),
        (content.is_too_long(), None, "the request has more blocks than any conversation"),
    ])
}

/// What no list has: neither the tools nor the messages.
fn service_rules(body: &Body) -> Vec<Rule> {
    let search = Some(ProviderTool::WebSearch);
    let model = body.model.as_deref().unwrap_or_default();
    let mut variants = model.split(':').skip(1);
    let is_online = variants.any(|variant| variant.trim().eq_ignore_ascii_case(ONLINE));
    let has = |f: fn(&Plugins) -> bool| body.plugins.as_ref().is_some_and(f);
    let chooses = body.models.or(body.fallbacks).or(body.route).is_some();
    let has_preset = body.preset.is_some() || model.to_ascii_lowercase().contains(PRESET);
    let is_compacted = body.context_management.as_ref().is_some_and(|edits| edits.edits.0);
    broken([
        (is_online, search, "a model that is `:online` searches the web"),
        (has(|plugins| plugins.has_web), search, "the plugin `web` searches the web"),
        (body.web_search_options.is_some(), search, "`web_search_options` search the web"),
        (has(|plugins| plugins.has_others), None, "`plugins` are programs of the model service"),
        (
            chooses,
            None,
            "the request must name its one model: `models`, `fallbacks` and `route` let the model \
             service choose",
        ),
        (has_preset, None, "nobody here knows what a `preset` of an account says"),
        (
            is_compacted,
            None,
            "a context that the model service compacts has costs that its answer does not tell",
        ),
    ])
}

impl<'de> Deserialize<'de> for Messages {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut sum = Content::default();
        each(from, |message: Message| sum = sum.and(message.into()))?;
        Ok(Self(sum))
    }
}

impl<'de> Deserialize<'de> for Betas {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut rules: Vec<Rule> = Vec::new();
        each(from, |beta: String| {
            if let Some(tool) = closed_beta(&beta)
                && rules.iter().all(|(known, _)| *known != tool)
            {
                let beta: String = beta.chars().take(64).collect();
                rules.push((tool, format!("the beta `{beta}` opens more of the model service")));
            }
        })?;
        Ok(Self(rules))
    }
}

impl<'de> Deserialize<'de> for Plugins {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Plugin {
            id: Option<String>,
        }

        let mut found = Self::default();
        each(from, |plugin: Plugin| match plugin.id.as_deref() {
            Some(WEB_PLUGIN) => found.has_web = true,
            Some(_) | None => found.has_others = true,
        })?;
        Ok(found)
    }
}

impl<'de> Deserialize<'de> for CompactOrNot {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Edit {
            #[serde(rename = "type")]
            kind: Option<String>,
        }

        let mut found = false;
        each(from, |edit: Edit| found |= edit.kind.is_some_and(|kind| kind.starts_with(COMPACT)))?;
        Ok(Self(found))
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
            json!({"system": [{"type": "document", "source": {"type": "content", "content": [image]}}]}),
            json!({"messages": [{"role": "user", "content": [{"type": "image", "source": {"s3Location": {}}}]}]}),
            json!({"tools": [{"type": "of_a_later_time"}]}),
            json!({"model": "m", "anthropic_beta": ["effort-1", "files-api-2025-04-14"]}),
            json!({"anthropic_beta": ["mcp-client-2025-11-20"]}),
            json!({"context_management": {"edits": [{"type": "compact_20260112"}]}}),
            json!({"messages": vec![json!({}); 100_001]}),
            json!({"tools": vec![json!({}); 10_001]}),
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
            (ProviderTool::RemoteMcp, json!({"anthropic_beta": ["mcp-client-2025-11-20"]})),
            (ProviderTool::WebSearch, json!({"plugins": [{"id": "web", "max_results": 3}]})),
            (ProviderTool::WebSearch, json!({"web_search_options": {}})),
            (ProviderTool::WebSearch, json!({"model": "openai/gpt-4o:online"})),
            (ProviderTool::WebSearch, json!({"model": "a/b:free:Online"})),
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
    fn what_lets_the_service_choose_what_is_asked_is_opened_by_nothing() {
        for body in [
            json!({"models": ["a/b", "c/d:online"]}),
            json!({"fallbacks": [{"model": "c/d:online"}]}),
            json!({"route": "fallback"}),
            json!({"preset": "made-up"}),
            json!({"model": "@preset/made-up"}),
            json!({"model": "a/b@preset/made-up"}),
            json!({"plugins": [{"id": "file-parser"}]}),
            json!({"plugins": [{"id": "web"}, {}]}),
        ] {
            let found = inspect(body.to_string().as_bytes()).unwrap();
            assert!(found.broken_rule(&ProviderTool::ALL.into()).is_some(), "{body}");
        }
        for body in [
            json!({"model": "anthropic/claude-sonnet-4.6:nitro", "plugins": [], "models": null}),
            json!({"model": "us.anthropic.claude-v1:0", "anthropic_beta": ["effort-2025-11-24"]}),
            json!({"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}}),
        ] {
            assert_eq!(rule(body.clone()), None, "{body}");
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
