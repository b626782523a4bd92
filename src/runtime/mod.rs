//! The agent dialects: argv, files to stage, and how each line of output reads.

pub mod claude_code;
mod invocation;

use crate::run::RuntimeName;
use crate::trajectory::AgentEvent;

pub use invocation::{Assignment, Invocation};

/// How to start an agent CLI for `assignment`.
#[must_use]
pub fn invocation(runtime: RuntimeName, assignment: &Assignment<'_>) -> Invocation {
    match runtime {
        RuntimeName::ClaudeCode => claude_code::invocation(assignment),
    }
}

/// What one line of an agent's output says. It cannot fail: what is not understood is an event too.
#[must_use]
pub fn parse_line(runtime: RuntimeName, line: &[u8]) -> AgentEvent {
    match runtime {
        RuntimeName::ClaudeCode => claude_code::parse_line(line),
    }
}
