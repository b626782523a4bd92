//! What requests take, in every measure.

use crate::run::Measure;

/// Most tokens that a request may ask of one answer: several times what any model gives. More is no wish
/// but a number, and sums of such numbers would be good for nothing.
pub const MAX_ANSWER_TOKENS: u64 = 1_000_000;

/// What requests took or may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Millionths of a dollar.
    pub cost: u64,
    /// Tokens of every kind.
    pub tokens: u64,
    /// Requests for a message.
    pub requests: u64,
}

impl Amounts {
    /// The amount of a measure, in its unit.
    #[must_use]
    pub fn of(&self, measure: Measure) -> u64 {
        match measure {
            Measure::Cost => self.cost,
            Measure::Tokens => self.tokens,
            Measure::Requests => self.requests,
        }
    }

    /// The sum of two.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            cost: self.cost.saturating_add(other.cost),
            tokens: self.tokens.saturating_add(other.tokens),
            requests: self.requests.saturating_add(other.requests),
        }
    }

    /// What is left of it without another one.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self {
            cost: self.cost.saturating_sub(other.cost),
            tokens: self.tokens.saturating_sub(other.tokens),
            requests: self.requests.saturating_sub(other.requests),
        }
    }
}
