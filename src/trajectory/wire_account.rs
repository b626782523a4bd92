//! The second account of a run's usage: what its requests said on the wire, beside what the agent
//! says of itself.

use std::collections::BTreeMap;

use serde::Serialize;

use super::usage::{Usage, UsageByModel, UsageReport, UsageSource};
use crate::guard::GuardSummary;

/// How the two accounts compare. Part of `trajectory.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reconciliation {
    /// They agree to the token.
    Exact,
    /// The agent left none.
    WireOnly,
    /// Nothing was metered on the wire.
    AgentOnly,
    /// They do not agree; `difference` says where.
    Differs,
}

/// What was metered on the wire. Part of `trajectory.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WireAccount {
    /// Requests by how they ended.
    pub requests: BTreeMap<String, u64>,
    /// What the replies used that were passed on whole.
    pub models: UsageByModel,
    /// What the others had told until they broke off. It may be billed, and no agent counts it.
    pub broken_off: UsageByModel,
    /// What the guardrails found in its prompts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub guard: Vec<GuardSummary>,
}

/// Tokens of the agent's account that are more (or, below zero, less) than the wire's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TokenDifference {
    input: i128,
    output: i128,
    cache_read: i128,
    cache_write: i128,
}

impl TokenDifference {
    fn of(agent: &Usage, wire: &Usage) -> Option<Self> {
        let minus = |one: u64, two: u64| i128::from(one) - i128::from(two);
        let difference = Self {
            input: minus(agent.input, wire.input),
            output: minus(agent.output, wire.output),
            cache_read: minus(agent.cache_read, wire.cache_read),
            cache_write: minus(agent.cache_write(), wire.cache_write()),
        };
        let none = Self { input: 0, output: 0, cache_read: 0, cache_write: 0 };
        (difference != none).then_some(difference)
    }
}

/// The two accounts beside each other. Part of `trajectory.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reconciled {
    /// How they compare.
    pub reconciliation: Reconciliation,
    /// Where they differ, by model.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub difference: BTreeMap<String, TokenDifference>,
    /// The wire's account, where there is one.
    pub wire: Option<WireAccount>,
}

impl Default for Reconciled {
    fn default() -> Self {
        Self::new(&UsageReport::default(), None)
    }
}

impl Reconciled {
    /// Compares the agent's account with the wire's.
    #[must_use]
    pub fn new(agent: &UsageReport, wire: Option<WireAccount>) -> Self {
        let metered = wire.as_ref().filter(|wire| !wire.requests.is_empty());
        let Some(metered) = metered else {
            let reconciliation = Reconciliation::AgentOnly;
            return Self { reconciliation, difference: BTreeMap::new(), wire: None };
        };
        let difference = differences(&agent.by_model, &metered.models);
        let reconciliation = match agent.source {
            UsageSource::None if !metered.models.is_empty() => Reconciliation::WireOnly,
            _ if difference.is_empty() => Reconciliation::Exact,
            UsageSource::None
            | UsageSource::Live
            | UsageSource::AgentResult
            | UsageSource::Wire
            | UsageSource::SessionFiles => Reconciliation::Differs,
        };
        Self { reconciliation, difference, wire }
    }
}

/// An agent and a service can call one model by two names.
fn differences(agent: &UsageByModel, wire: &UsageByModel) -> BTreeMap<String, TokenDifference> {
    let mut renamed = UsageByModel::default();
    for (model, usage) in wire.iter() {
        renamed.add(agent.name_of(model).unwrap_or(model), usage);
    }
    let models = agent.iter().chain(renamed.iter()).map(|(model, _)| model);
    let of = |account: &UsageByModel, model: &str| account.get(model).copied().unwrap_or_default();
    models
        .filter_map(|model| {
            let difference = TokenDifference::of(&of(agent, model), &of(&renamed, model))?;
            Some((model.to_owned(), difference))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(input: u64, output: u64) -> Usage {
        Usage { input, output, ..Usage::default() }
    }

    fn by_model(usages: &[(&str, Usage)]) -> UsageByModel {
        let mut all = UsageByModel::default();
        usages.iter().for_each(|(model, usage)| all.add(model, usage));
        all
    }

    fn word(source: UsageSource, agent: &[(&str, Usage)], wire: &[(&str, Usage)]) -> String {
        let agent = UsageReport { source, by_model: by_model(agent) };
        let wire = WireAccount {
            requests: [("complete".to_owned(), 1)].into(),
            models: by_model(wire),
            broken_off: UsageByModel::default(),
            guard: Vec::new(),
        };
        let reconciled = Reconciled::new(&agent, Some(wire));
        let models: Vec<_> = reconciled.difference.keys().cloned().collect();
        format!("{:?} {}", reconciled.reconciliation, models.join(",")).trim_end().to_owned()
    }

    #[test]
    fn two_accounts_agree_to_the_token_or_say_where_they_do_not() {
        let result = UsageSource::AgentResult;
        for (source, agent, wire, expected) in [
            (result, &[("m", usage(1, 2))][..], &[("m", usage(1, 2))][..], "Exact"),
            (result, &[("claude-x", usage(1, 2))], &[("claude-x-20250101", usage(1, 2))], "Exact"),
            (result, &[("m", usage(1, 2))], &[("m", usage(1, 3))], "Differs m"),
            (result, &[("m", usage(1, 2))], &[], "Differs m"),
            (result, &[], &[("n", usage(1, 3))], "Differs n"),
            (result, &[], &[], "Exact"),
            (UsageSource::None, &[], &[("n", usage(1, 3))], "WireOnly n"),
            (UsageSource::Live, &[("m", usage(1, 1))], &[("m", usage(1, 3))], "Differs m"),
        ] {
            assert_eq!(word(source, agent, wire), expected, "{agent:?} {wire:?}");
        }
        let none = Reconciled::new(&UsageReport::default(), None);
        assert_eq!(none.reconciliation, Reconciliation::AgentOnly);
    }
}
