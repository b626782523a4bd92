//! Days and months in UTC.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use crate::run::Span;

/// The day and the month of an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// Such as `2026-11-21`.
    pub day: String,
    /// Such as `2026-11`.
    pub month: String,
    date: Date,
}

/// The day and the month of an instant, in UTC.
#[must_use]
pub fn period(at: Timestamp) -> Period {
    let date = at.to_zoned(TimeZone::UTC).date();
    let day = date.to_string();
    Period { month: day[..day.len() - 3].to_owned(), day, date }
}

impl Period {
    /// When the span that this is in ends and the next one begins.
    #[must_use]
    pub fn opens(&self, span: Span) -> Option<Timestamp> {
        let next = match span {
            Span::Run => return None,
            Span::Day => self.date.checked_add(1.day()),
            Span::Month => self.date.first_of_month().checked_add(1.month()),
        };
        let next = next.ok()?.to_zoned(TimeZone::UTC).ok()?;
        Some(next.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_months_end_at_midnight_in_utc() {
        for (at, day, month, next_day, next_month) in [
            ("2026-11-21T18:00:00Z", "2026-11-21", "2026-11", "2026-11-22", "2026-12-01"),
            ("2026-12-31T23:59:59.999Z", "2026-12-31", "2026-12", "2027-01-01", "2027-01-01"),
            ("2028-02-29T00:00:00Z", "2028-02-29", "2028-02", "2028-03-01", "2028-03-01"),
        ] {
            let period = period(at.parse().unwrap());
            assert_eq!((period.day.as_str(), period.month.as_str()), (day, month));
            let opens = |span| period.opens(span).unwrap().to_string();
            assert_eq!(opens(Span::Day), format!("{next_day}T00:00:00Z"));
            assert_eq!(opens(Span::Month), format!("{next_month}T00:00:00Z"));
            assert_eq!(period.opens(Span::Run), None);
        }
    }
}
