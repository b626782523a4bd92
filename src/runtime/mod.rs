//! The agent dialects: argv, files to stage, and how each line of output reads.

pub mod claude_code;
mod invocation;

use crate::run::{RunFailure, RunStatus, RuntimeName};
use crate::trajectory::{AgentEvent, ReplyLedger};

pub use claude_code::{AgentEnd, KnownLines, OutcomeFacts, SessionAccount, StopReason};
pub use invocation::{Assignment, Invocation, Session};

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

/// The failure that an event makes certain, so that the agent need not be waited for.
#[must_use]
pub fn early_stop(runtime: RuntimeName, event: &AgentEvent) -> Option<RunFailure> {
    match runtime {
        RuntimeName::ClaudeCode => claude_code::early_stop(event),
    }
}

/// How a run ended, now that its agent's process has.
#[must_use]
pub fn outcome(runtime: RuntimeName, facts: &OutcomeFacts<'_>) -> RunStatus {
    match runtime {
        RuntimeName::ClaudeCode => claude_code::outcome(facts),
    }
}

/// What looks wrong about an ending although it may be a success, as sentences.
#[must_use]
pub fn end_warnings(runtime: RuntimeName, facts: &OutcomeFacts<'_>) -> Vec<String> {
    match runtime {
        RuntimeName::ClaudeCode => claude_code::end_warnings(facts),
    }
}

/// Adds up the lines of a run's session files, but for those that a former run wrote, and completes
/// them with the stream's replies.
pub fn session_usage<L: AsRef<[u8]>>(
    runtime: RuntimeName,
    lines: impl IntoIterator<Item = L>,
    stream: &ReplyLedger,
    former: &KnownLines,
) -> SessionAccount {
    match runtime {
        RuntimeName::ClaudeCode => claude_code::session_usage(lines, stream, former),
    }
}

/// The lines of a former run's session files.
pub fn known_lines<L: AsRef<[u8]>>(
    runtime: RuntimeName,
    lines: impl IntoIterator<Item = L>,
) -> KnownLines {
    match runtime {
        RuntimeName::ClaudeCode => claude_code::known_lines(lines),
    }
}

/// What is wrong with a rule for the agent's tools, as a fragment with what to write instead.
#[must_use]
pub fn tool_rule_fault(runtime: RuntimeName, rule: &str) -> Option<String> {
    match runtime {
        RuntimeName::ClaudeCode => claude_code::tool_rule_fault(rule),
    }
}

/// Where the agent's configuration and session files are, inside the sandbox.
#[must_use]
pub fn sessions_folder(runtime: RuntimeName) -> &'static str {
    match runtime {
        RuntimeName::ClaudeCode => claude_code::SESSIONS,
    }
}

/// The folder below it with all conversations, and nothing of the agent's configuration.
#[must_use]
pub fn conversations_folder(runtime: RuntimeName) -> &'static str {
    match runtime {
        RuntimeName::ClaudeCode => claude_code::CONVERSATIONS,
    }
}

/// The main file of a conversation that began in `/app`, below the folder of the session files.
#[must_use]
pub fn session_file(runtime: RuntimeName, session_id: uuid::Uuid) -> String {
    match runtime {
        RuntimeName::ClaudeCode => claude_code::session_file(session_id),
    }
}

/// The version of a runtime's CLI that is pinned.
#[must_use]
pub fn version(runtime: RuntimeName) -> &'static str {
    match runtime {
        RuntimeName::ClaudeCode => claude_code::VERSION,
    }
}
