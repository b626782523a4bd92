//! A chat before its collection's purse: it spends from the same day and month as runs do.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::error::ChatError;
use super::record::{Ending, Told};
use crate::api::error::ApiError;
use crate::budget::{MAX_ANSWER_TOKENS, Media, Prompt};
use crate::provider::{Billed, CacheTime, estimate, worst_case};
use crate::run::Usd;
use crate::spend::{Asked, Charge, Held, NotAdmitted, Purse, Took, Wait};
use crate::upstream::TokenCounts;

/// Most tokens of an answer where a request names no limit: the longest that a service's chat gives.
const MAX_OUTPUT: u64 = 64_000;

/// Most answers that one chat may ask for: as many as the services give.
const MAX_ANSWERS: u64 = 128;

/// What a chat may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    prompt: Prompt,
    max_output: u64,
    /// What it asks for that has a price that is not known, as a fragment.
    dear: Option<&'static str>,
}

#[derive(Deserialize)]
struct Body {
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    n: Option<u64>,
    /// Other models that a router may ask instead.
    models: Option<IgnoredAny>,
    /// What a router or a service does besides.
    plugins: Option<IgnoredAny>,
    web_search_options: Option<IgnoredAny>,
    messages: Option<Value>,
}

impl Body {
    /// What is no text in the messages.
    fn media(&self) -> Media {
        let messages = self.messages.as_ref().and_then(Value::as_array).into_iter().flatten();
        let parts = messages.filter_map(|message| message.get("content")?.as_array()).flatten();
        parts.map(media).fold(Media::default(), Media::plus)
    }

    fn dear(&self) -> Option<&'static str> {
        let dear = [
            (self.models.is_some(), "what the other models in `models` cost is not known here"),
            (self.plugins.is_some(), "what `plugins` cost is not known here"),
            (self.web_search_options.is_some(), "what a search costs is not known here"),
        ];
        dear.into_iter().find(|(is_asked, _)| *is_asked).map(|(_, why)| why)
    }
}

/// What a part of a message has that is no text. Sound counts as the text that it is written in.
fn media(part: &Value) -> Media {
    let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
    // The length of what is in the request itself; `None` for what the service fetches.
    let within = |text: Option<&str>| {
        text.filter(|text| text.starts_with("data:")).map(|text| text.len() as u64)
    };
    let value = part.get(kind);
    match kind {
        "image_url" => {
            let url = value.and_then(|value| value.get("url").unwrap_or(value).as_str());
            Media::picture(within(url).unwrap_or(0))
        }
        "file" => {
            let data = value.and_then(|value| value.get("file_data")?.as_str());
            within(data).map_or(Media::linked_document(), Media::document)
        }
        "video_url" => Media::linked_document(),
        _ => Media::default(),
    }
}

impl Size {
    /// Reads a request's body.
    ///
    /// # Errors
    /// [`ChatError`] where nobody can tell how long the answers may be: a field is there twice, or is no
    /// number, or is larger than any answer.
    pub(super) fn read(body: &[u8]) -> Result<Self, ChatError> {
        let read = serde_json::from_slice::<Body>(body).map_err(|e| {
            let problem = format!(
                "it cannot be read how long the answers may be ({e}): write `max_tokens`, \
                 `max_completion_tokens` and `n` once each, as whole numbers"
            );
            ChatError::field("max_tokens", problem)
        })?;
        for (name, value, most) in [
            ("max_tokens", read.max_tokens, MAX_ANSWER_TOKENS),
            ("max_completion_tokens", read.max_completion_tokens, MAX_ANSWER_TOKENS),
            ("n", read.n, MAX_ANSWERS),
        ] {
            if let Some(value) = value.filter(|value| *value > most) {
                return Err(ChatError::field(
                    name,
                    format!("it is {value}, and may be at most {most}"),
                ));
            }
        }
        let one = read.max_tokens.into_iter().chain(read.max_completion_tokens).max();
        Ok(Self {
            prompt: Prompt { n_bytes: body.len() as u64, media: read.media() },
            max_output: one.unwrap_or(MAX_OUTPUT).saturating_mul(read.n.unwrap_or(1).max(1)),
            dear: read.dear(),
        })
    }
}

