//! Reads one entry of a list of turns: an answer or a disturbance.

use std::fmt;
use std::time::Duration;

use axum::http::HeaderValue;
use serde::de::{Deserialize, Deserializer, Unexpected, Visitor};

use super::checked::checked;
use super::ledger::SentUsage;
use super::script::{
    Answer, CutPoint, DEFAULT_INPUT_TOKENS, Disturbance, Failure, Fault, RawReply, StopReason,
    Times, ToolCall,
};
use super::text::Repeat;

/// Longest `delay_ms`: the agent CLI gives up after 10 minutes.
const MAX_DELAY: Duration = Duration::from_secs(15 * 60);

/// Longest `chunk_delay_ms`. Slower streams are better written as `hang`.
const MAX_CHUNK_DELAY: Duration = Duration::from_secs(60);

/// An entry of a list of turns.
pub(super) enum WireTurn {
    Answer(Answer),
    Disturbance(Disturbance),
}

impl<'de> Deserialize<'de> for WireTurn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked::<WireTurnFields, Self, D>(deserializer, "a turn, such as `- text: Done.`")
    }
}

/// All keys that an entry can have.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireTurnFields {
    thinking: Option<String>,
    text: Option<String>,
    text_repeat: Option<Repeat>,
    tools: Option<Vec<ToolCall>>,
    stop: Option<StopReason>,
    usage: Option<WireUsage>,
    delay_ms: Option<u64>,
    chunk_delay_ms: Option<u64>,
    fail: Option<WireFailure>,
    drop: Option<CutPoint>,
    hang: Option<bool>,
    raw: Option<WireRaw>,
    times: Option<Times>,
}

impl TryFrom<WireTurnFields> for WireTurn {
    type Error = String;

    fn try_from(mut fields: WireTurnFields) -> Result<Self, Self::Error> {
        let mut faults = Vec::new();
        let mut times = fields.times;
        if let Some(fail) = fields.fail.take() {
            if fail.times.is_some() && times.is_some() {
                return Err("`times` stands twice: write it once".to_owned());
            }
            times = times.or(fail.times);
            faults.push(Fault::try_from(fail)?);
        }
        faults.extend(fields.drop.take().map(Fault::Drop));
        match fields.hang.take() {
            Some(true) => faults.push(Fault::Hang),
            Some(false) => return Err("`hang: false` means nothing: leave it out".to_owned()),
            None => {}
        }
        if let Some(raw) = fields.raw.take() {
            faults.push(Fault::Raw(RawReply::try_from(raw)?));
        }
        let answers = fields.answers();
        match (faults.pop(), faults.is_empty(), answers) {
            (None, _, true) if times.is_some() => Err("`times` goes with `fail`, `drop`, `hang` \
                 and `raw`; an answering turn is written once for each time"
                .to_owned()),
            (None, _, true) => fields.into_answer().map(Self::Answer),
            (None, _, false) => Err("an empty turn: write `text`, `text_repeat` or `tools` to \
                 answer, or one of `fail`, `drop`, `hang`, `raw` (`text: \"\"` answers nothing)"
                .to_owned()),
            (Some(fault), true, false) => Ok(Self::Disturbance(Disturbance {
                fault,
                times: times.unwrap_or(Times::Exactly(1)),
            })),
            (Some(_), _, _) => Err("a turn either answers or is one of `fail`, `drop`, `hang`, \
                 `raw`: write the fault as a turn of its own above the turn that it disturbs"
                .to_owned()),
        }
    }
}

impl WireTurnFields {
    /// Whether anything of an answer is here.
    fn answers(&self) -> bool {
        self.thinking.is_some()
            || self.text.is_some()
            || self.text_repeat.is_some()
            || self.tools.is_some()
            || self.stop.is_some()
            || self.usage.is_some()
            || self.delay_ms.is_some()
            || self.chunk_delay_ms.is_some()
    }

