//! What the scripted provider was asked and what it answered, one entry a request.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::ops::AddAssign;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::auth::Auth;
use super::route::Wire;

/// Most requests of one provider. An agent that loops ends here, instead of filling the memory.
pub(super) const MAX_REQUESTS: usize = 10_000;

/// Most bytes of request bodies that are kept, newest first. A request of the agent CLI has about
/// 100 KB, so this is some 300 of them.
const MAX_KEPT_BODY_BYTES: usize = 32 * 1024 * 1024;

/// One request and its reply. A line of `logs/provider.jsonl`, without the request's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerEntry {
    /// The `request-id` of the reply, counted from 1.
    pub request_id: String,
    /// The method.
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// The wire format, which follows from the path.
    pub wire: Wire,
    /// Which credentials came. Their values are kept nowhere.
    pub auth: Auth,
    /// The model that was asked for, where the request could be read.
    pub model: Option<String>,
    /// Whether the reply was wanted as a stream of events.
    pub stream: bool,
    /// How many messages the request carried.
    pub n_messages: usize,
    /// Length of the request's body.
    pub n_request_bytes: usize,
    /// What of the script answered.
    pub place: Place,
    /// True where the script did not foresee the request: its turns were used up, no `when`
    /// matched a sub-agent, the path or the request is unknown.
    pub unexpected: bool,
    /// The status that was sent. `None` where nothing was or will be sent.
    pub status: Option<u16>,
    /// The usage that the reply says, where it says any. A stream that is cut has said what it
    /// had said until then: input and cache in full, and one token of output.
    pub usage: Option<SentUsage>,
    /// How far the reply came.
    pub delivery: Delivery,
    /// The request's body, unless newer ones took its place in the store of 32 MiB.
    #[serde(skip)]
    pub body: Option<Bytes>,
}

impl LedgerEntry {
    /// The request's body as JSON, where it is kept and is JSON.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(self.body.as_ref()?).ok()
    }

    /// The usage that counts: that of a message which was handed over whole. The agent CLI counts
    /// the same replies (a stream that broke is in none of its sums).
    #[must_use]
    pub fn counted_usage(&self) -> Option<SentUsage> {
        self.usage.filter(|_| self.delivery == Delivery::Complete)
    }
}

/// What of the script answered a request. Turns are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "part", rename_all = "snake_case")]
pub enum Place {
    /// A turn of the main loop.
    Main {
        /// Which one.
        turn: usize,
    },
    /// A turn of a sub-agent that the script knows.
    Subagent {
        /// Which entry of `subagents`, counted from 1.
        entry: usize,
        /// Which of its turns.
        turn: usize,
    },
    /// A turn of a sub-agent that no `when` matched.
    UnknownSubagent {
        /// Which one.
        turn: usize,
    },
    /// A call without tools, such as the session's title.
    Side,
    /// The request to sum the conversation up.
    Compaction,
    /// A count of tokens: `POST /v1/messages/count_tokens`, or what another wire has for it.
    CountTokens,
    /// The list of models, `GET /v1/models`; on Bedrock that of the inference profiles, or one.
    Models,
    /// `HEAD` of the base URL, by which the agent CLI looks whether the service is there.
    Liveness,
    /// An access token for Vertex, `POST /token`.
    Token,
    /// No part of the protocol, or a request that could not be read.
    Nowhere,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Main { turn } => write!(f, "turn {turn} of the main loop"),
            Self::Subagent { entry, turn } => write!(f, "turn {turn} of sub-agent {entry}"),
            Self::UnknownSubagent { turn } => {
                write!(f, "turn {turn} of a sub-agent that no `when` matches")
            }
            Self::Side => f.write_str("a side call"),
            Self::Compaction => f.write_str("the summary request"),
            Self::CountTokens => f.write_str("a token count"),
            Self::Models => f.write_str("the list of models"),
            Self::Liveness => f.write_str("the look whether the service is there"),
            Self::Token => f.write_str("an access token"),
            Self::Nowhere => f.write_str("no part of the script"),
        }
    }
}

/// How far a reply came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// It is being made or sent.
    Pending,
    /// All of it was handed to the connection.
    Complete,
    /// A stream that ended with an `error` event, as the script wants it.
    Failed,
    /// The script cut it.
    Cut,
    /// The client left, or the provider was stopped, before it was whole.
    Abandoned,
}

/// Token counts as a reply states them, by Anthropic's categories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SentUsage {
    /// Input that was neither read from nor written to the cache.
    pub input: u64,
    /// Output.
    pub output: u64,
    /// Input read from the cache.
    pub cache_read: u64,
    /// Input written to the cache for 5 minutes.
    pub cache_write_5m: u64,
    /// Input written to the cache for an hour.
    pub cache_write_1h: u64,
}

