//! How fast something may be taken: a bucket that holds what is allowed in a minute and fills evenly.

use std::time::Duration;

use jiff::Timestamp;

/// The time in which a bucket fills, in milliseconds.
const MINUTE_MS: i64 = 60_000;

/// Thousandths in one: a slow bucket gains less than one in a millisecond.
const MILLI: i64 = 1_000;

/// Largest limit that is counted with. More is no limit.
const MAX_LIMIT: i64 = 1_000_000_000_000;

/// What may be taken at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Thousandths that are in it. Below 0 where more was taken than was known.
    pub level: i64,
    /// When that was so.
    pub at: Timestamp,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn full(limit: u64, at: Timestamp) -> Self {
        Self { level: whole(limit), at }
    }

    /// The bucket at a later time. A clock that went back fills nothing.
    #[must_use]
    pub fn filled(self, limit: u64, now: Timestamp) -> Self {
        let elapsed = now.as_millisecond().saturating_sub(self.at.as_millisecond());
        // A level far below 0 comes back in as many minutes as it deserves.
        let gained = i128::from(elapsed.max(0)) * i128::from(whole(limit)) / i128::from(MINUTE_MS);
        let level = i128::from(self.level).saturating_add(gained).min(i128::from(whole(limit)));
        Self { level: i64::try_from(level).unwrap_or(i64::MAX), at: now.max(self.at) }
    }

    /// How long to wait until so much may be taken; zero where it may be at once. What is more than
    /// a whole bucket may be taken from a full one.
    #[must_use]
    pub fn wait_for(&self, need: u64, limit: u64) -> Duration {
        let missing = whole(need).min(whole(limit)).saturating_sub(self.level);
        if missing <= 0 {
            return Duration::ZERO;
        }
        let ms = i128::from(missing) * i128::from(MINUTE_MS) / i128::from(whole(limit).max(1)) + 1;
        Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
    }

    /// The bucket after so much was taken, whether it was in it or not.
    #[must_use]
    pub fn without(self, taken: u64) -> Self {
        Self { level: self.level.saturating_sub(whole(taken)), ..self }
    }

    /// The bucket after so much of what was taken came back.
    #[must_use]
    pub fn with(self, given: u64, limit: u64) -> Self {
        Self { level: self.level.saturating_add(whole(given)).min(whole(limit)), ..self }
    }
}

/// So many, in thousandths.
fn whole(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(MAX_LIMIT).min(MAX_LIMIT) * MILLI
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    #[test]
    fn a_bucket_gives_a_minutes_worth_at_once_and_then_as_fast_as_it_fills() {
        let mut bucket = Bucket::full(60, at(0));
        assert_eq!(bucket.wait_for(60, 60), Duration::ZERO);
        bucket = bucket.without(60);
        assert_eq!(bucket.wait_for(1, 60), Duration::from_millis(1_001));
        assert_eq!(bucket.filled(60, at(1_001)).wait_for(1, 60), Duration::ZERO);
        assert_eq!(bucket.filled(60, at(-5)).level, 0);
        assert_eq!(bucket.filled(60, at(1 << 40)).level, 60_000);
    }

    #[test]
    fn what_is_larger_than_a_bucket_waits_for_a_full_one() {
        let bucket = Bucket::full(10, at(0)).without(50);
        assert!(bucket.wait_for(50, 10) > Duration::from_secs(239));
        let full = Bucket::full(10, at(0));
        assert_eq!(full.wait_for(50, 10), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn who_waits_as_long_as_he_is_told_gets_it(
            limit in 1_u64..1_000_000, taken in 0_u64..2_000_000, need in 0_u64..2_000_000,
        ) {
            let bucket = Bucket::full(limit, at(0)).without(taken);
            let wait = i64::try_from(bucket.wait_for(need, limit).as_millis()).unwrap();
            let later = bucket.filled(limit, at(wait));
            prop_assert_eq!(later.wait_for(need, limit), Duration::ZERO);
        }
    }
}
