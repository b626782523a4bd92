//! What was asked through a gateway, a line for each request.
//!
//! A request that goes on to the model service has a line when it has to wait before that, one when it
//! goes, others while its answer comes, and one when it has ended; the latest one counts. So a request in the middle of which this process was killed is
//! known, and what it cost is known to be unknown.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::egress::each_line;
use crate::guard::{GuardFinding, GuardSummary, summed};
use crate::run::{Exhausted, ProviderTools, Usd};
use crate::trajectory::{Usage, UsageByModel};

/// Most requests of one run. A loop that nothing else stops ends here, before the log fills a disk.
pub const MAX_RECORDS: u64 = 100_000;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It waits for what others leave of a budget, or for its collection's rate; or this process was
    /// killed meanwhile.
    Waiting,
    /// It is on its way, or this process was killed meanwhile.
    InFlight,
    /// The answer came and was passed on whole.
    Complete,
    /// The model service answered with an error.
    Failed,
    /// The answer broke off.
    Broken,
    /// The agent did not wait for the end of the answer.
    Abandoned,
    /// It was not passed on.
    Refused,
    /// The model service could not be reached, or said nothing in time.
    Unreachable,
}

impl Outcome {
    /// The word in the ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::InFlight => "in_flight",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Broken => "broken",
            Self::Abandoned => "abandoned",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
        }
    }
}

/// One request. A line of `logs/gateway.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GatewayRecord {
    /// Its number among those of the run, from 1.
    pub seq: u64,
    /// When it came.
    pub at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// The method.
    pub method: String,
    /// The path, without its query; clipped.
    pub path: String,
    /// What was asked for: `message`, `count_tokens`, `models`, `liveness`.
    pub endpoint: Option<String>,
    /// The model that was asked for.
    pub model: Option<String>,
    /// The model that answered.
    pub model_served: Option<String>,
    /// How often the agent CLI had tried it before, by its own word.
    pub n_retries: Option<u32>,
    /// The status that the agent got.
    pub status: Option<u16>,
    /// What the answer said it used. Where it broke off, what it had said until then.
    pub usage: Option<Usage>,
    /// From its coming to the answer's first byte, in milliseconds.
    pub first_byte_ms: Option<u64>,
    /// From its coming to the answer's end, in milliseconds.
    pub duration_ms: Option<u64>,
    /// Length of its body.
    pub n_request_bytes: u64,
    /// Length of the answer's body, as far as it was passed on.
    pub n_answer_bytes: u64,
    /// The name that the model service gave it.
    pub provider_request_id: Option<String>,
    /// What it wanted of the service's own tools, and may have.
    #[serde(default, skip_serializing_if = "ProviderTools::is_empty")]
    pub granted: ProviderTools,
    /// What it wanted of them, and may not have.
    #[serde(default, skip_serializing_if = "ProviderTools::is_empty")]
    pub withheld: ProviderTools,
    /// Why it was not passed on, or what went wrong.
    pub problem: Option<String>,
    /// What the guardrails found in its prompt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guard: Vec<GuardFinding>,
    /// How long it waited for others of its run, or for its collection's rate.
    pub waited_ms: Option<u64>,
    /// What was set aside for it.
    pub reserved: Option<Reserved>,
    /// What it took of the budgets.
    pub charged: Option<Charged>,
    /// The limit that it would have passed.
    pub exhausted: Option<Exhausted>,
}

/// What was set aside for a request before it went on: the most that it could take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// In dollars; 0 for a model without a known price.
    pub cost_usd: Usd,
    /// Tokens of the prompt, estimated, and of the longest answer.
    pub tokens: u64,
}

/// What a request took of the budgets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charged {
    /// In dollars; absent for a model without a known price.
    pub cost_usd: Option<Usd>,
    /// Tokens of every kind.
    pub tokens: u64,
    /// Whether it is what was set aside, because nobody knows what it took.
    pub is_reserved: bool,
}

/// What of a request is kept to sum a run's requests up.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// How it ended.
    pub outcome: Outcome,
    /// From its coming to the answer's first byte, in milliseconds.
    pub first_byte_ms: Option<u64>,
    /// From its coming to the answer's end, in milliseconds.
    pub duration_ms: Option<u64>,
    /// The limit that it would have passed.
    pub exhausted: Option<Exhausted>,
    /// The model that was asked for and what the answer said it used, where it said something.
    used: Option<Box<(String, Usage)>>,
    guard: Vec<GuardFinding>,
}

impl From<GatewayRecord> for Entry {
    fn from(record: GatewayRecord) -> Self {
        let GatewayRecord { outcome, first_byte_ms, duration_ms, exhausted, .. } = record;
        let used = record.model.zip(record.usage).map(Box::new);
        Self { outcome, first_byte_ms, duration_ms, exhausted, used, guard: record.guard }
    }
}

/// The sum of a run's requests.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger {
    /// The newest line of each request.
    entries: BTreeMap<u64, Entry>,
}

impl Ledger {
    /// Reads the lines of a ledger. A torn one tells nothing; its request has an earlier one.
    ///
    /// # Errors
    /// When they cannot be read to their end.
    pub fn read(lines: impl BufRead) -> io::Result<Self> {
        let mut ledger = Self::default();
        each_line(lines, |line| {
            serde_json::from_slice(line).into_iter().for_each(|record| ledger.add(record));
        })?;
        Ok(ledger)
    }

    /// Takes a line. A later one of the same request replaces it.
    pub fn add(&mut self, record: GatewayRecord) {
        if self.entries.contains_key(&record.seq) || (self.entries.len() as u64) < MAX_RECORDS {
            self.entries.insert(record.seq, record.into());
        }
    }

    /// The number of the last request.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.entries.keys().next_back().copied().unwrap_or(0)
    }

    /// The requests, in order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// How many ended in each way.
    #[must_use]
    pub fn n_by_outcome(&self) -> BTreeMap<Outcome, u64> {
        let mut counts = BTreeMap::new();
        for record in self.entries() {
            *counts.entry(record.outcome).or_insert(0) += 1;
        }
        counts
    }

    /// What the guardrails found, in all of them together.
    #[must_use]
    pub fn guard(&self) -> Vec<GuardSummary> {
        summed(self.entries().map(|record| record.guard.as_slice()))
    }

    /// What the messages used that were passed on whole, by the model that was asked for. The agent
    /// CLI counts the same: a stream that broke off is in none of its sums.
    #[must_use]
    pub fn counted(&self) -> UsageByModel {
        self.sum(|record| record.outcome == Outcome::Complete)
    }

    /// What the others had used, as far as they told. It may be billed, and no agent counts it.
    #[must_use]
    pub fn uncounted(&self) -> UsageByModel {
        self.sum(|record| record.outcome != Outcome::Complete)
    }

    /// The first limit that a request would have passed.
    #[must_use]
    pub fn exhausted(&self) -> Option<&Exhausted> {
        self.entries().find_map(|record| record.exhausted.as_ref())
    }

    fn sum(&self, counts: impl Fn(&Entry) -> bool) -> UsageByModel {
        let mut sum = UsageByModel::default();
        for record in self.entries().filter(|record| counts(record)) {
            if let Some((model, usage)) = record.used.as_deref() {
                sum.add(model, &Usage { requests_seen: 1, ..*usage });
            }
        }
        sum
    }
}
