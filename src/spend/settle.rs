//! Replacing what was set aside by what was taken.

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::count::{Counted, add_to_counters};
use super::error::SpendError;
use super::open::{Spend, Write};
use super::reserve::{add_to_total, bucket, spans, write_bucket};
use super::row::{amounts, column, count, text};
use crate::budget::Amounts;
use crate::run::Usd;

const TAKE_BACK: &str = "DELETE FROM spend_reservations WHERE id = $1
    RETURNING collection, run, day, month, model, cost_micros, tokens, requests, rate_tokens, rate_limit";

const GIVE_UP: &str = "DELETE FROM spend_reservations WHERE run = $1
    RETURNING collection, run, day, month, model, cost_micros, tokens, requests, rate_tokens, rate_limit";

/// What a request took, by the service's own word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Took {
    /// Tokens of input that did not touch the cache.
    pub input: u64,
    /// Tokens of output.
    pub output: u64,
    /// Tokens read from the cache.
    pub cache_read: u64,
    /// Tokens written to the cache.
    pub cache_write: u64,
    /// What they cost; `None` for a model without a known price.
    pub cost: Option<Usd>,
}

impl Took {
    /// Tokens of the prompt.
    #[must_use]
    pub fn prompt(&self) -> u64 {
        self.input.saturating_add(self.cache_read).saturating_add(self.cache_write)
    }

    /// All tokens.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.prompt().saturating_add(self.output)
    }
}

/// What becomes of what was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// It took so much.
    Took(Took),
    /// It was not answered, and nothing is billed.
    Nothing,
    /// Nobody knows what it took: all that was set aside is spent.
    Kept,
}

impl Spend {
    /// Replaces a reservation by what was taken. The second time, and for a reservation that was
    /// given up meanwhile, nothing happens: false.
    ///
    /// # Errors
    /// [`SpendError`] when the file fails. Then the reservation stays, and counts as spent.
    pub async fn settle(
        &self,
        id: Uuid,
        charge: Charge,
        now: Timestamp,
    ) -> Result<bool, SpendError> {
        let failed = SpendError::act("settle a request");
        let mut tx = self.write().await?;
        let row = sqlx::query(TAKE_BACK).bind(id.to_string()).fetch_optional(&mut *tx).await;
        let Some(row) = row.map_err(&failed)? else { return Ok(false) };
        settle_row(&mut tx, &row, charge, now).await?;
        tx.commit().await.map_err(failed)?;
        Ok(true)
    }

    /// Gives up on the reservations of a run: nobody will settle them any more, and what was set
    /// aside is spent. Gives how many there were.
    ///
    /// # Errors
    /// [`SpendError`] when the file fails.
    pub async fn give_up(&self, run: &str, now: Timestamp) -> Result<usize, SpendError> {
        let failed = SpendError::act("give up on reservations");
        let mut tx = self.write().await?;
        let rows = sqlx::query(GIVE_UP).bind(run).fetch_all(&mut *tx).await.map_err(&failed)?;
        for row in &rows {
            settle_row(&mut tx, row, Charge::Kept, now).await?;
        }
        tx.commit().await.map_err(failed)?;
        Ok(rows.len())
    }
}

pub(super) async fn settle_row(
    tx: &mut Write,
    row: &SqliteRow,
    charge: Charge,
    now: Timestamp,
) -> Result<(), SpendError> {
    let reserved = amounts(row)?;
    let (collection, model) = (text(row, "collection")?, text(row, "model")?);
    let (day, month, run) = (text(row, "day")?, text(row, "month")?, text(row, "run")?);
    let (taken, counted) = match charge {
        Charge::Took(took) => {
            let cost = took.cost.map_or(0, Usd::micros);
            let requests = reserved.requests;
            (Amounts { cost, tokens: took.tokens(), requests }, Counted::of(took, requests))
        }
        // It was asked, so it counts as a request.
        Charge::Nothing => {
            let requests = reserved.requests;
            (Amounts { requests, ..Amounts::default() }, Counted::nothing(requests))
        }
        Charge::Kept => (reserved, Counted::unsettled(&reserved)),
    };
    for (span, name) in spans(&collection, &run, &day, &month) {
        let difference = |taken: u64, reserved: u64| column(taken).saturating_sub(column(reserved));
        let added = [
            difference(taken.cost, reserved.cost),
            difference(taken.tokens, reserved.tokens),
            difference(taken.requests, reserved.requests),
        ];
        let added = add_to_total(tx, (span, &name), added).await;
        added.map_err(SpendError::act("settle a request"))?;
    }
    let (out, limit) = (count(row, "rate_tokens")?, count(row, "rate_limit")?);
    if limit > 0 {
        let bucket = bucket(tx, (&collection, "tokens"), limit, now).await?;
        let bucket = bucket.without(taken.tokens).with(out, limit);
        write_bucket(tx, (&collection, "tokens"), bucket).await?;
    }
    add_to_counters(tx, (&collection, &day, &model), &counted).await
}
