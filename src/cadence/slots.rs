//! A cadence and its slots: the instants at which it is due.

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan as _};

/// Days that are looked at for the next slot: a week, and one more on each side because a day that
/// a time zone skips moves its slot into the next one.
const LOOKED_AT_DAYS: i64 = 9;

const NANOSECONDS_PER_MINUTE: i128 = 60 * 1_000_000_000;
const NANOSECONDS_PER_HOUR: i128 = 60 * NANOSECONDS_PER_MINUTE;

/// When a schedule runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Cadence {
    rhythm: Rhythm,
    zone: TimeZone,
}

/// How often a schedule runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rhythm {
    /// Only when somebody says so.
    Manual,
    /// Once in each hour, at this minute of UTC.
    Hourly {
        /// 0 to 59.
        minute: i8,
    },
    /// Every day.
    Daily(TimeOfDay),
    /// Monday to Friday.
    Weekdays(TimeOfDay),
    /// Once a week.
    Weekly {
        /// The day.
        day: Weekday,
        /// The time on it.
        at: TimeOfDay,
    },
}

/// A time of day on the clocks of the cadence's time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeOfDay {
    pub(super) hour: i8,
    pub(super) minute: i8,
}

impl Cadence {
    pub(super) fn new(rhythm: Rhythm, zone: TimeZone) -> Self {
        Self { rhythm, zone }
    }

    /// How often it runs.
    #[must_use]
    pub fn rhythm(&self) -> Rhythm {
        self.rhythm
    }

    pub(super) fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The first slot after an instant; `None` when it never runs by itself.
    ///
    /// A time of day that the clocks skip is due when they have skipped it; one that they show
    /// twice is due the first time.
    #[must_use]
    pub fn next_after(&self, instant: Timestamp) -> Option<Timestamp> {
        if let Rhythm::Hourly { minute } = self.rhythm {
            return hour_slot(instant, minute, 1);
        }
        let today = self.zone.to_datetime(instant).date();
        (-1..=LOOKED_AT_DAYS)
            .filter_map(|n_days| self.day_slot(today, n_days))
            .find(|slot| *slot > instant)
    }

    /// The last slot after `after` that is not after `until`: what is due now, when everything up
    /// to `after` is done. Slots that were missed in between are not made up for.
    #[must_use]
    pub fn latest(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let slot = if let Rhythm::Hourly { minute } = self.rhythm {
            hour_slot(until, minute, 0)
        } else {
            let today = self.zone.to_datetime(until).date();
            (-LOOKED_AT_DAYS..=1)
                .rev()
                .filter_map(|n_days| self.day_slot(today, n_days))
                .find(|slot| *slot <= until)
        };
        slot.filter(|slot| *slot > after)
    }

    /// The slot of the day `n_days` after `from`, if that day has one.
    fn day_slot(&self, from: Date, n_days: i64) -> Option<Timestamp> {
        let date = from.checked_add(n_days.days()).ok()?;
        let at = match self.rhythm {
            Rhythm::Manual | Rhythm::Hourly { .. } => None,
            Rhythm::Daily(at) => Some(at),
            Rhythm::Weekdays(at) => {
                Some(at).filter(|_| !matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday))
            }
            Rhythm::Weekly { day, at } => Some(at).filter(|_| date.weekday() == day),
        }?;
        self.instant(date, at)
    }

    fn instant(&self, date: Date, at: TimeOfDay) -> Option<Timestamp> {
        let local = date.to_datetime(Time::new(at.hour, at.minute, 0, 0).ok()?);
        let ambiguous = self.zone.to_ambiguous_timestamp(local);
        match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok(),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local).ok(),
            AmbiguousOffset::Gap { after, .. } => {
                let before_the_jump = after.to_timestamp(local).ok()?;
                self.zone.following(before_the_jump).next().map(|jump| jump.timestamp())
            }
        }
    }
}

