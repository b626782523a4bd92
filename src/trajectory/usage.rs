//! How many tokens a run used, by model, and how that is known.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::model_name::same_model;

/// How far an agent's reckoning of a cost may be off ours. Beyond rounding it means another price:
/// agents take unknown names for their favourite model.
const COST_TOLERANCE: f64 = 0.01;

/// Token counts of one reply, one model or a whole run. Part of `trajectory.json`.
///
/// The four kinds of input are apart, as the provider bills them: `input` is what was neither read
/// from the cache nor written to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Input tokens that did not touch the cache.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Input tokens read from the cache.
    pub cache_read: u64,
    /// Input tokens written to the cache for five minutes.
    pub cache_write_5m: u64,
    /// Input tokens written to the cache for an hour.
    pub cache_write_1h: u64,
    /// Input tokens written to the cache for a lifetime that nobody told us.
    pub cache_write_unsplit: u64,
    /// Replies that were seen, by distinct id. A lower bound on the requests that were made: side
    /// calls, failed requests and the last reply of a sub-agent do not show.
    pub requests_seen: u64,
    /// Searches that the provider made.
    pub web_searches: u64,
    /// The cost in US dollars, where it is known. The token counts are the ground truth.
    pub cost_usd: Option<f64>,
    /// How the cost is known.
    #[serde(default)]
    pub cost_basis: CostBasis,
}

/// How a cost is known. A cost that nobody knows is not zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CostBasis {
    /// The agent reported it, and it agrees with the price table.
    Reported,
    /// It was reckoned from the tokens and the price table.
    Estimated,
    /// The price table does not have the model, whatever the agent made of it.
    #[default]
    Unknown,
}

impl Usage {
    /// All tokens that went in, cached or not.
    #[must_use]
    pub fn total_input(&self) -> u64 {
        self.input.saturating_add(self.cache_read).saturating_add(self.cache_write())
    }

    /// All tokens that were written to the cache.
    #[must_use]
    pub fn cache_write(&self) -> u64 {
        self.cache_write_5m
            .saturating_add(self.cache_write_1h)
            .saturating_add(self.cache_write_unsplit)
    }

    /// All tokens, in and out.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total_input().saturating_add(self.output)
    }

    /// The sum of two usages. Its cost is known only where both are.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let cost_usd = self.cost_usd.zip(other.cost_usd).map(|(one, two)| one + two);
        // A sum is known no better than the worse of its parts.
        let cost_basis = self.cost_basis.max(other.cost_basis);
        Self { cost_usd, cost_basis, ..self.each_count(other, u64::saturating_add) }
    }

    /// The larger of each count. Two reports of one reply agree, or the later one knows more.
    #[must_use]
    fn larger(&self, other: &Self) -> Self {
        self.each_count(other, u64::max)
    }

    /// One model's total, with what its replies tell of it.
    fn explained_by(&self, seen: &Self) -> Self {
        let total = Self { requests_seen: seen.requests_seen, ..*self };
        let split = seen.cache_write_5m.saturating_add(seen.cache_write_1h);
        if split > total.cache_write_unsplit {
            return total;
        }
        Self {
            cache_write_5m: seen.cache_write_5m,
            cache_write_1h: seen.cache_write_1h,
            cache_write_unsplit: total.cache_write_unsplit - split,
            ..total
        }
    }

    fn minus(&self, other: &Self) -> Self {
        self.each_count(other, u64::saturating_sub)
    }

    /// Applies `f` to each pair of counts. The cost is left unknown.
    fn each_count(&self, other: &Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            input: f(self.input, other.input),
            output: f(self.output, other.output),
            cache_read: f(self.cache_read, other.cache_read),
            cache_write_5m: f(self.cache_write_5m, other.cache_write_5m),
            cache_write_1h: f(self.cache_write_1h, other.cache_write_1h),
            cache_write_unsplit: f(self.cache_write_unsplit, other.cache_write_unsplit),
            requests_seen: f(self.requests_seen, other.requests_seen),
            web_searches: f(self.web_searches, other.web_searches),
            cost_usd: None,
            cost_basis: CostBasis::Unknown,
        }
    }
}

/// Usage by the model's name. Part of `trajectory.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UsageByModel(BTreeMap<String, Usage>);

