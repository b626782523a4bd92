//! The shapes of the CLI's lines, as tolerant as they can be: a field of a wrong type counts as
//! missing, and what nobody reads is skipped.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::trajectory::{CostBasis, Usage};

/// Reads a field as missing when it has a wrong type, so that one bad field does not cost the line.
fn lenient<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let raw = <&RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).ok())
}

/// A string that is borrowed from the line where it has no escapes.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn into_string(self) -> String {
        self.0.into_owned()
    }
}

/// Longest name, id or word that is kept, in bytes. Real ones are below a hundred; a record must not
/// grow by the ones that a broken agent makes up.
const WORD_BYTES: usize = 256;

/// The free text of a field that may be missing.
pub(super) fn owned(text: Option<Text<'_>>) -> String {
    text.map(Text::into_string).unwrap_or_default()
}

/// A name, an id or a word in a field that may be missing, at most [`WORD_BYTES`] of it.
pub(super) fn word(text: Option<Text<'_>>) -> String {
    optional_word(text).unwrap_or_default()
}

/// [`word`], with a missing field told apart from an empty one.
pub(super) fn optional_word(text: Option<Text<'_>>) -> Option<String> {
    text.map(|text| clipped_word(text.as_str()))
}

/// At most [`WORD_BYTES`] of a word.
pub(super) fn clipped_word(word: &str) -> String {
    word[..word.floor_char_boundary(WORD_BYTES)].to_owned()
}

/// What decides how the rest of a line reads.
#[derive(Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow, rename = "type", default, deserialize_with = "lenient")]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) subtype: Option<Text<'a>>,
}

/// `system/init`.
#[derive(Deserialize)]
pub(super) struct InitLine<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) session_id: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) claude_code_version: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) model: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) tools: Option<Vec<Text<'a>>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) mcp_servers: Option<Vec<WireMcpServer<'a>>>,
    #[serde(borrow, default, deserialize_with = "lenient", rename = "permissionMode")]
    pub(super) permission_mode: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient", rename = "apiKeySource")]
    pub(super) api_key_source: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct WireMcpServer<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) status: Option<Text<'a>>,
}

/// `assistant` and `user`. The `tool_use_result` of the latter, a second copy without limit of what
/// its content says, is skipped by not being named here.
#[derive(Deserialize)]
pub(super) struct MessageLine<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) message: Option<WireMessage<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) parent_tool_use_id: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) error: Option<Text<'a>>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) timestamp: Option<Timestamp>,
    #[serde(default, deserialize_with = "lenient", rename = "isSynthetic")]
    pub(super) is_synthetic: Option<bool>,
    /// The line's own id.
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) uuid: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct WireMessage<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) model: Option<Text<'a>>,
    /// Blocks, or a bare string.
    #[serde(borrow)]
    pub(super) content: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) usage: Option<WireUsage>,
}

/// A block of a message or of a tool's result: all kinds in one, as their fields do not collide.
#[derive(Deserialize)]
pub(super) struct WireBlock<'a> {
    #[serde(borrow, rename = "type", default, deserialize_with = "lenient")]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) text: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) thinking: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) input: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) tool_use_id: Option<Text<'a>>,
    /// Blocks, or a bare string.
    #[serde(borrow)]
    pub(super) content: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) is_error: Option<bool>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) source: Option<WireSource<'a>>,
}

/// An image's bytes, which are only measured.
#[derive(Deserialize)]
pub(super) struct WireSource<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) media_type: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
}

/// Content that is either a bare string or a list of blocks. Blocks are read one by one, so that a
/// broken one does not cost its neighbours.
pub(super) enum Content<'a> {
    Bare(String),
    Blocks(Vec<&'a RawValue>),
}

impl<'a> Content<'a> {
    pub(super) fn read(raw: Option<&'a RawValue>) -> Self {
        let Some(raw) = raw else { return Self::Blocks(Vec::new()) };
        if let Ok(text) = serde_json::from_str::<Text<'_>>(raw.get()) {
            return Self::Bare(text.into_string());
        }
        Self::Blocks(serde_json::from_str(raw.get()).unwrap_or_default())
    }
}

/// The provider's usage object, on messages and in session files.
#[derive(Default, Deserialize)]
pub(super) struct WireUsage {
    #[serde(default, deserialize_with = "lenient")]
    input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    output_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    cache_read_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    cache_creation: Option<WireCacheCreation>,
    #[serde(default, deserialize_with = "lenient")]
    server_tool_use: Option<WireServerToolUse>,
}

