//! How much may be spent: amounts, limits, and the word for a limit that was reached.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Millionths in a dollar.
const MICROS: f64 = 1e6;

/// Largest amount that is read, in dollars. More is a mistake in the unit.
const MAX_USD: f64 = 1e9;

/// US dollars, in millionths. In JSON it is a number of dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Usd(u64);

impl Usd {
    /// So many millionths.
    #[must_use]
    pub fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// An amount that somebody wrote; `None` where it is no amount from 0 to a billion dollars.
    #[must_use]
    pub fn new(usd: f64) -> Option<Self> {
        (0.0..=MAX_USD).contains(&usd).then(|| Self::at_least(usd))
    }

    /// An amount that was computed, rounded up: what is billed is never more than is counted.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast of a number that is out of range gives the nearest, and that is wanted"
    )]
    pub fn at_least(usd: f64) -> Self {
        // A sum of floating point numbers is off by far less than this.
        Self((usd * MICROS - 1e-6).ceil() as u64)
    }

    /// The millionths.
    #[must_use]
    pub fn micros(self) -> u64 {
        self.0
    }

    /// As a number of dollars.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "amounts have fewer millionths than 2^53")]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / MICROS
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:06}", self.0 % 1_000_000);
        let cents = 2.max(fraction.trim_end_matches('0').len());
        write!(f, "${}.{}", self.0 / 1_000_000, &fraction[..cents])
    }
}

impl Serialize for Usd {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(self.dollars())
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let usd = f64::deserialize(from)?;
        Self::new(usd).ok_or_else(|| serde::de::Error::custom("not an amount of dollars"))
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Money, in millionths of a dollar.
    Cost,
    /// Tokens of every kind.
    Tokens,
    /// Requests for a message.
    Requests,
}

impl Measure {
    /// Every measure.
    pub const ALL: [Self; 3] = [Self::Cost, Self::Tokens, Self::Requests];
}

/// Over what it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// One run, all its steps together.
    Run,
    /// A collection's day in UTC.
    Day,
    /// A collection's month in UTC.
    Month,
}

impl Span {
    /// The word in records and figures.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

/// Limits of one span. A limit that is absent is none. Part of a gateway's order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Caps {
    /// The most that it may cost.
    pub cost: Option<Usd>,
    /// The most tokens.
    pub tokens: Option<u64>,
    /// The most requests.
    pub requests: Option<u64>,
}

impl Caps {
    /// The limit of a measure, in its unit.
    #[must_use]
    pub fn of(&self, measure: Measure) -> Option<u64> {
        match measure {
            Measure::Cost => self.cost.map(Usd::micros),
            Measure::Tokens => self.tokens,
            Measure::Requests => self.requests,
        }
    }

    /// Of each limit the narrower one.
    #[must_use]
    pub fn narrowed(self, other: Self) -> Self {
        Self {
            cost: narrower(self.cost, other.cost),
            tokens: narrower(self.tokens, other.tokens),
            requests: narrower(self.requests, other.requests),
        }
    }

    /// Whether nothing is limited.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How fast a collection may ask, all its runs together. Part of a gateway's order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rate {
    /// Requests in a minute.
    pub requests: Option<u64>,
    /// Tokens in a minute.
    pub tokens: Option<u64>,
}

/// Everything that limits what a run may spend. Part of a gateway's order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Allowance {
    /// The run's own limits.
    pub run: Caps,
    /// Its collection's in a day.
    pub day: Caps,
    /// Its collection's in a month.
    pub month: Caps,
    /// How fast its collection may ask.
    pub rate: Rate,
}

impl Allowance {
    /// Of each limit the narrower one.
    #[must_use]
    pub fn narrowed(self, other: Self) -> Self {
        Self {
            run: self.run.narrowed(other.run),
            day: self.day.narrowed(other.day),
            month: self.month.narrowed(other.month),
            rate: Rate {
                requests: narrower(self.rate.requests, other.rate.requests),
                tokens: narrower(self.rate.tokens, other.rate.tokens),
            },
        }
    }

    /// The limits of a span.
    #[must_use]
    pub fn of(&self, span: Span) -> &Caps {
        match span {
            Span::Run => &self.run,
            Span::Day => &self.day,
            Span::Month => &self.month,
        }
    }

