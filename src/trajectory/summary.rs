//! What a recorder knows of a run beside its steps: enough to judge how it ended.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{AgentResult, McpServer};

/// What the agent's lines add up to, apart from the steps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// The agent's names for its conversations, in order. One, unless it was made to fork.
    pub session_ids: Vec<String>,
    /// The version that the CLI reports of itself.
    pub agent_version: Option<String>,
    /// The model that the main loop set out to ask.
    pub model: Option<String>,
    /// The models that answered, sub-agents' included.
    pub models_seen: BTreeSet<String>,
    /// The MCP servers as the first turn found them.
    pub mcp_servers: Vec<McpServer>,
    /// Turns of the process that began.
    pub n_inits: u64,
    /// Turns of the process that said how they ended.
    pub n_results: u64,
    /// The last word on how it ended, its texts cut to a step's size.
    pub last_result: Option<AgentResult>,
    /// Whether the main loop went on after that word, so that it is not the last one.
    pub went_on_after_result: bool,
    /// Different replies of models, sub-agents' included, the agent's own inventions not.
    pub n_replies: u64,
    /// The main loop's last error, unless a model's reply came after it.
    pub last_error: Option<String>,
    /// Requests that were tried again.
    pub n_retries: u64,
    /// Tool calls.
    pub n_tool_calls: u64,
    /// Tool results that say that the tool failed.
    pub n_tool_errors: u64,
    /// Times that the conversation was replaced by a summary of itself.
    pub n_compactions: u64,
    /// Sub-agents and background commands that have not ended, by id, with what they are about.
    pub open_tasks: BTreeMap<String, String>,
    /// Lines.
    pub n_lines: u64,
    /// Lines of a kind that the dialect does not know.
    pub n_unknown: u64,
    /// Lines that are not what the dialect speaks.
    pub n_unparsed: u64,
}
