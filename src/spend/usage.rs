//! What collections used, by day and model, for who asks.

use jiff::Timestamp;
use jiff::civil::Date;

use super::error::SpendError;
use super::open::Spend;
use super::row::{count, text};
use crate::budget::{Amounts, period};
use crate::run::{Slug, Usd};

/// Most rows that one question gives: a year of days with many models.
const MAX_ROWS: i64 = 10_000;

const READ: &str = "SELECT * FROM spend_counters WHERE collection = $1 AND day >= $2 AND day <= $3
    ORDER BY day, model LIMIT $4";

/// What a collection used of one model in one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayUsage {
    /// The day in UTC, such as `2026-11-21`.
    pub day: String,
    /// The model that was asked for.
    pub model: String,
    /// Requests that went on.
    pub requests: u64,
    /// Tokens of input that did not touch the cache.
    pub input_tokens: u64,
    /// Tokens of output.
    pub output_tokens: u64,
    /// Tokens read from the cache.
    pub cache_read_tokens: u64,
    /// Tokens written to the cache.
    pub cache_write_tokens: u64,
    /// What they cost, as far as it is known.
    pub cost: Usd,
    /// Requests of which nobody knows what they took.
    pub unsettled_requests: u64,
    /// What was set aside for those, and counts as spent.
    pub unsettled_cost: Usd,
    /// Requests for a model without a known price.
    pub unpriced_requests: u64,
}

/// What a collection has taken of its budgets now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    /// The day in UTC.
    pub day: String,
    /// The month.
    pub month: String,
    /// In the day.
    pub in_day: Amounts,
    /// In the month.
    pub in_month: Amounts,
}

impl Spend {
    /// What a collection used from one day to another, both counted.
    ///
    /// # Errors
    /// [`SpendError`] when the file fails.
    pub async fn usage(
        &self,
        collection: &Slug,
        (from, to): (Date, Date),
    ) -> Result<Vec<DayUsage>, SpendError> {
        let rows = sqlx::query(READ)
            .bind(collection.as_str())
            .bind(from.to_string())
            .bind(to.to_string())
            .bind(MAX_ROWS)
            .fetch_all(self.pool())
            .await
            .map_err(SpendError::act("read what a collection used"))?;
        let usage = rows.iter().map(|row| {
            Ok(DayUsage {
                day: text(row, "day")?,
                model: text(row, "model")?,
                requests: count(row, "requests")?,
                input_tokens: count(row, "input_tokens")?,
                output_tokens: count(row, "output_tokens")?,
                cache_read_tokens: count(row, "cache_read_tokens")?,
                cache_write_tokens: count(row, "cache_write_tokens")?,
                cost: Usd::from_micros(count(row, "cost_micros")?),
                unsettled_requests: count(row, "unsettled_requests")?,
                unsettled_cost: Usd::from_micros(count(row, "unsettled_cost_micros")?),
                unpriced_requests: count(row, "unpriced_requests")?,
            })
        });
        usage.collect()
    }

    /// What a collection has taken of its day and its month.
    ///
    /// # Errors
    /// [`SpendError`] when the file fails.
    pub async fn spent(&self, collection: &Slug, now: Timestamp) -> Result<Spent, SpendError> {
        let period = period(now);
        let (in_day, in_month) = self.taken(collection, now).await?;
        Ok(Spent { day: period.day, month: period.month, in_day, in_month })
    }
}