    /// The narrowest limit of a measure over all spans, in its unit.
    #[must_use]
    pub fn narrowest(&self, measure: Measure) -> Option<u64> {
        [self.run, self.day, self.month].iter().filter_map(|caps| caps.of(measure)).min()
    }

    /// Whether nothing is limited.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

fn narrower<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// A limit that a request would not have kept. Part of a gateway's ledger and of a run's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exhausted {
    /// Over what it is counted.
    pub span: Span,
    /// What is counted; dollars are in millionths.
    pub measure: Measure,
    /// The limit.
    pub limit: u64,
    /// What was spent of it, and what answers that came at the same time might take.
    pub spent: u64,
    /// What the request could have taken.
    pub asked: u64,
    /// When the span ends and the next one begins; `None` for a run.
    pub opens: Option<Timestamp>,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.span {
            Span::Run => "this run",
            Span::Day => "this collection in a day",
            Span::Month => "this collection in a month",
        };
        let Self { limit, spent, asked, .. } = self;
        match self.measure {
            Measure::Cost => {
                let usd = |micros: &u64| Usd::from_micros(*micros);
                let (limit, spent, asked) = (usd(limit), usd(spent), usd(asked));
                write!(
                    f,
                    "{spent} of the {limit} that {who} may cost are spent, and the next request \
                     could cost up to {asked}"
                )
            }
            Measure::Tokens => write!(
                f,
                "{spent} of the {limit} tokens that {who} may use are used, and the next request \
                 could use up to {asked}"
            ),
            Measure::Requests => {
                write!(f, "{spent} of the {limit} requests that {who} may make are made")
            }
        }?;
        match self.opens {
            Some(opens) => write!(f, "; it opens again at {opens}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_rounded_up_and_written_with_as_many_digits_as_they_have() {
        for (usd, micros, text) in [
            (0.0, 0, "$0.00"),
            (0.1, 100_000, "$0.10"),
            (0.3, 300_000, "$0.30"),
            (2.5, 2_500_000, "$2.50"),
            (0.000_000_4, 1, "$0.000001"),
            (12.034_5, 12_034_500, "$12.0345"),
        ] {
            let amount = Usd::new(usd).unwrap();
            assert_eq!((amount.micros(), amount.to_string().as_str()), (micros, text));
            assert_eq!(
                serde_json::from_str::<Usd>(&serde_json::to_string(&amount).unwrap()).unwrap(),
                amount
            );
        }
        for wrong in [-0.1, f64::NAN, f64::INFINITY, 1e10] {
            assert_eq!(Usd::new(wrong), None);
        }
    }

    #[test]
    fn the_narrower_limit_counts_and_one_that_is_absent_is_none() {
        let one = Caps { cost: Usd::new(1.0), tokens: None, requests: Some(3) };
        let other = Caps { cost: Usd::new(2.0), tokens: Some(9), requests: Some(2) };
        let narrowed = Caps { cost: Usd::new(1.0), tokens: Some(9), requests: Some(2) };
        assert_eq!((one.narrowed(other), other.narrowed(one)), (narrowed, narrowed));
        assert!(Caps::default().is_none() && !one.is_none());
        let allowance = Allowance { run: one, day: other, ..Allowance::default() };
        assert_eq!(allowance.narrowest(Measure::Requests), Some(2));
    }

    #[test]
    fn a_limit_that_was_reached_is_told_in_words_and_numbers() {
        let exhausted = Exhausted {
            span: Span::Run,
            measure: Measure::Cost,
            limit: 100_000,
            spent: 93_100,
            asked: 31_200,
            opens: None,
        };
        assert_eq!(
            exhausted.to_string(),
            "$0.0931 of the $0.10 that this run may cost are spent, and the next request could cost \
             up to $0.0312"
        );
        let day = Exhausted {
            span: Span::Day,
            measure: Measure::Requests,
            opens: Some(Timestamp::UNIX_EPOCH),
            ..exhausted
        };
        assert!(day.to_string().ends_with("are made; it opens again at 1970-01-01T00:00:00Z"));
    }
}
