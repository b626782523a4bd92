//! How a run ended: what the agent said last, weighed against how its process ended.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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

/// Why we stopped an agent. Part of what the worker saves of a run's end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trajectory::{Init, Retry, UsageByModel};

    const OOM: AgentEnd = AgentEnd::OutOfMemory { limit_bytes: 1_000 };

    /// A result of three turns that asked a model.
    fn success() -> AgentResult {
        let mut usage = UsageByModel::default();
        usage.add("m", &Usage { input: 10, output: 2, ..Usage::default() });
        AgentResult {
            subtype: "success".to_owned(),
            n_turns: 3,
            text: "Done.".to_owned(),
            stop_reason: Some("end_turn".to_owned()),
            usage,
            ..AgentResult::default()
        }
    }

    fn summary(result: Option<AgentResult>) -> Summary {
        Summary {
            agent_version: Some(VERSION.to_owned()),
            model: Some("m".to_owned()),
            last_result: result,
            n_lines: 5,
            ..Summary::default()
        }
    }

    fn facts(summary: &Summary, end: AgentEnd, stopped: Option<StopReason>) -> OutcomeFacts<'_> {
        OutcomeFacts {
            summary,
            end,
            stopped,
            stderr_tail: "",
            provider: "anthropic",
            credential: "ANTHROPIC_API_KEY",
            max_turns: Some(7),
        }
    }

    /// The status's name, or the failure's code.
    fn judged(summary: &Summary, end: AgentEnd, stopped: Option<StopReason>) -> &'static str {
        match outcome(&facts(summary, end, stopped)) {
            RunStatus::Failed(failure) => failure.code(),
            status @ (RunStatus::Pending
            | RunStatus::Running
            | RunStatus::Completed
            | RunStatus::Cancelled) => status.as_str(),
        }
    }

    #[test]
    fn a_success_counts_only_when_nothing_contradicts_it() {
        let good = summary(Some(success()));
        let went_on = Summary { went_on_after_result: true, ..good.clone() };
        let wrong = Summary { agent_version: Some("2.1.127".to_owned()), ..good.clone() };
        let no_turns = summary(Some(AgentResult { n_turns: 0, ..success() }));
        let free = AgentResult { usage: UsageByModel::default(), ..success() };
        let no_model = summary(Some(free.clone()));
        let replied = Summary { n_replies: 1, ..summary(Some(free)) };
        let silent = summary(None);
        let exited = AgentEnd::Exited;
        for (summary, end, expected) in [
            (&good, exited(0), "completed"),
            (&replied, exited(0), "completed"),
            (&good, exited(1), "agent_crashed"),
            (&good, AgentEnd::Signaled(9), "agent_crashed"),
            (&good, OOM, "out_of_memory"),
            (&went_on, exited(0), "no_result"),
            (&went_on, exited(143), "agent_crashed"),
            (&wrong, exited(0), "wrong_agent_version"),
            (&no_turns, exited(0), "did_nothing"),
            (&no_model, exited(0), "did_nothing"),
            (&silent, exited(0), "no_result"),
            (&silent, exited(1), "agent_crashed"),
            (&silent, OOM, "out_of_memory"),
        ] {
            assert_eq!(judged(summary, end, None), expected, "{summary:?} {end:?}");
        }
    }

    #[test]
    fn our_reason_for_stopping_it_comes_first_but_lingering_leaves_the_last_word() {
        let good = summary(Some(success()));
        let silent = summary(None);
        let failed = summary(Some(AgentResult { is_error: true, ..success() }));
        let went_on = Summary { went_on_after_result: true, ..good.clone() };
        let auth = RunFailure::AuthRefused { detail: String::new() };
        for (summary, stopped, expected) in [
            (&good, StopReason::Cancelled, "cancelled"),
            (&good, StopReason::Timeout(Duration::from_secs(1)), "timeout"),
            (&good, StopReason::OutputLimit { limit_bytes: 1 }, "output_limit"),
            (&silent, StopReason::Failed(auth), "auth_refused"),
            (&good, StopReason::Lingered, "completed"),
            (&failed, StopReason::Lingered, "agent_failed"),
            (&went_on, StopReason::Lingered, "no_result"),
        ] {
            let end = AgentEnd::Signaled(9);
            assert_eq!(judged(summary, end, Some(stopped.clone())), expected, "{stopped:?}");
        }
    }

    #[test]
    fn a_reported_failure_is_known_by_its_most_telling_clue() {
        /// The status, the last error, the reason for stopping and the text of a result.
        type Clues = (Option<u16>, Option<&'static str>, &'static str, &'static str);
        const CASES: [(Clues, &str); 22] = [
            ((None, Some("authentication_failed"), "", "Not logged in · …"), "no_credentials"),
            (
                (
                    None,
                    Some("unknown"),
                    "",
                    "API Error: Could not load credentials from any providers",
                ),
                "no_credentials",
            ),
            ((Some(400), Some("billing_error"), "", "Credit balance is too low"), "out_of_credit"),
            ((Some(402), None, "", "API Error: 402"), "out_of_credit"),
            ((None, Some("invalid_request"), "refusal", "API Error: …"), "model_refused"),
            ((None, None, "", "Prompt is too long"), "prompt_too_long"),
            (
                (Some(400), None, "", "API Error: 400 prompt is too long: 210000 tokens"),
                "prompt_too_long",
            ),
            ((Some(413), None, "", "Request too large"), "prompt_too_long"),
            ((Some(401), None, "", "Invalid API key"), "auth_refused"),
            ((Some(403), None, "", "API Error: 403"), "auth_refused"),
            ((None, Some("oauth_org_not_allowed"), "", "x"), "auth_refused"),
            ((Some(404), None, "", "x"), "model_not_found"),
            ((Some(429), None, "", "x"), "rate_limited"),
            ((Some(529), Some("rate_limit"), "", "x"), "overloaded"),
            (
                (None, Some("server_error"), "", "API Error: Repeated 529 Overloaded errors."),
                "overloaded",
            ),
            ((None, Some("unknown"), "", "API Error: Request timed out"), "provider_unreachable"),
            (
                (None, Some("unknown"), "", "API Error: SSL certificate verification failed"),
                "provider_unreachable",
            ),
            (
                (Some(502), Some("server_error"), "", "API Error: 502 connection error"),
                "provider_error",
            ),
            ((Some(418), None, "", "x"), "provider_error"),
            (
                (None, Some("max_output_tokens"), "", "API Error: too many output tokens"),
                "agent_failed",
            ),
            ((None, None, "", "something of its own"), "agent_failed"),
            ((None, None, "aborted_tools", ""), "agent_failed"),
        ];
        for ((status, error, reason, text), expected) in CASES {
            let result = AgentResult {
                is_error: true,
                api_error_status: status,
                stop_reason: Some(reason.to_owned()),
                text: text.to_owned(),
                ..success()
            };
            let summary = Summary { last_error: error.map(str::to_owned), ..summary(Some(result)) };
            let code = judged(&summary, AgentEnd::Exited(1), None);
            assert_eq!(code, expected, "{status:?} {error:?} {reason} {text}");
        }
    }

    #[test]
    fn a_turn_limit_is_the_agents_word_else_the_one_it_was_given() {
        for (text, expected) in [("Reached maximum number of turns (3)", 3), ("", 7)] {
            let subtype = "error_max_turns".to_owned();
            let result = AgentResult { subtype, text: text.to_owned(), ..success() };
            let summary = summary(Some(result));
            let status = outcome(&facts(&summary, AgentEnd::Exited(1), None));
            assert_eq!(status, RunStatus::Failed(RunFailure::TurnLimit { limit: expected }));
        }
    }

    #[test]
    fn a_crash_quotes_the_end_of_the_standard_error() {
        let silent = Summary::default();
        let stderr = format!("{}\n  the last\n words\n", "é".repeat(1_000));
        let facts =
            OutcomeFacts { stderr_tail: &stderr, ..facts(&silent, AgentEnd::Exited(2), None) };
        let RunStatus::Failed(failure) = outcome(&facts) else { panic!("it did not fail") };
        let failure = failure.to_string();
        assert!(failure.contains("exit code 2 (standard error: é"), "{failure}");
        assert!(failure.contains("é the last words) without a word"), "{failure}");
        assert!(failure.len() < 500, "{failure}");
    }

    #[test]
    fn a_hopeless_run_is_stopped_early() {
        let init = |version: &str| {
            AgentEvent::Init(Init { agent_version: version.to_owned(), ..Init::default() })
        };
        let retry = |status| {
            let error = "authentication_failed".to_owned();
            AgentEvent::Retry(Retry { attempt: 1, max_retries: 10, delay_ms: 5, status, error })
        };
        for (event, expected) in [
            (init(VERSION), None),
            (init("2.1.127"), Some("wrong_agent_version")),
            (init(""), Some("wrong_agent_version")),
            (retry(Some(401)), Some("auth_refused")),
            (retry(Some(403)), Some("auth_refused")),
            (retry(Some(429)), None),
            (retry(None), None),
        ] {
            let code = early_stop(&event).map(|failure| failure.code());
            assert_eq!(code, expected, "{event:?}");
        }
    }

    #[test]
    fn a_success_that_looks_unfinished_is_warned_of() {
        let open_tasks = [("b1".to_owned(), "build it".to_owned())].into();
        let stop_reason = Some("pause_turn".to_owned());
        let result = AgentResult { stop_reason, text: " ".to_owned(), ..success() };
        let summary = Summary { open_tasks, ..summary(Some(result)) };
        let facts = facts(&summary, AgentEnd::Signaled(9), Some(StopReason::Lingered));
        assert_eq!(end_warnings(&facts).len(), 4, "{:#?}", end_warnings(&facts));
    }
}
