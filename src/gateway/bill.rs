//! What a request can cost at most, as far as its body tells, and what it cost.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny};

use super::media::Content;
use super::tools::is_of_the_agent;
use crate::budget::{MAX_ANSWER_TOKENS, Media, Prompt};
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

/// How the tools of the service begin that cost nothing beside tokens, and searches, which have a price.
const PRICED_TOOLS: [&str; 3] = [WEB_SEARCH, "web_fetch", "mcp_toolset"];

/// The search of the service.
const WEB_SEARCH: &str = "web_search";

/// How often a service uses a tool of its own in one answer where a request sets no limit: so many turns
/// of its own it takes before it asks whether to go on.
const USUAL_USES: u32 = 10;

/// Most uses that are counted of one tool. Nobody comes so far in one answer.
const MAX_USES: u32 = 100;

/// What a request can cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bill {
    pub(super) prompt: Prompt,
    pub(super) max_output: u64,
    pub(super) cache: CacheTime,
    /// Searches that the service may make.
    pub(super) n_searches: u32,
    /// What it asks for that has a price that is not known, as a fragment.
    pub(super) dear: Option<&'static str>,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default, deserialize_with = "answer_tokens")]
    max_tokens: Option<u64>,
    speed: Option<String>,
    inference_geo: Option<String>,
    /// Other models that a router may ask instead.
    models: Option<IgnoredAny>,
    fallbacks: Option<IgnoredAny>,
    /// What a router does besides.
    plugins: Option<IgnoredAny>,
    container: Option<IgnoredAny>,
    mcp_servers: Option<Vec<IgnoredAny>>,
    tools: Option<Vec<Tool>>,
    #[serde(default)]
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Content,
}

#[derive(Deserialize)]
struct Tool {
    #[serde(rename = "type")]
    kind: Option<String>,
    max_uses: Option<u32>,
}

impl Tool {
    /// The name of its kind, where it is not the agent that carries it out.
    fn of_service(&self) -> Option<&str> {
        self.kind.as_deref().filter(|kind| !is_of_the_agent(kind))
    }

    fn n_uses(&self) -> u32 {
        self.max_uses.unwrap_or(USUAL_USES).min(MAX_USES)
    }
}

impl Body {
    fn dear(&self) -> Option<&'static str> {
        let is_other = |value: &Option<String>, usual: &str| {
            value.as_deref().is_some_and(|value| value != usual)
        };
        let of_service = self.tools.iter().flatten().filter_map(Tool::of_service);
        let has_dear_tool = of_service
            .filter(|kind| !PRICED_TOOLS.iter().any(|priced| kind.starts_with(priced)))
            .count()
            > 0;
        let dear = [
            (is_other(&self.speed, "standard"), "`speed` has another price than is known here"),
            (
                is_other(&self.inference_geo, "global"),
                "`inference_geo` has another price than is known here",
            ),
            (
                self.models.is_some() || self.fallbacks.is_some(),
                "other models than `model` may answer, and what they cost is not known here",
            ),
            (self.plugins.is_some(), "what `plugins` cost is not known here"),
            (
                self.container.is_some() || has_dear_tool,
                "what a tool of the model service costs is not known here",
            ),
        ];
        dear.into_iter().find(|(is_asked, _)| *is_asked).map(|(_, why)| why)
    }

    /// Searches that the service may make.
    fn n_searches(&self) -> u32 {
        let tools = self.tools.iter().flatten();
        let searches = tools
            .filter(|tool| tool.kind.as_deref().is_some_and(|kind| kind.starts_with(WEB_SEARCH)));
        searches.fold(0, |sum, tool| sum.saturating_add(tool.n_uses()))
    }

    /// What is no text in the prompt.
    fn media(&self) -> Media {
        let messages = self.messages.iter().map(|message| message.content.0);
        let tools = self.tools.iter().flatten().filter(|tool| tool.of_service().is_some());
        let tools = tools.map(|tool| Media::tool_uses(tool.n_uses().into()));
        let others = self.mcp_servers.as_ref().map_or(0, Vec::len);
        let others = Media::tool_uses(others as u64);
        messages.chain(tools).fold(others, Media::plus)
    }
}

/// Refuses a number that is no length of an answer.
fn answer_tokens<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    match Option::deserialize(from)? {
        Some(asked) if asked > MAX_ANSWER_TOKENS => Err(D::Error::custom(format!(
            "`max_tokens` is {asked}, and one answer may have at most {MAX_ANSWER_TOKENS}"
        ))),
        asked => Ok(asked),
    }
}

