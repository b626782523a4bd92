//! The variables that set limits: the server's own are ceilings, a collection's may narrow them.

use std::num::NonZeroU64;

use crate::run::{Allowance, Caps, Rate, Usd};

/// The variables, with what each limits.
pub const VARIABLES: [(&str, &str); 11] = [
    ("RUNBOOKD_MAX_COST_USD_PER_RUN", "dollars that a run may cost"),
    ("RUNBOOKD_MAX_TOKENS_PER_RUN", "tokens that a run may use"),
    ("RUNBOOKD_MAX_REQUESTS_PER_RUN", "requests that a run may make"),
    ("RUNBOOKD_MAX_COST_USD_PER_DAY", "dollars that a collection may cost in a day"),
    ("RUNBOOKD_MAX_TOKENS_PER_DAY", "tokens that a collection may use in a day"),
    ("RUNBOOKD_MAX_REQUESTS_PER_DAY", "requests that a collection may make in a day"),
    ("RUNBOOKD_MAX_COST_USD_PER_MONTH", "dollars that a collection may cost in a month"),
    ("RUNBOOKD_MAX_TOKENS_PER_MONTH", "tokens that a collection may use in a month"),
    ("RUNBOOKD_MAX_REQUESTS_PER_MONTH", "requests that a collection may make in a month"),
    ("RUNBOOKD_MAX_REQUESTS_PER_MINUTE", "requests that a collection may make in a minute"),
    ("RUNBOOKD_MAX_TOKENS_PER_MINUTE", "tokens that a collection may use in a minute"),
];

/// The limits that variables set, and a sentence for each that cannot be read.
#[must_use]
pub fn read_allowance<'a>(value: impl Fn(&str) -> Option<&'a str>) -> (Allowance, Vec<String>) {
    let mut faults = Vec::new();
    let mut caps = |span: &str| Caps {
        cost: usd(&format!("RUNBOOKD_MAX_COST_USD_PER_{span}"), &value, &mut faults),
        tokens: count(&format!("RUNBOOKD_MAX_TOKENS_PER_{span}"), &value, &mut faults),
        requests: count(&format!("RUNBOOKD_MAX_REQUESTS_PER_{span}"), &value, &mut faults),
    };
    let (run, day, month) = (caps("RUN"), caps("DAY"), caps("MONTH"));
    let rate = Rate {
        requests: count("RUNBOOKD_MAX_REQUESTS_PER_MINUTE", &value, &mut faults),
        tokens: count("RUNBOOKD_MAX_TOKENS_PER_MINUTE", &value, &mut faults),
    };
    (Allowance { run, day, month, rate }, faults)
}

fn usd<'a>(
    name: &str,
    value: &impl Fn(&str) -> Option<&'a str>,
    faults: &mut Vec<String>,
) -> Option<Usd> {
    let amount = value(name)?.trim().parse().ok().and_then(Usd::new).filter(|usd| usd.micros() > 0);
    if amount.is_none() {
        // Somebody may have put another variable's value there.
        faults.push(format!("{name} is not a number of dollars above 0, such as `2.50`"));
    }
    amount
}

fn count<'a>(
    name: &str,
    value: &impl Fn(&str) -> Option<&'a str>,
    faults: &mut Vec<String>,
) -> Option<u64> {
    let number = value(name)?.trim().parse::<NonZeroU64>().ok().map(NonZeroU64::get);
    if number.is_none() {
        faults.push(format!("{name} is not a whole number above 0"));
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_read_and_every_fault_is_told() {
        let (all, faults) = read_allowance(|name| {
            assert!(VARIABLES.iter().any(|(known, _)| *known == name), "{name}");
            Some(if name.contains("USD") { "2.5" } else { "7" })
        });
        let caps = Caps { cost: Usd::new(2.5), tokens: Some(7), requests: Some(7) };
        let rate = Rate { requests: Some(7), tokens: Some(7) };
        assert_eq!(all, Allowance { run: caps, day: caps, month: caps, rate });
        assert!(faults.is_empty());
        for wrong in ["", "0", "-1", "much", "1e400", "$2"] {
            let (none, faults) = read_allowance(|_| Some(wrong));
            assert_eq!((none, faults.len()), (Allowance::default(), VARIABLES.len()), "{wrong}");
        }
    }
}