impl UsageByModel {
    /// Adds to what `model` used.
    pub fn add(&mut self, model: &str, usage: &Usage) {
        match self.0.get_mut(model) {
            Some(sum) => *sum = sum.plus(usage),
            None => {
                self.0.insert(model.to_owned(), *usage);
            }
        }
    }

    /// What `model` used.
    #[must_use]
    pub fn get(&self, model: &str) -> Option<&Usage> {
        self.0.get(model)
    }

    /// Each model with what it used, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Usage)> {
        self.0.iter().map(|(model, usage)| (model.as_str(), usage))
    }

    /// The same usage with its costs settled. `estimate` gives a model's cost by the price table.
    #[must_use]
    pub fn priced(mut self, estimate: impl Fn(&str, &Usage) -> Option<f64>) -> Self {
        for (model, usage) in &mut self.0 {
            let estimate = estimate(model, usage);
            let agrees = |reported: f64| {
                estimate.is_some_and(|cost| (reported - cost).abs() <= COST_TOLERANCE * cost.abs())
            };
            usage.cost_basis = match estimate {
                Some(_) if usage.cost_usd.is_some_and(agrees) => CostBasis::Reported,
                Some(_) => CostBasis::Estimated,
                None => CostBasis::Unknown,
            };
            if usage.cost_basis != CostBasis::Reported {
                usage.cost_usd = estimate;
            }
        }
        self
    }

    /// Whether no model used anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sum over all models. Its cost is known only where every model's is.
    #[must_use]
    pub fn total(&self) -> Usage {
        let mut usages = self.0.values();
        let Some(first) = usages.next() else { return Usage::default() };
        usages.fold(*first, |sum, usage| sum.plus(usage))
    }

    /// The name under which `model` stands here. An agent counts under the name that it asked for,
    /// a provider answers with the release's full name.
    pub(super) fn name_of(&self, model: &str) -> Option<&str> {
        if let Some((name, _)) = self.0.get_key_value(model) {
            return Some(name);
        }
        self.0.keys().find(|name| same_model(name, model)).map(String::as_str)
    }

    /// For each model, the account with more tokens.
    #[must_use]
    pub(super) fn or_larger(mut self, other: &Self) -> Self {
        for (model, usage) in &other.0 {
            let name = self.name_of(model).unwrap_or(model).to_owned();
            let known = self.0.entry(name).or_default();
            if known.total() < usage.total() {
                *known = *usage;
            }
        }
        self
    }

    /// These totals, with two things that only the replies tell: how many there were, and how long
    /// the cache keeps what they wrote. What the replies do not explain stays unsplit; a split
    /// that is larger than the total explains nothing and is not used.
    #[must_use]
    pub(super) fn explained_by(&self, replies: &Self) -> Self {
        let mut seen = Self::default();
        for (model, usage) in &replies.0 {
            seen.add(self.name_of(model).unwrap_or(model), usage);
        }
        let explained = self.0.iter().map(|(model, total)| {
            let seen = seen.get(model).copied().unwrap_or_default();
            (model.clone(), total.explained_by(&seen))
        });
        Self(explained.collect())
    }
}

/// How a usage is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// Nothing is known.
    #[default]
    None,
    /// The replies seen so far. Input counts are right for these, output counts are placeholders,
    /// and side calls are missing.
    Live,
    /// The agent's own totals, in its last result. Complete but for requests that broke off.
    AgentResult,
    /// The gateway's ledger: what each reply that came whole said it used.
    Wire,
    /// The session files that the agent left. Right for each reply; side calls are missing.
    SessionFiles,
}

/// What a run used, and how that is known. Part of `trajectory.json`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UsageReport {
    /// How it is known.
    pub source: UsageSource,
    /// What each model used.
    pub by_model: UsageByModel,
}

impl UsageReport {
    /// The sum of two usages. It is known no better than the worse of them; one of nothing does not
    /// count.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let source = match (self.source, other.source) {
            (UsageSource::None, source) | (source, UsageSource::None) => source,
            (UsageSource::Live, _) | (_, UsageSource::Live) => UsageSource::Live,
            (UsageSource::SessionFiles, _) | (_, UsageSource::SessionFiles) => {
                UsageSource::SessionFiles
            }
            (UsageSource::Wire, _) | (_, UsageSource::Wire) => UsageSource::Wire,
            (UsageSource::AgentResult, UsageSource::AgentResult) => UsageSource::AgentResult,
        };
        let mut by_model = self.by_model.clone();
        other.by_model.iter().for_each(|(model, usage)| by_model.add(model, usage));
        Self { source, by_model }
    }
}

