//! Variables as values, with a fault for each that is none.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

/// Reads variables and notes those that cannot be read.
pub(super) struct Reader<'a> {
    pub(super) vars: &'a BTreeMap<String, String>,
    pub(super) faults: &'a mut Vec<String>,
}

impl Reader<'_> {
    pub(super) fn at_all<T: FromStr>(&mut self, name: &str, wanted: &str) -> Option<T> {
        let text = self.vars.get(name)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.faults.push(format!("{name} is `{text}`: write {wanted}"));
        }
        value
    }

    pub(super) fn or<T: FromStr>(&mut self, name: &str, wanted: &str, default: T) -> T {
        self.at_all(name, wanted).unwrap_or(default)
    }

    /// The values of a list with commas between them.
    pub(super) fn list<T: FromStr>(&mut self, name: &str, wanted: &str) -> Vec<T> {
        let Some(text) = self.vars.get(name) else { return Vec::new() };
        let values = text.split(',').map(|value| value.trim().parse().ok());
        let values: Option<Vec<T>> = values.collect();
        values.unwrap_or_else(|| {
            self.faults.push(format!("{name} is `{text}`: write {wanted}"));
            Vec::new()
        })
    }

    pub(super) fn number(&mut self, name: &str, default: usize) -> usize {
        self.at_all(name, "a number above 0").map_or(default, NonZeroUsize::get)
    }

    pub(super) fn flag(&mut self, name: &str) -> bool {
        self.or(name, "0 or 1", 0_u8) != 0
    }

    /// A length in days, where 0 is without end.
    pub(super) fn days(&mut self, name: &str, default: u32) -> Option<Duration> {
        let days = self.or(name, "a number of days, or 0 for ever", default);
        (days > 0).then(|| Duration::from_secs(24 * 3600) * days)
    }

    pub(super) fn seconds(&mut self, name: &str, default: u64) -> Duration {
        Duration::from_secs(self.or(name, "a number of seconds", default))
    }
}
