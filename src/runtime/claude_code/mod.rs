//! Claude Code: how its lines read, and what its end means.

mod failure;
#[cfg(test)]
mod golden;
mod invocation;
mod outcome;
mod parse;
mod session;
mod tools;
mod wire;

pub use invocation::{SESSIONS, invocation};
pub use outcome::{AgentEnd, OutcomeFacts, StopReason, early_stop, end_warnings, outcome};
pub use parse::parse_line;
pub use session::{
    CONVERSATIONS, KnownLines, SessionAccount, known_lines, session_file, session_usage,
};
pub use tools::tool_rule_fault;

/// The one version of the CLI that runbookd drives. What this room knows was recorded with it.
pub const VERSION: &str = "2.1.126";