/// Sets aside what a chat may take, when it is its turn.
pub(super) async fn set_aside(
    purse: &Purse,
    model: &str,
    size: Size,
) -> Result<Held, (ApiError, &'static str)> {
    if let Some(why) = size.dear.filter(|_| purse.limits_cost()) {
        let words = format!("What this collection spends has a limit, and {why}: leave it out");
        return Err((ApiError::BadRequest(words), "price_unknown"));
    }
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
        Some(counts) if is_whole => {
            Charge::Took(took((model, told.completion.model.as_deref()), counts))
        }
        _ if was_refused || told.is_unsent => Charge::Nothing,
        _ => Charge::Kept,
    };
    held.settle(charge);
}

/// What an answer took, by the price of the model that was asked or of the one that answered, where that
/// is dearer.
fn took((asked, served): (&str, Option<&str>), counts: &TokenCounts) -> Took {
    let cached = counts.cached.min(counts.prompt);
    let (input, output) = (counts.prompt - cached, counts.completion);
    let billed = Billed { input, output, cache_read: cached, ..Billed::default() };
    // The service's own word is the bill.
    let told = counts.cost_usd.filter(|usd| *usd >= 0.0).map(Usd::at_least);
    let models = [Some(asked), served].into_iter().flatten();
    let costs = models.filter_map(|model| estimate(model, &billed)).map(Usd::at_least);
    let cost = told.or_else(|| costs.max());
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
            (r#"{"max_tokens": 5, "max_completion_tokens": 70, "n": null}"#, 70),
            ("{}", MAX_OUTPUT),
        ] {
            let size = Size::read(body.as_bytes()).unwrap();
            assert_eq!((size.max_output, size.prompt.n_bytes), (most, body.len() as u64), "{body}");
        }
    }

    #[test]
    fn a_chat_of_which_nobody_can_tell_what_it_takes_is_refused() {
        for (body, field, word) in [
            (r#"{"n": 1, "n": 128}"#, "max_tokens", "duplicate field `n`"),
            (r#"{"n": 1, "\u006e": 128}"#, "max_tokens", "duplicate field `n`"),
            (r#"{"max_tokens": "many"}"#, "max_tokens", "as whole numbers"),
            (r#"{"max_tokens": 18446744073709551615}"#, "max_tokens", "at most 1000000"),
            (r#"{"max_completion_tokens": 1000001}"#, "max_completion_tokens", "at most 1000000"),
            (r#"{"n": 129}"#, "n", "at most 128"),
        ] {
            let Err(ChatError::Field { field: at, problem }) = Size::read(body.as_bytes()) else {
                panic!("{body}")
            };
            assert!(at == field && problem.contains(word), "{at}: {problem}");
        }
    }

    #[test]
    fn pictures_and_files_count_with_constants_and_not_as_text() {
        let data = format!("data:x;base64,{}", "x".repeat(986));
        let of = |part: Value| {
            let body = serde_json::json!({"messages": [{"content": "Go."}, {"content": [part]}]});
            Size::read(body.to_string().as_bytes()).unwrap().prompt.media
        };
        let json = |kind: &str, key: &str, value: &str| serde_json::json!({"type": kind, kind: {key: value}});
        for (part, expected) in [
            (json("image_url", "url", &data), Media::picture(1_000)),
            (json("image_url", "url", "https://x"), Media::picture(0)),
            (serde_json::json!({"type": "image_url", "image_url": data}), Media::picture(1_000)),
            (json("file", "file_data", &data), Media::document(1_000)),
            (json("file", "file_id", "f"), Media::linked_document()),
            (json("text", "text", "x"), Media::default()),
            (serde_json::json!(1), Media::default()),
        ] {
            assert_eq!(of(part.clone()), expected, "{part}");
        }
    }

    #[test]
    fn what_has_a_price_of_its_own_is_known() {
        for (body, dear) in [
            (r#"{"models": ["a", "b"]}"#, true),
            (r#"{"plugins": [{"id": "web"}]}"#, true),
            (r#"{"web_search_options": {}}"#, true),
            (r#"{"model": "m", "models": null}"#, false),
        ] {
            assert_eq!(Size::read(body.as_bytes()).unwrap().dear.is_some(), dear, "{body}");
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
        let model = ("claude-sonnet-4-6", None);
        assert_eq!(took(model, &counts).cost, Usd::new(0.3));
        let told = TokenCounts { cost_usd: Some(0.7), ..counts };
        assert_eq!(took(model, &told).cost, Usd::new(0.7));
        assert_eq!(took(("gpt-5.5", None), &counts).cost, None);
        // A router may let another one answer.
        assert_eq!(took((model.0, Some("anthropic/claude-opus-4.7")), &counts).cost, Usd::new(0.5));
        assert_eq!(took((model.0, Some("claude-haiku-4-5")), &counts).cost, Usd::new(0.3));
    }
}
