//! Between rows and our own types.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::error::SpendError;
use crate::budget::Amounts;

/// Largest number that is added to a column, and largest that is read: a billion dollars. SQLite makes a
/// floating point number of a sum that is larger than its integers, and such a row could not be read
/// again. It takes nine thousand of these to come there, and no request takes a millionth of one.
const MOST: i64 = 1_000_000_000_000_000;

/// A count for a column. What is larger than any column is the largest.
pub(super) fn column(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(MOST).min(MOST)
}

/// A count of a row, the largest at most. One below zero is none.
pub(super) fn count(row: &SqliteRow, name: &str) -> Result<u64, SpendError> {
    let value: i64 = row.try_get(name).map_err(|e| SpendError::Unreadable(e.to_string()))?;
    Ok(u64::try_from(value.min(MOST)).unwrap_or(0))
}

/// A text of a row.
pub(super) fn text(row: &SqliteRow, name: &str) -> Result<String, SpendError> {
    row.try_get(name).map_err(|e| SpendError::Unreadable(e.to_string()))
}

/// The amounts of a row.
pub(super) fn amounts(row: &SqliteRow) -> Result<Amounts, SpendError> {
    Ok(Amounts {
        cost: count(row, "cost_micros")?,
        tokens: count(row, "tokens")?,
        requests: count(row, "requests")?,
    })
}