/// Adds up replies of which each may be reported several times, in any order.
#[derive(Debug, Clone, Default)]
pub struct ReplyLedger {
    /// The largest report of each reply that is kept, by its id.
    replies: HashMap<String, (String, Usage)>,
    /// Their ids from the oldest, where only so many are kept.
    recent: Option<VecDeque<String>>,
    n_replies: usize,
    by_model: UsageByModel,
}

/// How many replies a ledger of a stream keeps apart. A reply's reports come one after the other,
/// with those of a few sub-agents between them, so older ones are never reported again.
const RECENT_REPLIES: usize = 1_000;

impl ReplyLedger {
    /// A ledger of a stream, whose memory does not grow with the stream: it adds up every reply and
    /// keeps the last thousand apart.
    #[must_use]
    pub fn of_stream() -> Self {
        Self { recent: Some(VecDeque::new()), ..Self::default() }
    }

    /// Takes a report of the reply `id`. Says whether the reply is new. A reply stays with the
    /// model that it was first reported for.
    pub fn note(&mut self, id: &str, model: &str, usage: &Usage) -> bool {
        if let Some((model, known)) = self.replies.get_mut(id) {
            let larger = known.larger(&Usage { requests_seen: 0, ..*usage });
            self.by_model.add(model, &larger.minus(known));
            *known = larger;
            return false;
        }
        let usage = Usage { requests_seen: 1, cost_usd: None, ..*usage };
        self.by_model.add(model, &usage);
        self.replies.insert(id.to_owned(), (model.to_owned(), usage));
        self.n_replies += 1;
        if let Some(recent) = &mut self.recent {
            recent.push_back(id.to_owned());
            if recent.len() > RECENT_REPLIES
                && let Some(oldest) = recent.pop_front()
            {
                self.replies.remove(&oldest);
            }
        }
        true
    }

    /// Whether the reply `id` was reported and is kept.
    #[must_use]
    pub fn contains(&self, id: &str) -> bool {
        self.replies.contains_key(id)
    }

    /// Every reply that is kept, with its model and usage, in no order.
    pub fn replies(&self) -> impl Iterator<Item = (&str, &str, &Usage)> {
        self.replies.iter().map(|(id, (model, usage))| (id.as_str(), model.as_str(), usage))
    }

    /// How many different replies were reported.
    #[must_use]
    pub fn n_replies(&self) -> usize {
        self.n_replies
    }

