//! What a result that reports a failure means: the table from the CLI's words to ours.

use super::outcome::OutcomeFacts;
use crate::run::RunFailure;
use crate::trajectory::AgentResult;

/// Longest quotation of the agent in a failure, in bytes. The trajectory has the whole.
const DETAIL_BYTES: usize = 1_000;

/// One row: any one of the clues is enough, and the first row that has one decides.
struct Rule {
    cause: Cause,
    /// HTTP statuses.
    statuses: &'static [u16],
    /// The CLI's words for the error, on its last made-up message.
    errors: &'static [&'static str],
    /// Values of `stop_reason` and `terminal_reason`.
    reasons: &'static [&'static str],
    /// Parts of the result's text, in lower case.
    texts: &'static [&'static str],
}

#[derive(Clone, Copy)]
enum Cause {
    NoCredentials,
    OutOfCredit,
    ModelRefused,
    PromptTooLong,
    AuthRefused,
    ModelNotFound,
    RateLimited,
    Overloaded,
    OutputTooLong,
    ProviderError,
    ProviderUnreachable,
}

/// A row without clues, for the rows to fill in.
const NO_CLUES: Rule =
    Rule { cause: Cause::ProviderError, statuses: &[], errors: &[], reasons: &[], texts: &[] };

/// From the most telling clue to the least: the CLI gives a missing login the word of a refused one,
/// an empty account the status of a bad request, and an overload the word of a rate limit.
const RULES: [Rule; 11] = [
    Rule {
        cause: Cause::NoCredentials,
        texts: &["not logged in", "could not load credentials"],
        ..NO_CLUES
    },
    Rule {
        cause: Cause::OutOfCredit,
        statuses: &[402],
        errors: &["billing_error"],
        texts: &["credit balance is too low"],
        ..NO_CLUES
    },
    Rule { cause: Cause::ModelRefused, reasons: &["refusal"], ..NO_CLUES },
    Rule {
        cause: Cause::PromptTooLong,
        statuses: &[413],
        reasons: &["prompt_too_long", "blocking_limit", "model_context_window_exceeded"],
        texts: &["prompt is too long"],
        ..NO_CLUES
    },
    Rule {
        cause: Cause::AuthRefused,
        statuses: &[401, 403],
        errors: &["authentication_failed", "oauth_org_not_allowed"],
        ..NO_CLUES
    },
    Rule {
        cause: Cause::ModelNotFound,
        statuses: &[404],
        texts: &["issue with the selected model"],
        ..NO_CLUES
    },
    Rule {
        cause: Cause::Overloaded,
        statuses: &[529],
        texts: &["overloaded_error", "529 overloaded"],
        ..NO_CLUES
    },
    Rule { cause: Cause::RateLimited, statuses: &[429], errors: &["rate_limit"], ..NO_CLUES },
    Rule { cause: Cause::OutputTooLong, errors: &["max_output_tokens"], ..NO_CLUES },
    Rule {
        cause: Cause::ProviderUnreachable,
        texts: &[
            "unable to connect",
            "connection was closed",
            "connection error",
            "request timed out",
            "certificate",
            "cannot be parsed as a url",
            "econnreset",
        ],
        ..NO_CLUES
    },
    Rule {
        cause: Cause::ProviderError,
        errors: &["server_error", "invalid_request", "unknown"],
        texts: &["api error"],
        ..NO_CLUES
    },
];

/// The failure that `result` reports.
pub(super) fn reported_failure(result: &AgentResult, facts: &OutcomeFacts<'_>) -> RunFailure {
    let detail = detail(result);
    match result.subtype.as_str() {
        "error_max_turns" => RunFailure::TurnLimit { limit: turn_limit(result, facts) },
        "error_max_budget_usd" => RunFailure::BudgetExceeded { detail, exhausted: None },
        _ => match cause(result, facts.summary.last_error.as_deref()) {
            Some(cause) => known_failure(cause, result.api_error_status, detail, facts),
            None => RunFailure::AgentFailed { detail: own_failure(result, detail) },
        },
    }
}

fn cause(result: &AgentResult, error: Option<&str>) -> Option<Cause> {
    let text = result.text.to_lowercase();
    let reasons = [result.stop_reason.as_deref(), result.terminal_reason.as_deref()];
    let rule = RULES.iter().find(|rule| {
        result.api_error_status.is_some_and(|status| rule.statuses.contains(&status))
            || error.is_some_and(|error| rule.errors.contains(&error))
            || reasons.iter().flatten().any(|reason| rule.reasons.contains(reason))
            || rule.texts.iter().any(|part| text.contains(part))
    });
    match rule {
        Some(Rule { cause: Cause::ProviderUnreachable, .. })
            if result.api_error_status.is_some() =>
        {
            // A status is an answer: the provider was reached.
            Some(Cause::ProviderError)
        }
        Some(rule) => Some(rule.cause),
        None => result.api_error_status.map(|_| Cause::ProviderError),
    }
}

fn known_failure(
    cause: Cause,
    status: Option<u16>,
    detail: String,
    facts: &OutcomeFacts<'_>,
) -> RunFailure {
    match cause {
        Cause::NoCredentials => RunFailure::NoCredentials {
            detail: format!(
                "there is no credential for {}: set {}",
                facts.provider, facts.credential
            ),
        },
        Cause::OutOfCredit => RunFailure::OutOfCredit { detail },
        Cause::ModelRefused => RunFailure::ModelRefused { detail },
        Cause::PromptTooLong => RunFailure::PromptTooLong { detail },
        Cause::AuthRefused => RunFailure::AuthRefused { detail },
        Cause::ModelNotFound => RunFailure::ModelNotFound { model: model(facts), detail },
        Cause::RateLimited => RunFailure::RateLimited { detail },
        Cause::Overloaded => RunFailure::Overloaded { detail },
        Cause::OutputTooLong => RunFailure::AgentFailed { detail },
        Cause::ProviderError => RunFailure::ProviderError { status, detail },
        Cause::ProviderUnreachable => RunFailure::ProviderUnreachable { detail },
    }
}

fn model(facts: &OutcomeFacts<'_>) -> String {
    facts.summary.model.clone().unwrap_or_default()
}

/// The limit as the agent names it, else as it was given, else as it counted.
fn turn_limit(result: &AgentResult, facts: &OutcomeFacts<'_>) -> u32 {
    let named = result.text.rsplit_once('(').and_then(|(_, rest)| rest.split(')').next());
    // The turn that was refused is counted too.
    let counted = || u32::try_from(result.n_turns.saturating_sub(1)).unwrap_or(u32::MAX);
    named.and_then(|limit| limit.parse().ok()).or(facts.max_turns).unwrap_or_else(counted)
}

/// What the agent says of a failure of its own. An interruption says nothing for a reader.
fn own_failure(result: &AgentResult, detail: String) -> String {
    match result.terminal_reason.as_deref() {
        Some("aborted_streaming") => "it was interrupted while the model answered".to_owned(),
        Some("aborted_tools") => "it was interrupted while a tool ran".to_owned(),
        Some(_) | None => detail,
    }
}

fn detail(result: &AgentResult) -> String {
    let text = result.text.trim();
    if text.is_empty() {
        return format!("its result says `{}` and nothing else", result.subtype);
    }
    text[..text.floor_char_boundary(DETAIL_BYTES)].to_owned()
}
