//! What a model service can do itself, on a network of its own, past everything that keeps a sandbox
//! in.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A tool of the model service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderTool {
    /// It searches the web.
    WebSearch,
    /// It fetches pages.
    WebFetch,
    /// It runs programs on a computer of its own.
    CodeExecution,
    /// It calls MCP servers.
    RemoteMcp,
    /// It fetches pictures and documents that are given by a URL.
    UrlMedia,
}

/// Some of them.
pub type ProviderTools = BTreeSet<ProviderTool>;

impl ProviderTool {
    /// Every tool.
    pub const ALL: [Self; 5] =
        [Self::WebSearch, Self::WebFetch, Self::CodeExecution, Self::RemoteMcp, Self::UrlMedia];

    /// The tool of that name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.as_str() == word)
    }

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebSearch => "web_search",
            Self::WebFetch => "web_fetch",
            Self::CodeExecution => "code_execution",
            Self::RemoteMcp => "remote_mcp",
            Self::UrlMedia => "url_media",
        }
    }

    /// Reads names with commas between them.
    ///
    /// # Errors
    /// A fragment that names the first one that there is not.
    pub fn list(text: &str) -> Result<ProviderTools, String> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(|word| Self::from_word(word).ok_or_else(|| unknown(word))).collect()
    }
}

impl fmt::Display for ProviderTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// That there is no tool of this name, with those that there are.
#[must_use]
pub fn unknown(word: &str) -> String {
    let names = ProviderTool::ALL.map(|tool| format!("`{tool}`")).join(", ");
    format!("`{word}` is no tool of a model service: write some of {names}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_tools_is_closed() {
        let all = ProviderTool::list(" web_search,web_fetch, code_execution,,remote_mcp,url_media");
        assert_eq!(all, Ok(ProviderTools::from(ProviderTool::ALL)));
        assert_eq!(ProviderTool::list(""), Ok(ProviderTools::new()));
        let unknown = ProviderTool::list("web_search, bash").unwrap_err();
        assert!(unknown.starts_with("`bash` is no tool of a model service"), "{unknown}");
        for tool in ProviderTool::ALL {
            let word = serde_json::to_value(tool).unwrap();
            assert_eq!(word, tool.as_str());
        }
    }
}
