//! What a request can cost at most, as far as its body tells, and what it cost.

use std::fmt;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use super::blocks::{Gather, gather};
use crate::budget::Prompt;
use crate::provider::{self, Billed, CacheTime};
use crate::run::Usd;
use crate::spend::Took;
use crate::trajectory::Usage;

/// Most tokens of an answer where a request names no limit: more than any model gives. The services
/// refuse such a request.
const MAX_OUTPUT: u64 = 128_000;

/// How a request may write the cache's time of an hour. A character of a JSON text may be written by
/// its number, so that each of the last two may stand in a longer spelling of it; either means the
/// dearer price, whether it is about the cache or not.
const HOUR: [&[u8]; 3] = [b"\"1h\"", b"\\u0031", b"\\u0068"];

/// What a request can cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bill {
    pub(super) prompt: Prompt,
    pub(super) max_output: u64,
    pub(super) cache: CacheTime,
    /// What it asks for that has a price of its own.
    pub(super) dear: Option<&'static str>,
}

#[derive(Deserialize)]
struct Body {
    max_tokens: Option<u64>,
    speed: Option<String>,
    inference_geo: Option<String>,
    #[serde(default)]
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Content,
}

/// The pictures of a content.
#[derive(Debug, Default, Clone, Copy)]
struct Content {
    n_pictures: u64,
    n_bytes: u64,
}

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: Option<String>,
    source: Option<Source>,
    #[serde(default)]
    content: Content,
}

#[derive(Deserialize)]
struct Source {
    #[serde(default)]
    data: Length,
}

/// The length of a text that is not kept.
#[derive(Debug, Default, Clone, Copy)]
struct Length(u64);

impl Bill {
    /// Reads a body. The error says why it cannot be read.
    pub(super) fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        let read: Body = serde_json::from_slice(body)?;
        let has = |word: &[u8]| memchr::memmem::find(body, word).is_some();
        let is_dear = |value: &Option<String>, usual: &str| {
            value.as_deref().is_some_and(|value| value != usual)
        };
        let pictures = read.messages.iter().fold(Content::default(), |sum, m| sum.plus(m.content));
        Ok(Self {
            prompt: Prompt {
                n_bytes: body.len() as u64,
                n_pictures: pictures.n_pictures,
                n_picture_bytes: pictures.n_bytes,
            },
            max_output: read.max_tokens.unwrap_or(MAX_OUTPUT),
            cache: if HOUR.iter().any(|word| has(word)) {
                CacheTime::Hour
            } else {
                CacheTime::FiveMinutes
            },
            dear: match (is_dear(&read.speed, "standard"), is_dear(&read.inference_geo, "global")) {
                (true, _) => Some("speed"),
                (false, true) => Some("inference_geo"),
                (false, false) => None,
            },
        })
    }
}

/// What a usage costs, in dollars. `None` for a model without a known price.
#[must_use]
pub fn cost_of(model: &str, usage: &Usage) -> Option<f64> {
    let billed = Billed {
        input: usage.input,
        output: usage.output,
        cache_read: usage.cache_read,
        // The agent asks for five minutes unless it is told otherwise.
        cache_write_5m: usage.cache_write_5m.saturating_add(usage.cache_write_unsplit),
        cache_write_1h: usage.cache_write_1h,
    };
    provider::estimate(model, &billed)
}

/// What a usage takes of a budget.
#[must_use]
pub fn took(model: &str, usage: &Usage) -> Took {
    Took {
        input: usage.input,
        output: usage.output,
        cache_read: usage.cache_read,
        cache_write: usage.cache_write(),
        cost: cost_of(model, usage).map(Usd::at_least),
    }
}

impl Content {
    fn plus(self, other: Self) -> Self {
        Self {
            n_pictures: self.n_pictures + other.n_pictures,
            n_bytes: self.n_bytes + other.n_bytes,
        }
    }

    fn with(self, block: &Block) -> Self {
        let picture = block.source.as_ref().filter(|_| block.kind.as_deref() == Some("image"));
        let picture = picture.map(|source| Self { n_pictures: 1, n_bytes: source.data.0 });
        self.plus(picture.unwrap_or_default()).plus(block.content)
    }
}

impl Gather for Content {
    type Block = Block;

    fn take(&mut self, block: Block) {
        *self = self.with(&block);
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        gather(from)
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(LengthVisitor)
    }
}

struct LengthVisitor;

impl<'de> Visitor<'de> for LengthVisitor {
    type Value = Length;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<Length, E> {
        Ok(Length(text.len() as u64))
    }

    // What is no text is counted as the text of the request that it is.
    fn visit_unit<E>(self) -> Result<Length, E> {
        Ok(Length(0))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Length, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Length(0))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn bill(body: &Value) -> Bill {
        Bill::read(body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_bill_has_the_prompts_length_its_pictures_and_the_most_of_the_answer() {
        let picture =
            json!({"type": "image", "source": {"type": "base64", "data": "x".repeat(900)}});
        let nested = json!({"type": "tool_result", "content": [picture, {"type": "text"}]});
        let document =
            json!({"type": "document", "source": {"type": "base64", "data": "x".repeat(50)}});
        let body = json!({"max_tokens": 1_000, "system": "You.", "messages": [
            {"role": "user", "content": "Go."},
            {"role": "user", "content": [nested, picture, document]},
        ]});
        let n_bytes = body.to_string().len() as u64;
        let prompt = Prompt { n_bytes, n_pictures: 2, n_picture_bytes: 1_800 };
        let cache = CacheTime::FiveMinutes;
        assert_eq!(bill(&body), Bill { prompt, max_output: 1_000, cache, dear: None });
        assert_eq!(bill(&json!({})).max_output, MAX_OUTPUT);
    }

    #[test]
    fn nothing_dear_is_taken_for_something_cheap() {
        for (body, cache, dear) in [
            (r#"{"system": "1h of work"}"#, CacheTime::FiveMinutes, None),
            (r#"{"cache_control": {"ttl": "1h"}}"#, CacheTime::Hour, None),
            (r#"{"cache_control": {"ttl": "\u0031h"}}"#, CacheTime::Hour, None),
            (r#"{"cache_control": {"ttl": "1\u0068"}}"#, CacheTime::Hour, None),
            (r#"{"speed": "fast"}"#, CacheTime::FiveMinutes, Some("speed")),
            (r#"{"speed": "standard"}"#, CacheTime::FiveMinutes, None),
            (r#"{"inference_geo": "us"}"#, CacheTime::FiveMinutes, Some("inference_geo")),
        ] {
            let bill = Bill::read(body.as_bytes()).unwrap();
            assert_eq!((bill.cache, bill.dear), (cache, dear), "{body}");
        }
        for twice in [r#"{"max_tokens": 9, "max_tokens": 1}"#, r#"{"max_tokens": -1}"#] {
            assert!(Bill::read(twice.as_bytes()).is_err(), "{twice}");
        }
    }
}
