//! How a run ended: what the agent said last, weighed against how its process ended.

use std::time::Duration;

use super::VERSION;
use super::failure::reported_failure;
use crate::run::{RunFailure, RunStatus};
use crate::trajectory::{AgentEvent, AgentResult, Summary, Usage, one_line};

/// Everything that decides how a run ended.
#[derive(Debug, Clone)]
pub struct OutcomeFacts<'a> {
    /// What the agent's lines add up to.
    pub summary: &'a Summary,
    /// How the agent's process ended.
    pub end: AgentEnd,
    /// Why we stopped it, if we did.
    pub stopped: Option<StopReason>,
    /// The last of its standard error, secrets masked.
    pub stderr_tail: &'a str,
    /// The provider's name.
    pub provider: &'a str,
    /// The environment variable that holds the provider's credential.
    pub credential: &'a str,
    /// The limit of turns that the agent was given.
    pub max_turns: Option<u32>,
}

/// How the agent's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentEnd {
    /// It ended itself with this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
    /// The kernel ended it because the sandbox's memory was used up.
    OutOfMemory {
        /// The limit in bytes.
        limit_bytes: u64,
    },
}

/// Why we stopped an agent.
#[derive(Debug, Clone, PartialEq)]
pub enum StopReason {
    /// The run took longer than it may.
    Timeout(Duration),
    /// Somebody stopped it.
    Cancelled,
    /// It wrote more than it may.
    OutputLimit {
        /// The limit in bytes.
        limit_bytes: u64,
    },
    /// Its process was still there long after its last result.
    Lingered,
    /// It could not succeed any more: what [`early_stop`] gave, or another failure that is already
    /// known.
    Failed(RunFailure),
}

/// The failure that an event makes certain, so that the agent need not be waited for: a refused
/// credential, which it would try for minutes, or a CLI that is not the pinned one.
#[must_use]
pub fn early_stop(event: &AgentEvent) -> Option<RunFailure> {
    match event {
        AgentEvent::Init(init) => wrong_version(&init.agent_version),
        AgentEvent::Retry(retry) => {
            let status = retry.status.filter(|status| matches!(status, 401 | 403))?;
            Some(RunFailure::AuthRefused {
                detail: format!("HTTP {status}, {}", one_line(&retry.error)),
            })
        }
        AgentEvent::Message(_)
        | AgentEvent::ToolResults(_)
        | AgentEvent::UserText(_)
        | AgentEvent::Compacted(_)
        | AgentEvent::Task(_)
        | AgentEvent::RateLimit(_)
        | AgentEvent::Result(_)
        | AgentEvent::Status(_)
        | AgentEvent::Hook(_)
        | AgentEvent::Notice(_)
        | AgentEvent::Partial
        | AgentEvent::Unknown { .. }
        | AgentEvent::Unparsed { .. } => None,
    }
}

fn wrong_version(found: &str) -> Option<RunFailure> {
    (found != VERSION).then(|| RunFailure::WrongAgentVersion {
        expected: VERSION.to_owned(),
        found: if found.is_empty() { "none".to_owned() } else { one_line(found) },
    })
}

/// Where the run stands now that the agent's process has ended. It is completed only when the
/// agent's last word is a success that asked a model at least once, and nothing contradicts it.
#[must_use]
pub fn outcome(facts: &OutcomeFacts<'_>) -> RunStatus {
    match &facts.stopped {
        Some(StopReason::Cancelled) => return RunStatus::Cancelled,
        Some(StopReason::Timeout(limit)) => {
            return RunStatus::Failed(RunFailure::Timeout { limit: *limit });
        }
        Some(StopReason::OutputLimit { limit_bytes }) => {
            return RunStatus::Failed(RunFailure::OutputLimit { limit_bytes: *limit_bytes });
        }
        Some(StopReason::Failed(failure)) => return RunStatus::Failed(failure.clone()),
        // It had said its last word: the word decides.
        Some(StopReason::Lingered) | None => {}
    }
    match failure(facts) {
        Some(failure) => RunStatus::Failed(failure),
        None => RunStatus::Completed,
    }
}