impl AddAssign for SentUsage {
    fn add_assign(&mut self, other: Self) {
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
        self.cache_read = self.cache_read.saturating_add(other.cache_read);
        self.cache_write_5m = self.cache_write_5m.saturating_add(other.cache_write_5m);
        self.cache_write_1h = self.cache_write_1h.saturating_add(other.cache_write_1h);
    }
}

/// The entries so far, and how often each place was asked for.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: Vec<LedgerEntry>,
    n_asked: HashMap<Place, u32>,
    /// Which entries hold a body, oldest first.
    with_body: VecDeque<usize>,
    n_kept_bytes: usize,
}

impl Ledger {
    /// How many requests asked for `place` before, this one included from now on.
    pub(super) fn ask(&mut self, place: &Place) -> u32 {
        let n_asked = self.n_asked.entry(place.clone()).or_default();
        let before = *n_asked;
        *n_asked = n_asked.saturating_add(1);
        before
    }

    /// The id that the next entry will have, or `None` when the ledger is full.
    pub(super) fn next_request_id(&self) -> Option<String> {
        let number = self.entries.len() + 1;
        (number <= MAX_REQUESTS).then(|| format!("req_scripted_{number}"))
    }

    /// Takes an entry in, and gives its number for [`Ledger::entry`].
    pub(super) fn push(&mut self, entry: LedgerEntry) -> usize {
        let number = self.entries.len();
        if let Some(body) = &entry.body {
            self.n_kept_bytes += body.len();
            self.with_body.push_back(number);
        }
        self.entries.push(entry);
        while self.n_kept_bytes > MAX_KEPT_BODY_BYTES {
            let Some(oldest) = self.with_body.pop_front() else { break };
            let dropped = self.entries[oldest].body.take();
            self.n_kept_bytes -= dropped.map_or(0, |body| body.len());
        }
        number
    }

    pub(super) fn entry(&mut self, number: usize) -> Option<&mut LedgerEntry> {
        self.entries.get_mut(number)
    }

    pub(super) fn entries(&self) -> &[LedgerEntry] {
        &self.entries
    }

    /// The usage of all replies that count, by the model that was asked for.
    pub(super) fn usage_by_model(&self) -> BTreeMap<String, SentUsage> {
        let mut usage = BTreeMap::<String, SentUsage>::new();
        for entry in &self.entries {
            if let (Some(model), Some(counted)) = (&entry.model, entry.counted_usage()) {
                *usage.entry(model.clone()).or_default() += counted;
            }
        }
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n_body_bytes: usize) -> LedgerEntry {
        LedgerEntry {
            request_id: "req_scripted_1".to_owned(),
            method: "POST".to_owned(),
            path: "/v1/messages".to_owned(),
            wire: Wire::Anthropic,
            auth: Auth::default(),
            model: Some("m".to_owned()),
            stream: true,
            n_messages: 1,
            n_request_bytes: n_body_bytes,
            place: Place::Main { turn: 1 },
            unexpected: false,
            status: Some(200),
            usage: Some(SentUsage { input: 10, output: 2, ..SentUsage::default() }),
            delivery: Delivery::Complete,
            body: Some(Bytes::from(vec![b' '; n_body_bytes])),
        }
    }

    #[test]
    fn only_the_newest_bodies_are_kept() {
        let mut ledger = Ledger::default();
        for _ in 0..3 {
            ledger.push(entry(MAX_KEPT_BODY_BYTES / 2));
        }
        ledger.push(entry(1));
        let kept: Vec<bool> = ledger.entries().iter().map(|entry| entry.body.is_some()).collect();
        assert_eq!(kept, [false, false, true, true]);
        ledger.push(entry(MAX_KEPT_BODY_BYTES + 1));
        assert!(ledger.entries().iter().all(|entry| entry.body.is_none()));
    }

    #[test]
    fn a_full_ledger_names_no_more_requests() {
        let mut ledger = Ledger::default();
        for _ in 1..MAX_REQUESTS {
            ledger.push(entry(0));
        }
        assert_eq!(ledger.next_request_id().as_deref(), Some("req_scripted_10000"));
        ledger.push(entry(0));
        assert_eq!(ledger.next_request_id(), None);
    }

    #[test]
    fn only_whole_messages_count() {
        let mut ledger = Ledger::default();
        for delivery in [
            Delivery::Complete,
            Delivery::Complete,
            Delivery::Pending,
            Delivery::Failed,
            Delivery::Cut,
            Delivery::Abandoned,
        ] {
            ledger.push(LedgerEntry { delivery, ..entry(0) });
        }
        ledger.push(LedgerEntry { usage: None, ..entry(0) });
        ledger.push(LedgerEntry { model: Some("other".to_owned()), ..entry(0) });
        let sum = |input, output| SentUsage { input, output, ..SentUsage::default() };
        assert_eq!(
            ledger.usage_by_model(),
            BTreeMap::from([("m".to_owned(), sum(20, 4)), ("other".to_owned(), sum(10, 2))])
        );
    }
}
