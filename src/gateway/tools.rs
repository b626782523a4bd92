//! The tools of a request: which of them the agent carries out, and which the model service.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::blocks::each;
use crate::run::ProviderTool;

/// Most tools of one request. An agent with a dozen MCP servers has some hundred.
const MAX_TOOLS: usize = 10_000;

/// What a rule shows of a type, in characters.
const MAX_KIND_CHARS: usize = 64;

/// A tool with a schema of its own, which the agent carries out.
const CUSTOM: &str = "custom";

/// The tools that a service describes and the agent carries out. The day of their version follows.
const OF_THE_AGENT: [&str; 4] = ["bash_", "computer_", "memory_", "text_editor_"];

/// Looks through the tools of the same request, and reaches nothing else.
const SEARCHES_TOOLS: &str = "tool_search_tool_";

/// How the tools begin that a service carries out with a network of its own, and the grant that
/// opens them. What is neither here nor above is a service's too, and no grant opens it.
const OF_THE_SERVICE: [(&str, ProviderTool); 6] = [
    ("web_search", ProviderTool::WebSearch),
    ("web_fetch", ProviderTool::WebFetch),
    ("code_execution", ProviderTool::CodeExecution),
    ("mcp_toolset", ProviderTool::RemoteMcp),
    ("openrouter:web_search", ProviderTool::WebSearch),
    ("openrouter:web_fetch", ProviderTool::WebFetch),
];

#[derive(Deserialize)]
struct Tool {
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// The tools of a request, as far as the service carries them out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tools {
    n: usize,
    /// One for each grant that would open it; `None` where no grant does.
    of_the_service: BTreeMap<Option<ProviderTool>, String>,
}

impl Tools {
    /// Whether there are more than anybody has.
    pub(super) fn are_too_many(&self) -> bool {
        self.n > MAX_TOOLS
    }

    /// The types that the service carries out, and what opens them.
    pub(super) fn of_the_service(&self) -> impl Iterator<Item = (Option<ProviderTool>, &str)> {
        self.of_the_service.iter().map(|(opens, kind)| (*opens, kind.as_str()))
    }

    fn take(&mut self, tool: Tool) {
        self.n += 1;
        let Some(kind) = tool.kind.filter(|kind| !is_of_the_agent(kind)) else { return };
        let opens = OF_THE_SERVICE.iter().find(|(start, _)| kind.starts_with(start));
        let shown = || kind.chars().take(MAX_KIND_CHARS).collect();
        self.of_the_service.entry(opens.map(|(_, tool)| *tool)).or_insert_with(shown);
    }
}

/// Whether the agent carries out a tool of this type.
pub(super) fn is_of_the_agent(kind: &str) -> bool {
    let is_day = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit());
    let of_a_day = |start: &&str| kind.strip_prefix(*start).is_some_and(is_day);
    kind == CUSTOM || kind.starts_with(SEARCHES_TOOLS) || OF_THE_AGENT.iter().any(of_a_day)
}

impl<'de> Deserialize<'de> for Tools {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut tools = Self::default();
        each(from, |tool| tools.take(tool))?;
        Ok(tools)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_known_tools_of_the_agent_are_the_agents() {
        for (kind, expected) in [
            (None, None),
            (Some("custom"), None),
            (Some("bash_20250124"), None),
            (Some("text_editor_20250728"), None),
            (Some("computer_20250124"), None),
            (Some("memory_20250818"), None),
            (Some("tool_search_tool_regex_20251119"), None),
            (Some("web_search_20260209"), Some(Some(ProviderTool::WebSearch))),
            (Some("openrouter:web_search"), Some(Some(ProviderTool::WebSearch))),
            (Some("openrouter:web_fetch"), Some(Some(ProviderTool::WebFetch))),
            (Some("code_execution_20260120"), Some(Some(ProviderTool::CodeExecution))),
            (Some("mcp_toolset"), Some(Some(ProviderTool::RemoteMcp))),
            (Some("advisor_20260301"), Some(None)),
            (Some("agent_toolset_20260401"), Some(None)),
            (Some("openrouter:fusion"), Some(None)),
            (Some("bash_of_the_service"), Some(None)),
            (Some("computer_"), Some(None)),
            (Some("Custom"), Some(None)),
            (Some(""), Some(None)),
        ] {
            let tools: Tools = serde_json::from_value(json!([{"type": kind}])).unwrap();
            let found = tools.of_the_service().next().map(|(opens, _)| opens);
            assert_eq!(found, expected, "{kind:?}");
        }
    }

    #[test]
    fn more_tools_than_anybody_has_are_told() {
        let tools = |n| serde_json::from_value::<Tools>(vec![json!({}); n].into()).unwrap();
        assert!(!tools(MAX_TOOLS).are_too_many());
        assert!(tools(MAX_TOOLS + 1).are_too_many());
    }
}