fn failure(facts: &OutcomeFacts<'_>) -> Option<RunFailure> {
    if let AgentEnd::OutOfMemory { limit_bytes } = facts.end {
        return Some(RunFailure::OutOfMemory { limit_bytes });
    }
    if let Some(wrong) = facts.summary.agent_version.as_deref().and_then(wrong_version) {
        return Some(wrong);
    }
    let Some(result) = &facts.summary.last_result else { return Some(no_result(facts)) };
    if facts.summary.went_on_after_result {
        return Some(no_result(facts));
    }
    if result.is_error || result.subtype != "success" {
        return Some(reported_failure(result, facts));
    }
    if result.n_turns == 0 || !asked_a_model(result, facts.summary) {
        let detail = format!("it said: {}", one_line(&result.text));
        return Some(RunFailure::DidNothing { detail });
    }
    ended_badly(facts)
}

/// Whether a model was asked: a reply was seen, or the agent's totals count one that was not shown.
fn asked_a_model(result: &AgentResult, summary: &Summary) -> bool {
    summary.n_replies > 0 || result.usage.iter().any(|(_, usage)| Usage::total(usage) > 0)
}

/// The failure of a process that ended badly after it had reported success. A process that we
/// stopped for lingering ends as we make it end.
fn ended_badly(facts: &OutcomeFacts<'_>) -> Option<RunFailure> {
    if facts.stopped == Some(StopReason::Lingered) || facts.end == AgentEnd::Exited(0) {
        return None;
    }
    let detail = format!("{}, after it had reported success", ending(facts));
    Some(RunFailure::AgentCrashed { detail })
}

/// The failure of a run whose agent never said how it went, or went on after it had said so.
fn no_result(facts: &OutcomeFacts<'_>) -> RunFailure {
    let Summary { n_lines, n_unparsed, .. } = facts.summary;
    let after = if facts.summary.went_on_after_result {
        "in the middle of a further turn, after an earlier result".to_owned()
    } else if *n_lines == 0 {
        "without a word on its standard output".to_owned()
    } else if *n_unparsed > 0 {
        format!("after {}, {n_unparsed} of them unreadable", lines(*n_lines))
    } else {
        format!("after {}", lines(*n_lines))
    };
    let detail = format!("{} {after}", ending(facts));
    match (facts.end, &facts.stopped) {
        (AgentEnd::Exited(0), _) | (_, Some(StopReason::Lingered)) => {
            RunFailure::NoResult { detail }
        }
        (AgentEnd::Exited(_) | AgentEnd::Signaled(_) | AgentEnd::OutOfMemory { .. }, _) => {
            RunFailure::AgentCrashed { detail }
        }
    }
}

fn lines(n: u64) -> String {
    if n == 1 { "1 line of output".to_owned() } else { format!("{n} lines of output") }
}

/// How the process ended, with the last of its standard error.
fn ending(facts: &OutcomeFacts<'_>) -> String {
    /// What of the standard error goes into a sentence, in bytes; the file has it all.
    const STDERR_BYTES: usize = 300;
    let end = match facts.end {
        _ if facts.stopped == Some(StopReason::Lingered) => "stopped while it lingered".to_owned(),
        AgentEnd::Exited(code) => format!("exit code {code}"),
        AgentEnd::Signaled(signal) => format!("signal {signal}"),
        AgentEnd::OutOfMemory { .. } => "out of memory".to_owned(),
    };
    let stderr = facts.stderr_tail.trim();
    if stderr.is_empty() {
        return end;
    }
    let start = stderr.ceil_char_boundary(stderr.len().saturating_sub(STDERR_BYTES));
    let words: Vec<&str> = stderr[start..].split_whitespace().collect();
    format!("{end} (standard error: {})", words.join(" "))
}

/// What looks wrong about an ending although it may be a success, as sentences for the verdict.
#[must_use]
pub fn end_warnings(facts: &OutcomeFacts<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    if facts.stopped == Some(StopReason::Lingered) {
        warnings.push(
            "The agent's process did not end after its result and was stopped: a background task \
             probably held it."
                .to_owned(),
        );
    }
    for description in facts.summary.open_tasks.values() {
        warnings.push(format!(
            "The background task \"{description}\" had not ended when the agent did; its work may \
             be missing."
        ));
    }
    let Some(result) = facts.summary.last_result.as_ref().filter(|result| !result.is_error) else {
        return warnings;
    };
    match result.stop_reason.as_deref() {
        Some("end_turn" | "stop_sequence") | None => {}
        Some(reason) => warnings.push(format!(
            "The model's last reply ended with `{}`, not at its own end: the work may be \
             unfinished.",
            one_line(reason)
        )),
    }
    if result.text.trim().is_empty() {
        warnings.push("The agent's final answer is empty.".to_owned());
    }
    warnings
}
