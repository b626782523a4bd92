//! A chat before its collection's purse: it spends from the same day and month as runs do.

use serde::Deserialize;

use super::record::{Ending, Told};
use crate::api::error::ApiError;
use crate::budget::Prompt;
use crate::provider::{Billed, CacheTime, estimate, worst_case};
use crate::run::Usd;
use crate::spend::{Asked, Charge, Held, NotAdmitted, Purse, Took, Wait};
use crate::upstream::TokenCounts;

/// Most tokens of an answer where a request names no limit: the longest that a service's chat gives.
const MAX_OUTPUT: u64 = 64_000;

/// What a chat may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    prompt: Prompt,
    max_output: u64,
}

#[derive(Default, Deserialize)]
struct Body {
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    n: Option<u64>,
}

impl Size {
    /// Reads a request's body. Where it cannot be read it is as large as it can be.
    pub(super) fn read(body: &[u8]) -> Self {
        let read = serde_json::from_slice::<Body>(body).unwrap_or_default();
        let one = read.max_tokens.into_iter().chain(read.max_completion_tokens).max();
        let one = one.unwrap_or(MAX_OUTPUT);
        Self {
            prompt: Prompt { n_bytes: body.len() as u64, ..Prompt::default() },
            max_output: one.saturating_mul(read.n.unwrap_or(1).max(1)),
        }
    }
}

/// Sets aside what a chat may take, when it is its turn.
pub(super) async fn set_aside(
    purse: &Purse,
    model: &str,
    size: Size,
) -> Result<Held, (ApiError, &'static str)> {
    let price = |input: u64, output: u64| {
        worst_case(model, input, output, CacheTime::FiveMinutes).map(Usd::at_least)
    };
    let asked = Asked { prompt: size.prompt, max_output: size.max_output, model, price: &price };
    purse.admit(asked).await.map_err(|why| refusal(why, model))
}

fn refusal(why: NotAdmitted, model: &str) -> (ApiError, &'static str) {
    /// How soon a day's or a month's budget may have room again, in seconds: clients that come again
    /// by themselves take nothing longer seriously.
    const COME_AGAIN: u64 = 3_600;
    match why {
        NotAdmitted::Exhausted(exhausted) => {
            let detail = format!("The collection's budget is used up: {exhausted}");
            (ApiError::TooMany { detail, retry_after: COME_AGAIN }, "budget_exceeded")
        }
        NotAdmitted::Unpriced => {
            let words = format!(
                "What this collection spends has a limit, and the price of the model `{model}` is \
                 not known here: name another model"
            );
            (ApiError::BadRequest(words), "model_without_price")
        }
        NotAdmitted::Busy { wait, retry_after } => {
            let detail = match wait {
                Wait::Rate => {
                    "The collection asks faster than it may (requests or tokens in a minute)"
                }
                Wait::Others => "The budget waits for what other requests will leave of it",
            };
            let (detail, retry_after) = (detail.to_owned(), retry_after.as_secs() + 1);
            (ApiError::TooMany { detail, retry_after }, "rate_limit_exceeded")
        }
        NotAdmitted::Unknown => {
            let detail = "Nobody can tell now what is left of the collection's budget".to_owned();
            (ApiError::Unavailable { detail, source: None }, "budget_unknown")
        }
    }
}

/// Settles a chat by how it ended. What broke off stays spent as it was set aside.
pub(super) fn settle(held: Held, model: &str, told: &Told) {
    let was_refused = told.status.is_some_and(|status| !(200..=299).contains(&status));
    let is_whole = told.ending == Ending::Completed;
    let charge = match &told.completion.usage {
        Some(counts) if is_whole => Charge::Took(took(model, counts)),
        _ if was_refused || told.is_unsent => Charge::Nothing,
        _ => Charge::Kept,
    };
    held.settle(charge);
}

fn took(model: &str, counts: &TokenCounts) -> Took {
    let cached = counts.cached.min(counts.prompt);
    let (input, output) = (counts.prompt - cached, counts.completion);
    let billed = Billed { input, output, cache_read: cached, ..Billed::default() };
    // The service's own word is the bill.
    let cost = counts.cost_usd.or_else(|| estimate(model, &billed));
    let cost = cost.filter(|usd| *usd >= 0.0).map(Usd::at_least);
    Took { input, output, cache_read: cached, cache_write: 0, cost }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_takes_as_much_as_its_answers_may_have() {
        for (body, most) in [
            (r#"{"max_tokens": 100}"#, 100),
            (r#"{"max_completion_tokens": 70, "n": 3}"#, 210),
            (r#"{"max_tokens": 5, "max_completion_tokens": 70}"#, 70),
            ("{}", MAX_OUTPUT),
            (r#"{"max_tokens": "many"}"#, MAX_OUTPUT),
        ] {
            let size = Size::read(body.as_bytes());
            assert_eq!((size.max_output, size.prompt.n_bytes), (most, body.len() as u64), "{body}");
        }
    }

    #[test]
    fn what_the_service_says_of_the_cost_is_the_bill() {
        let counts = TokenCounts {
            prompt: 1_000_000,
            completion: 0,
            total: 0,
            cached: 1_000_000,
            cost_usd: None,
        };
        let model = "claude-sonnet-4-6";
        assert_eq!(took(model, &counts).cost, Usd::new(0.3));
        let told = TokenCounts { cost_usd: Some(0.7), ..counts };
        assert_eq!(took(model, &told).cost, Usd::new(0.7));
        assert_eq!(took("gpt-5.5", &counts).cost, None);
    }
}