#[derive(Deserialize)]
struct WireCacheCreation {
    #[serde(default, deserialize_with = "lenient")]
    ephemeral_5m_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct WireServerToolUse {
    #[serde(default, deserialize_with = "lenient")]
    web_search_requests: Option<u64>,
}

impl WireUsage {
    /// In our words. A split of the cache writes that exceeds their sum is not believed.
    pub(super) fn into_usage(self) -> Usage {
        let written = self.cache_creation_input_tokens;
        let (short, long) = self.cache_creation.map_or((0, 0), |split| {
            (
                split.ephemeral_5m_input_tokens.unwrap_or(0),
                split.ephemeral_1h_input_tokens.unwrap_or(0),
            )
        });
        let split = short.saturating_add(long);
        let written = written.unwrap_or(split);
        let (short, long) = if split <= written { (short, long) } else { (0, 0) };
        Usage {
            input: self.input_tokens.unwrap_or(0),
            output: self.output_tokens.unwrap_or(0),
            cache_read: self.cache_read_input_tokens.unwrap_or(0),
            cache_write_5m: short,
            cache_write_1h: long,
            cache_write_unsplit: written - short - long,
            requests_seen: 0,
            web_searches: self
                .server_tool_use
                .and_then(|tools| tools.web_search_requests)
                .unwrap_or(0),
            cost_usd: None,
            cost_basis: CostBasis::Unknown,
        }
    }
}

/// `result`.
#[derive(Deserialize)]
pub(super) struct ResultLine<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) session_id: Option<Text<'a>>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) is_error: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) api_error_status: Option<u16>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) result: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) errors: Option<Vec<Text<'a>>>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) num_turns: Option<u64>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) stop_reason: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) terminal_reason: Option<Text<'a>>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) duration_ms: Option<f64>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) duration_api_ms: Option<f64>,
    #[serde(default, deserialize_with = "lenient", rename = "modelUsage")]
    pub(super) model_usage: Option<BTreeMap<String, WireModelUsage>>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) total_cost_usd: Option<f64>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) permission_denials: Option<Vec<WireDenial<'a>>>,
}

#[derive(Deserialize)]
pub(super) struct WireDenial<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) tool_name: Option<Text<'a>>,
}

/// One model's totals in a result, cumulative over the process.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireModelUsage {
    #[serde(default, deserialize_with = "lenient")]
    input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    output_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    cache_read_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    web_search_requests: Option<u64>,
    #[serde(default, deserialize_with = "lenient", rename = "costUSD")]
    cost_usd: Option<f64>,
}

impl WireModelUsage {
    pub(super) fn into_usage(self) -> Usage {
        Usage {
            input: self.input_tokens.unwrap_or(0),
            output: self.output_tokens.unwrap_or(0),
            cache_read: self.cache_read_input_tokens.unwrap_or(0),
            cache_write_unsplit: self.cache_creation_input_tokens.unwrap_or(0),
            web_searches: self.web_search_requests.unwrap_or(0),
            cost_usd: self.cost_usd,
            cost_basis: CostBasis::Unknown,
            ..Usage::default()
        }
    }
}

/// `system` lines other than `init`, all in one, as their fields do not collide.
#[derive(Deserialize)]
pub(super) struct SystemLine<'a> {
    #[serde(default, deserialize_with = "lenient")]
    pub(super) attempt: Option<u32>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) max_retries: Option<u32>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) retry_delay_ms: Option<f64>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) error_status: Option<u16>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) error: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) status: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) compact_metadata: Option<WireCompact<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) task_id: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) tool_use_id: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) task_type: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) description: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) summary: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) last_tool_name: Option<Text<'a>>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) usage: Option<WireTaskUsage>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) patch: Option<WirePatch<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) hook_name: Option<Text<'a>>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) exit_code: Option<i64>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) text: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct WireCompact<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) trigger: Option<Text<'a>>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) pre_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) post_tokens: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct WireTaskUsage {
    #[serde(default, deserialize_with = "lenient")]
    pub(super) total_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) tool_uses: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) duration_ms: Option<u64>,
}

/// What `task_updated` changes.
#[derive(Deserialize)]
pub(super) struct WirePatch<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) status: Option<Text<'a>>,
}

/// `rate_limit_event`.
#[derive(Deserialize)]
pub(super) struct RateLimitLine<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) rate_limit_info: Option<WireRateLimit<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireRateLimit<'a> {
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) status: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient")]
    pub(super) rate_limit_type: Option<Text<'a>>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) utilization: Option<f64>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) resets_at: Option<i64>,
}
