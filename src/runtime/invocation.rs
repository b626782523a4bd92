//! What a runtime needs to be started, in the sandbox's words but without a sandbox.

use crate::run::{McpServers, Permissions};

/// What a runtime must know of a run to be started.
#[derive(Debug)]
pub struct Assignment<'a> {
    /// The model, in the provider's spelling.
    pub model: &'a str,
    /// The whole prompt.
    pub instruction: &'a str,
    /// What the agent may do.
    pub permissions: &'a Permissions,
    /// MCP servers with valid names.
    pub mcp_servers: &'a McpServers,
    /// Model turns of the main loop; `None` is no limit.
    pub max_turns: Option<u32>,
    /// Most tokens of one answer; `None` leaves it to the runtime.
    pub max_output_tokens: Option<u64>,
    /// How often a failing request to the provider is tried again.
    pub model_retries: u32,
    /// The agent's session.
    pub session: Session,
}

/// The conversation that an agent has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// A new one of this id.
    New(uuid::Uuid),
    /// The one of this id, whose files are where the agent left them.
    Resumed(uuid::Uuid),
}

/// How to start an agent CLI. Paths are paths inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Arguments after the executable.
    pub args: Vec<String>,
    /// Environment variables. None of them is secret.
    pub env: Vec<(&'static str, String)>,
    /// Files that only the sandbox's owner may change.
    pub files: Vec<(String, Vec<u8>)>,
    /// What the CLI reads on its standard input, to its end.
    pub stdin: Vec<u8>,
    /// What a person should know about this start, as whole sentences.
    pub notes: Vec<String>,
}