    fn into_answer(self) -> Result<Answer, String> {
        let text = match (self.text, self.text_repeat) {
            (Some(_), Some(_)) => {
                return Err("`text` and `text_repeat` stand together: write one of them".to_owned());
            }
            (Some(text), None) => text,
            (None, Some(repeat)) => repeat.text()?,
            (None, None) if self.thinking.is_none() && self.tools.is_none() => {
                return Err("a turn without `text`, `text_repeat`, `thinking` or `tools` says \
                     nothing: write `text: \"\"` if that is meant"
                    .to_owned());
            }
            (None, None) => String::new(),
        };
        let tools = self.tools.unwrap_or_default();
        let implied = if tools.is_empty() { StopReason::EndTurn } else { StopReason::ToolUse };
        let mut answer = Answer {
            thinking: self.thinking,
            stop: self.stop.unwrap_or(implied),
            delay: wait("delay_ms", self.delay_ms, MAX_DELAY)?,
            chunk_delay: wait("chunk_delay_ms", self.chunk_delay_ms, MAX_CHUNK_DELAY)?,
            tools,
            ..Answer::said(&text)
        };
        let usage = self.usage.unwrap_or_default();
        answer.usage = SentUsage {
            input: usage.input.unwrap_or(DEFAULT_INPUT_TOKENS),
            output: usage.output.unwrap_or(answer.default_output()),
            cache_read: usage.cache_read,
            cache_write_5m: usage.cache_write_5m,
            cache_write_1h: usage.cache_write_1h,
        };
        Ok(answer)
    }
}

fn wait(key: &str, milliseconds: Option<u64>, limit: Duration) -> Result<Duration, String> {
    let wait = Duration::from_millis(milliseconds.unwrap_or(0));
    if wait > limit {
        return Err(format!("`{key}` may be at most {}", limit.as_millis()));
    }
    Ok(wait)
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WireUsage {
    input: Option<u64>,
    output: Option<u64>,
    #[serde(default)]
    cache_read: u64,
    #[serde(default)]
    cache_write_5m: u64,
    #[serde(default)]
    cache_write_1h: u64,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WireFailure {
    status: u16,
    #[serde(rename = "type")]
    kind: Option<String>,
    message: Option<String>,
    retry_after: Option<u32>,
    inside: Option<CutPoint>,
    times: Option<Times>,
}

impl TryFrom<WireFailure> for Fault {
    type Error = String;

    fn try_from(wire: WireFailure) -> Result<Self, Self::Error> {
        if !(400..=599).contains(&wire.status) {
            return Err(format!(
                "`status: {}` is no failure: write one from 400 to 599, such as 429, 500 or 529",
                wire.status
            ));
        }
        if wire.kind.as_deref().is_some_and(|kind| HeaderValue::from_str(kind).is_err()) {
            return Err("`type` must be one line of ASCII, such as `rate_limit_error`".to_owned());
        }
        let failure = Failure {
            status: wire.status,
            kind: wire.kind,
            message: wire.message,
            retry_after: wire.retry_after,
        };
        let inside = wire.inside.filter(|&point| point != CutPoint::Before);
        Ok(Self::Fail { failure, inside })
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRaw {
    status: Option<u16>,
    content_type: Option<String>,
    #[serde(default)]
    body: String,
}

impl TryFrom<WireRaw> for RawReply {
    type Error = String;

    fn try_from(wire: WireRaw) -> Result<Self, Self::Error> {
        let status = wire.status.unwrap_or(200);
        if !(200..=599).contains(&status) {
            return Err(format!("`status: {status}` ends no request: write one from 200 to 599"));
        }
        let content_type = wire.content_type.unwrap_or_else(|| "text/plain".to_owned());
        if HeaderValue::from_str(&content_type).is_err() {
            return Err("`content_type` must be one line, such as `text/html`".to_owned());
        }
        Ok(Self { status, content_type, body: wire.body })
    }
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TimesVisitor;

        impl Visitor<'_> for TimesVisitor {
            type Value = Times;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 1, or `forever`")
            }

            fn visit_u64<E: serde::de::Error>(self, times: u64) -> Result<Times, E> {
                match u32::try_from(times) {
                    Ok(0) | Err(_) => Err(E::invalid_value(Unexpected::Unsigned(times), &self)),
                    Ok(times) => Ok(Times::Exactly(times)),
                }
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Times, E> {
                match word {
                    "forever" => Ok(Times::Forever),
                    other => Err(E::invalid_value(Unexpected::Str(other), &self)),
                }
            }
        }

        deserializer.deserialize_any(TimesVisitor)
    }
}