impl Bill {
    /// Reads a body. The error says why it cannot be read.
    pub(super) fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        let read: Body = serde_json::from_slice(body)?;
        let has = |word: &[u8]| memchr::memmem::find(body, word).is_some();
        let is_hour = HOUR.iter().any(|word| has(word));
        Ok(Self {
            prompt: Prompt { n_bytes: body.len() as u64, media: read.media() },
            max_output: read.max_tokens.unwrap_or(MAX_OUTPUT),
            cache: if is_hour { CacheTime::Hour } else { CacheTime::FiveMinutes },
            n_searches: read.n_searches(),
            dear: read.dear(),
        })
    }

    /// What so many tokens cost at most, with everything that it asks for.
    pub(super) fn price(&self, model: &str, input: u64, output: u64) -> Option<Usd> {
        let tokens = provider::worst_case(model, input, output, self.cache)?;
        Some(Usd::at_least(tokens + provider::WEB_SEARCH * f64::from(self.n_searches)))
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
        web_searches: usage.web_searches,
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn bill(body: &Value) -> Bill {
        Bill::read(body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_bill_has_the_prompts_length_what_is_no_text_and_the_most_of_the_answer() {
        let picture =
            json!({"type": "image", "source": {"type": "base64", "data": "x".repeat(900)}});
        let body = json!({"max_tokens": 1_000, "system": "You.", "messages": [
            {"role": "user", "content": "Go."},
            {"role": "user", "content": [picture]},
        ]});
        let n_bytes = body.to_string().len() as u64;
        let prompt = Prompt { n_bytes, media: Media::picture(900) };
        let cache = CacheTime::FiveMinutes;
        let expected = Bill { prompt, max_output: 1_000, cache, n_searches: 0, dear: None };
        assert_eq!(bill(&body), expected);
        assert_eq!(bill(&json!({})).max_output, MAX_OUTPUT);
    }

    #[test]
    fn an_answer_that_is_longer_than_any_is_not_asked_for() {
        let asked = |max: u64| Bill::read(json!({ "max_tokens": max }).to_string().as_bytes());
        assert_eq!(asked(1_000_000).unwrap().max_output, 1_000_000);
        for max in [1_000_001, u64::MAX] {
            let why = asked(max).unwrap_err().to_string();
            let expected =
                format!("`max_tokens` is {max}, and one answer may have at most 1000000");
            assert!(why.starts_with(&expected), "{why}");
        }
        for odd in ["18446744073709551616", "1e30", "-1", "\"9\""] {
            assert!(Bill::read(format!(r#"{{"max_tokens": {odd}}}"#).as_bytes()).is_err(), "{odd}");
        }
        assert_eq!(bill(&json!({"max_tokens": null})).max_output, MAX_OUTPUT);
    }

    #[test]
    fn what_the_service_does_itself_is_set_aside_or_has_no_price() {
        let unknown = "what a tool of the model service costs is not known here";
        for (body, n_searches, tokens, dear) in [
            (
                json!({"tools": [{"name": "Bash"}, {"type": "custom"}, {"type": "bash_1"}]}),
                0,
                0,
                None,
            ),
            (json!({"tools": [{"type": "web_search_20250305"}]}), 10, 100_000, None),
            (json!({"tools": [{"type": "web_search_1", "max_uses": 3}]}), 3, 30_000, None),
            (json!({"tools": [{"type": "web_search_1", "max_uses": 4_000}]}), 100, 1_000_000, None),
            (json!({"tools": [{"type": "web_fetch_1", "max_uses": 1}]}), 0, 10_000, None),
            (json!({"tools": [{"type": "code_execution_1"}]}), 0, 100_000, Some(unknown)),
            (json!({"tools": [{"type": "advisor_1", "max_uses": 1}]}), 0, 10_000, Some(unknown)),
            (json!({"container": "c"}), 0, 0, Some(unknown)),
            (json!({"container": null, "tools": null}), 0, 0, None),
        ] {
            let bill = bill(&body);
            assert_eq!((bill.n_searches, bill.dear), (n_searches, dear), "{body}");
            assert_eq!(bill.prompt.media, Media { n_bytes: 0, tokens }, "{body}");
        }
        let price = bill(&json!({"tools": [{"type": "web_search_1", "max_uses": 3}]}));
        assert_eq!(price.price("claude-sonnet-4-6", 0, 0), Usd::new(0.03));
    }

    #[test]
    fn nothing_dear_is_taken_for_something_cheap() {
        for (body, cache, dear) in [
            (r#"{"system": "1h of work"}"#, CacheTime::FiveMinutes, ""),
            (r#"{"cache_control": {"ttl": "1h"}}"#, CacheTime::Hour, ""),
            (r#"{"cache_control": {"ttl": "\u0031h"}}"#, CacheTime::Hour, ""),
            (r#"{"cache_control": {"ttl": "1\u0068"}}"#, CacheTime::Hour, ""),
            (r#"{"speed": "fast"}"#, CacheTime::FiveMinutes, "`speed`"),
            (r#"{"speed": "standard"}"#, CacheTime::FiveMinutes, ""),
            (r#"{"inference_geo": "us"}"#, CacheTime::FiveMinutes, "`inference_geo`"),
            (r#"{"models": ["a", "b"]}"#, CacheTime::FiveMinutes, "other models"),
            (r#"{"plugins": [{"id": "web"}]}"#, CacheTime::FiveMinutes, "what `plugins`"),
        ] {
            let bill = Bill::read(body.as_bytes()).unwrap();
            assert_eq!(bill.cache, cache, "{body}");
            assert!(bill.dear.unwrap_or_default().starts_with(dear), "{body}");
            assert_eq!(bill.dear.is_none(), dear.is_empty(), "{body}");
        }
        for twice in [r#"{"max_tokens": 9, "max_tokens": 1}"#, r#"{"max_tokens": -1}"#] {
            assert!(Bill::read(twice.as_bytes()).is_err(), "{twice}");
        }
    }
}