/// The slot `n` hours after the last one that is not after `instant`.
fn hour_slot(instant: Timestamp, minute: i8, n: i128) -> Option<Timestamp> {
    let into_hour = i128::from(minute) * NANOSECONDS_PER_MINUTE;
    let hour = (instant.as_nanosecond() - into_hour).div_euclid(NANOSECONDS_PER_HOUR) + n;
    Timestamp::from_nanosecond(hour * NANOSECONDS_PER_HOUR + into_hour).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn cadence(document: &Value) -> Cadence {
        Cadence::parse(document).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn slots(document: &Value, from: &str, n: usize) -> Vec<String> {
        let cadence = cadence(document);
        let first = cadence.next_after(at(from));
        std::iter::successors(first, |slot| cadence.next_after(*slot))
            .take(n)
            .map(|slot| slot.to_string())
            .collect()
    }

    #[test]
    fn each_rhythm_has_its_slots() {
        // 2026-01-01 is a Thursday.
        let from = "2026-01-01T10:30:00Z";
        for (document, expected) in [
            (json!({"type": "manual"}), &[][..]),
            (json!({"type": "hourly"}), &["2026-01-01T11:00:00Z", "2026-01-01T12:00:00Z"]),
            (
                json!({"type": "hourly", "minute_utc": 30}),
                &["2026-01-01T11:30:00Z", "2026-01-01T12:30:00Z"],
            ),
            (
                json!({"type": "daily", "hour_utc": 10, "minute_utc": 31}),
                &["2026-01-01T10:31:00Z", "2026-01-02T10:31:00Z"],
            ),
            (
                json!({"type": "weekdays", "hour_utc": 9}),
                &["2026-01-02T09:00:00Z", "2026-01-05T09:00:00Z"],
            ),
            (
                json!({"type": "weekly", "hour_utc": 10, "minute_utc": 30, "day_of_week": "thu"}),
                &["2026-01-08T10:30:00Z", "2026-01-15T10:30:00Z"],
            ),
            (
                json!({"type": "daily", "hour_utc": 0, "time_zone": "Asia/Kathmandu"}),
                &["2026-01-01T18:15:00Z", "2026-01-02T18:15:00Z"],
            ),
        ] {
            assert_eq!(slots(&document, from, 2), expected, "{document}");
        }
    }

    #[test]
    fn a_skipped_time_is_due_after_the_jump_and_a_repeated_one_the_first_time() {
        let daily = |hour, minute, zone| json!({"type": "daily", "hour_utc": hour, "minute_utc": minute, "time_zone": zone});
        for (document, from, expected) in [
            // 02:00 becomes 03:00.
            (
                daily(2, 30, "Europe/Berlin"),
                "2026-03-28T12:00:00Z",
                ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
            ),
            // 03:00 becomes 02:00.
            (
                daily(2, 30, "Europe/Berlin"),
                "2026-10-24T12:00:00Z",
                ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
            ),
            // Midnight becomes 01:00.
            (
                daily(0, 0, "America/Sao_Paulo"),
                "2017-10-14T12:00:00Z",
                ["2017-10-15T03:00:00Z", "2017-10-16T02:00:00Z"],
            ),
            // The 30th of December 2011 does not exist: its slot and that of the 31st are one.
            (
                daily(0, 0, "Pacific/Apia"),
                "2011-12-29T11:00:00Z",
                ["2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"],
            ),
        ] {
            assert_eq!(slots(&document, from, 2), expected, "{document}");
        }
    }

    #[test]
    fn of_the_missed_slots_the_latest_is_due() {
        let daily = cadence(&json!({"type": "daily", "hour_utc": 9}));
        let latest = |after, until| daily.latest(at(after), at(until)).map(|t| t.to_string());
        let due = Some("2026-01-05T09:00:00Z".to_owned());
        assert_eq!(latest("2026-01-01T09:00:00Z", "2026-01-05T09:00:00Z"), due);
        assert_eq!(latest("2026-01-01T09:00:00Z", "2026-01-06T08:59:59Z"), due);
        assert_eq!(latest("2026-01-05T09:00:00Z", "2026-01-06T08:59:59Z"), None);
    }

    #[test]
    fn nothing_is_due_beyond_the_calendar() {
        for document in [
            json!({"type": "hourly", "minute_utc": 59}),
            json!({"type": "weekly", "hour_utc": 23, "day_of_week": "mon"}),
        ] {
            let cadence = cadence(&document);
            assert_eq!(cadence.next_after(Timestamp::MAX), None);
            assert!(cadence.next_after(Timestamp::MIN).is_some());
            assert!(cadence.latest(Timestamp::MIN, Timestamp::MAX).is_some());
            assert_eq!(cadence.latest(Timestamp::MIN, Timestamp::MIN), None);
        }
    }

    /// Every zone has something odd: half hours, jumps at midnight, a lost day, nothing at all.
    const ZONES: [&str; 8] = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "America/Sao_Paulo",
        "Pacific/Apia",
        "Asia/Kathmandu",
        "Africa/Casablanca",
    ];

    fn any_cadence() -> impl Strategy<Value = Value> {
        let days = vec!["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        // Clocks change at night.
        let hour = prop_oneof![4 => 0..4, 1 => 0..24];
        let rhythm = prop_oneof![1 => Just(0), 4 => Just(1), 1 => Just(2), 1 => Just(3)];
        (rhythm, hour, 0..60, proptest::sample::select(days), proptest::sample::select(&ZONES[..]))
            .prop_map(|(rhythm, hour, minute, day, zone)| {
                let timed = |name| {
                    json!({"type": name, "hour_utc": hour, "minute_utc": minute,
                    "time_zone": zone})
                };
                match rhythm {
                    0 => json!({"type": "hourly", "minute_utc": minute}),
                    1 => timed("daily"),
                    2 => timed("weekdays"),
                    _ => {
                        let mut weekly = timed("weekly");
                        weekly["day_of_week"] = day.into();
                        weekly
                    }
                }
            })
    }

    /// A moment from 2000 to 2036, half of them shortly before the clocks change.
    fn any_start(cadence: &Cadence, second: i64, near_a_change: bool) -> Timestamp {
        let start = Timestamp::from_second(second).unwrap();
        let change = cadence.zone().following(start).next().filter(|_| near_a_change);
        change.map_or(start, |change| change.timestamp() - 30.hours())
    }

    /// The instants at which the cadence is due, found by looking at a clock on the wall every
    /// minute: a day's time has come when the clock shows it, or a later time, for the first time.
    fn walked(cadence: &Cadence, start: Timestamp, n_minutes: i64) -> BTreeSet<Timestamp> {
        let whole = start.as_second().div_euclid(60) * 60;
        let mut furthest =
            cadence.zone().to_datetime(Timestamp::from_second(whole - 86_400 * 2).unwrap());
        let mut due = BTreeSet::new();
        for minute in -2 * 1440..=n_minutes {
            let instant = Timestamp::from_second(whole + minute * 60).unwrap();
            let shown = cadence.zone().to_datetime(instant);
            let (weekdays, at) = match cadence.rhythm() {
                Rhythm::Manual => continue,
                Rhythm::Hourly { minute } => {
                    if shown.minute() == minute && instant > start {
                        due.insert(instant);
                    }
                    continue;
                }
                Rhythm::Daily(at) => (1..=7, at),
                Rhythm::Weekdays(at) => (1..=5, at),
                Rhythm::Weekly { day, at } => {
                    (day.to_monday_one_offset()..=day.to_monday_one_offset(), at)
                }
            };
            let mut date = furthest.date();
            while date <= shown.date() {
                let time = date.at(at.hour, at.minute, 0, 0);
                let its_day = weekdays.contains(&date.weekday().to_monday_one_offset());
                if its_day && furthest < time && time <= shown && instant > start {
                    due.insert(instant);
                }
                date = date.tomorrow().unwrap();
            }
            furthest = furthest.max(shown);
        }
        due
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn slots_are_what_a_walk_by_the_minute_finds(
            document in any_cadence(),
            second in 946_684_800_i64..2_082_758_400,
            near_a_change in proptest::bool::weighted(0.75),
        ) {
            let cadence = cadence(&document);
            let start = any_start(&cadence, second, near_a_change);
            let n_minutes = if matches!(cadence.rhythm(), Rhythm::Weekly { .. }) { 9 } else { 3 } * 1440;
            let walked = walked(&cadence, start, n_minutes);
            let end = Timestamp::from_second(start.as_second().div_euclid(60) * 60 + n_minutes * 60).unwrap();
            let first = cadence.next_after(start);
            let found: Vec<Timestamp> =
                std::iter::successors(first, |slot| cadence.next_after(*slot))
                    .take_while(|slot| *slot <= end)
                    .collect();
            prop_assert!(found.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert_eq!(found, walked.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn nothing_lies_between_an_instant_and_its_next_slot(
            document in any_cadence(),
            second in 946_684_800_i64..2_082_758_400,
            part in 0.0..1.0_f64,
            near_a_change in proptest::bool::weighted(0.75),
        ) {
            let cadence = cadence(&document);
            let start = any_start(&cadence, second, near_a_change);
            let next = cadence.next_after(start).unwrap();
            prop_assert!(next > start);
            let between = start + (next - start).total(jiff::Unit::Second).map(|s| jiff::SignedDuration::from_secs_f64(s * part)).unwrap();
            if between < next {
                prop_assert_eq!(cadence.next_after(between), Some(next));
                prop_assert_eq!(cadence.latest(start, between), None);
            }
            prop_assert_eq!(cadence.latest(start, next), Some(next));
        }
    }
}