    /// The sums.
    #[must_use]
    pub fn by_model(&self) -> &UsageByModel {
        &self.by_model
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usage(input: u64, output: u64, cache: [u64; 3]) -> Usage {
        let [cache_write_5m, cache_write_1h, cache_write_unsplit] = cache;
        Usage {
            input,
            output,
            cache_write_5m,
            cache_write_1h,
            cache_write_unsplit,
            ..Usage::default()
        }
    }

    fn by_model(usage: Usage) -> UsageByModel {
        UsageByModel(BTreeMap::from([("m".to_owned(), usage)]))
    }

    /// Reports of up to eight replies, each by a model that its id decides.
    fn reports() -> impl Strategy<Value = Vec<(u8, Usage)>> {
        let report = (0..8_u8, any::<[u32; 3]>()).prop_map(|(id, [input, output, written])| {
            (id, usage(input.into(), output.into(), [written.into(), 0, 0]))
        });
        proptest::collection::vec(report, 0..40)
    }

    fn sums(reports: &[(u8, Usage)]) -> UsageByModel {
        let mut ledger = ReplyLedger::default();
        for (id, usage) in reports {
            ledger.note(&format!("msg_{id}"), &format!("model_{}", id % 2), usage);
        }
        ledger.by_model().clone()
    }

    #[test]
    fn a_streams_ledger_adds_up_everything_and_keeps_the_last_replies() {
        let mut ledger = ReplyLedger::of_stream();
        let one = Usage { input: 3, output: 1, ..Usage::default() };
        for number in 0..RECENT_REPLIES + 500 {
            assert!(ledger.note(&format!("msg_{number}"), "m", &one));
            // Each block of a reply reports it once more.
            assert!(!ledger.note(&format!("msg_{number}"), "m", &Usage { output: 2, ..one }));
        }
        assert_eq!(ledger.n_replies(), RECENT_REPLIES + 500);
        assert_eq!(ledger.replies().count(), RECENT_REPLIES);
        assert!(ledger.contains("msg_1499") && !ledger.contains("msg_0"));
        let total = ledger.by_model().total();
        assert_eq!((total.input, total.output, total.requests_seen), (4_500, 3_000, 1_500));
    }

    proptest! {
        #[test]
        fn a_ledger_does_not_depend_on_order_or_repetition(
            (reports, shuffled) in
                reports().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        ) {
            let twice: Vec<_> = shuffled.iter().chain(&reports).copied().collect();
            prop_assert_eq!(sums(&reports), sums(&shuffled));
            prop_assert_eq!(sums(&reports), sums(&twice));
        }

        #[test]
        fn a_ledger_counts_each_reply_once_with_its_largest_report(reports in reports()) {
            let mut largest: BTreeMap<u8, Usage> = BTreeMap::new();
            for (id, usage) in &reports {
                let known = largest.entry(*id).or_default();
                *known = known.larger(usage);
            }
            let total = sums(&reports).total();
            prop_assert_eq!(total.requests_seen, largest.len() as u64);
            prop_assert_eq!(total.input, largest.values().map(|usage| usage.input).sum::<u64>());
            prop_assert_eq!(total.output, largest.values().map(|usage| usage.output).sum::<u64>());
        }
    }

    #[test]
    fn the_replies_split_the_cache_writes_that_they_explain() {
        for (total, replies, expected) in [
            ([0, 0, 10], [10, 0, 0], [10, 0, 0]),
            ([0, 0, 10], [3, 4, 0], [3, 4, 3]),
            ([0, 0, 10], [8, 4, 0], [0, 0, 10]),
            ([0, 0, 10], [0, 0, 10], [0, 0, 10]),
        ] {
            let totals = by_model(usage(1, 2, total));
            let explained = totals.explained_by(&by_model(usage(1, 1, replies)));
            assert_eq!(explained, by_model(usage(1, 2, expected)), "{total:?} {replies:?}");
        }
    }

    #[test]
    fn a_reply_is_known_by_the_full_name_of_the_model_that_was_asked_for() {
        let named = |name: &str, usage| {
            let mut by_model = UsageByModel::default();
            by_model.add(name, &usage);
            by_model
        };
        let totals = named("claude-haiku-4-5", usage(10, 5, [0, 0, 8]));
        let seen = Usage { requests_seen: 2, ..usage(9, 1, [8, 0, 0]) };
        let replies = named("claude-haiku-4-5-20251001", seen);
        let explained = Usage { requests_seen: 2, ..usage(10, 5, [8, 0, 0]) };
        assert_eq!(totals.explained_by(&replies), named("claude-haiku-4-5", explained));
        assert_eq!(totals.clone().or_larger(&replies), totals);
        let larger = named("claude-haiku-4-5-20251001", usage(99, 1, [0; 3]));
        let expected = named("claude-haiku-4-5", usage(99, 1, [0; 3]));
        assert_eq!(totals.or_larger(&larger), expected);
    }

    #[test]
    fn a_sum_has_a_cost_only_where_every_part_has_one() {
        let priced = Usage { cost_usd: Some(0.5), ..Usage::default() };
        assert_eq!(priced.plus(&priced).cost_usd, Some(1.0));
        assert_eq!(priced.plus(&Usage::default()).cost_usd, None);
        assert_eq!(UsageByModel::default().total().cost_usd, None);
        assert_eq!(by_model(priced).total().cost_usd, Some(0.5));
    }

    #[test]
    fn sums_saturate() {
        let huge = usage(u64::MAX, u64::MAX, [u64::MAX; 3]);
        assert_eq!(huge.plus(&huge), huge);
        assert_eq!(huge.total(), u64::MAX);
    }
}
