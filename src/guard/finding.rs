//! What was found, without what it was.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::GuardAction;

/// What was found in one prompt: never the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardFinding {
    /// What it is, such as `payment_card`.
    pub kind: String,
    /// How often.
    pub count: u64,
    /// What was done.
    pub action: GuardAction,
}

/// What was found in all prompts of a run. Part of `trajectory.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardSummary {
    /// What it is.
    pub kind: String,
    /// What was done.
    pub action: GuardAction,
    /// In how many requests.
    pub requests: u64,
    /// How often in the one that had it most: each request repeats those before it.
    pub most_in_a_request: u64,
}

/// Sums up what was found, request by request.
pub fn summed<'f>(requests: impl Iterator<Item = &'f [GuardFinding]>) -> Vec<GuardSummary> {
    let mut sums: BTreeMap<(&str, GuardAction), (u64, u64)> = BTreeMap::new();
    for finding in requests.flatten() {
        let (n, most) = sums.entry((&finding.kind, finding.action)).or_default();
        *n += 1;
        *most = finding.count.max(*most);
    }
    let summary = |((kind, action), (requests, most_in_a_request)): ((&str, _), _)| GuardSummary {
        kind: kind.to_owned(),
        action,
        requests,
        most_in_a_request,
    };
    sums.into_iter().map(summary).collect()
}
