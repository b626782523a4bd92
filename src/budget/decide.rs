//! Whether a request may go on now.

use std::time::Duration;

use super::amounts::Amounts;
use super::calendar::Period;
use crate::run::{Allowance, Caps, Exhausted, Measure, Span};

/// What was taken in one span.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    /// What was spent, and what requests in flight may take.
    pub taken: Amounts,
    /// Of it, what requests in flight may take: some of it may come back.
    pub held: Amounts,
}

/// What was taken in each span that a request counts for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balances {
    /// Of the run.
    pub run: Balance,
    /// Of its collection's day.
    pub day: Balance,
    /// Of its collection's month.
    pub month: Balance,
}

impl Balances {
    fn of(&self, span: Span) -> &Balance {
        match span {
            Span::Run => &self.run,
            Span::Day => &self.day,
            Span::Month => &self.month,
        }
    }
}

/// What follows for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may go on.
    Go,
    /// Others in flight may leave enough.
    AwaitOthers,
    /// It comes too soon.
    TooSoon(Duration),
    /// It would pass a limit.
    Refuse(Exhausted),
}

/// Decides on a request that may take `need`. `too_soon` is how long it must wait for its
/// collection's rate.
#[must_use]
pub fn decide(
    allowance: &Allowance,
    balances: &Balances,
    need: &Amounts,
    period: &Period,
    too_soon: Duration,
) -> Decision {
    let mut must_wait = false;
    for span in [Span::Run, Span::Day, Span::Month] {
        let (caps, balance) = (allowance.of(span), balances.of(span));
        if fits(caps, &balance.taken, need).is_ok() {
            continue;
        }
        match fits(caps, &balance.taken.minus(&balance.held), need) {
            Ok(()) => must_wait = true,
            // What is in flight may be spent too, so it is told as spent.
            Err(measure) => {
                return Decision::Refuse(exhausted(span, measure, (caps, balance, need), period));
            }
        }
    }
    if must_wait {
        Decision::AwaitOthers
    } else if too_soon.is_zero() {
        Decision::Go
    } else {
        Decision::TooSoon(too_soon)
    }
}

/// Whether there is room for `need` beside what was taken.
///
/// # Errors
/// The measure that has no room.
pub fn fits(caps: &Caps, taken: &Amounts, need: &Amounts) -> Result<(), Measure> {
    let passes = |measure: &Measure| {
        let after = taken.of(*measure).saturating_add(need.of(*measure));
        caps.of(*measure).is_some_and(|limit| after > limit)
    };
    Measure::ALL.iter().find(|measure| passes(measure)).map_or(Ok(()), |measure| Err(*measure))
}

fn exhausted(
    span: Span,
    measure: Measure,
    (caps, balance, need): (&Caps, &Balance, &Amounts),
    period: &Period,
) -> Exhausted {
    Exhausted {
        span,
        measure,
        limit: caps.of(measure).unwrap_or(u64::MAX),
        spent: balance.taken.of(measure),
        asked: need.of(measure),
        opens: period.opens(span),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::calendar::period;
    use super::*;
    use crate::run::Usd;

    fn amounts(cost: u64, requests: u64) -> Amounts {
        Amounts { cost, tokens: 0, requests }
    }

    fn allowance(run: u64, day: u64) -> Allowance {
        let caps = |cost| Caps { cost: Some(Usd::from_micros(cost)), ..Caps::default() };
        Allowance { run: caps(run), day: caps(day), ..Allowance::default() }
    }

    fn told(balances: Balances, need: u64, wait_ms: u64) -> String {
        let now = "2026-11-21T18:00:00Z".parse().unwrap();
        let wait = Duration::from_millis(wait_ms);
        let need = amounts(need, 1);
        match decide(&allowance(100, 1_000), &balances, &need, &period(now), wait) {
            Decision::Go => "go".to_owned(),
            Decision::AwaitOthers => "await others".to_owned(),
            Decision::TooSoon(wait) => format!("wait {wait:?}"),
            Decision::Refuse(e) => {
                format!("refuse {:?} {:?} {} of {}", e.span, e.measure, e.spent, e.limit)
            }
        }
    }

    #[test]
    fn a_request_goes_waits_or_is_refused() {
        let balance = |taken, held| Balance { taken: amounts(taken, 2), held: amounts(held, 1) };
        let of_run = |taken, held| Balances { run: balance(taken, held), ..Balances::default() };
        for (balances, need, wait_ms, expected) in [
            (of_run(0, 0), 100, 0, "go"),
            (of_run(50, 0), 50, 0, "go"),
            (of_run(50, 0), 51, 0, "refuse Run Cost 50 of 100"),
            (of_run(50, 30), 51, 0, "await others"),
            (of_run(50, 30), 51, 9, "await others"),
            (of_run(50, 30), 81, 9, "refuse Run Cost 50 of 100"),
            (of_run(50, 30), 50, 9, "wait 9ms"),
            (
                Balances { day: balance(990, 0), ..Balances::default() },
                11,
                0,
                "refuse Day Cost 990 of 1000",
            ),
            // What others of the run may leave does not help against the day.
            (
                Balances { day: balance(990, 0), ..of_run(95, 90) },
                11,
                0,
                "refuse Day Cost 990 of 1000",
            ),
        ] {
            assert_eq!(told(balances, need, wait_ms), expected, "{balances:?} {need}");
        }
    }

    proptest! {
        #[test]
        fn whatever_goes_stays_under_every_limit(
            caps in [0_u64..50, 0..50, 0..50], taken in [0_u64..60, 0..60, 0..60],
            need in [0_u64..60, 0..60, 0..60],
        ) {
            let amounts = |[cost, tokens, requests]: [u64; 3]| Amounts { cost, tokens, requests };
            let caps = Caps {
                cost: Some(Usd::from_micros(caps[0])), tokens: Some(caps[1]), requests: Some(caps[2]),
            };
            let (taken, need) = (amounts(taken), amounts(need));
            let after = taken.plus(&need);
            let is_under = Measure::ALL.iter().all(|m| after.of(*m) <= caps.of(*m).unwrap());
            prop_assert_eq!(fits(&caps, &taken, &need).is_ok(), is_under);
        }
    }
}
