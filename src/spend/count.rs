//! The counters of a collection's days.

use jiff::Timestamp;

use super::error::SpendError;
use super::open::{Spend, Write};
use super::reserve::{add_to_total, spans};
use super::row::column;
use super::settle::Took;
use crate::budget::{Amounts, period};
use crate::run::{Slug, Usd};

const ADD: &str = "INSERT INTO spend_counters (collection, day, model, requests, input_tokens,
    output_tokens, cache_read_tokens, cache_write_tokens, cost_micros, unsettled_requests,
    unsettled_cost_micros, unpriced_requests)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    ON CONFLICT (collection, day, model) DO UPDATE SET
    requests = spend_counters.requests + excluded.requests,
    input_tokens = spend_counters.input_tokens + excluded.input_tokens,
    output_tokens = spend_counters.output_tokens + excluded.output_tokens,
    cache_read_tokens = spend_counters.cache_read_tokens + excluded.cache_read_tokens,
    cache_write_tokens = spend_counters.cache_write_tokens + excluded.cache_write_tokens,
    cost_micros = spend_counters.cost_micros + excluded.cost_micros,
    unsettled_requests = spend_counters.unsettled_requests + excluded.unsettled_requests,
    unsettled_cost_micros = spend_counters.unsettled_cost_micros + excluded.unsettled_cost_micros,
    unpriced_requests = spend_counters.unpriced_requests + excluded.unpriced_requests";

const MARK: &str = "INSERT INTO spend_counted (run, at_ms) VALUES ($1, $2)
    ON CONFLICT (run) DO NOTHING";

const OPEN_TOTAL: &str = "INSERT INTO spend_totals (span, name, at_ms) VALUES ($1, $2, $3)
    ON CONFLICT (span, name) DO NOTHING";

/// What is added to the counters of a day and a model.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    requests: u64,
    took: Took,
    unsettled_requests: u64,
    unsettled_cost: u64,
    unpriced_requests: u64,
}

impl Counted {
    pub(super) fn of(took: Took, requests: u64) -> Self {
        let unpriced_requests = if took.cost.is_none() { requests } else { 0 };
        Self { requests, took, unpriced_requests, ..Self::default() }
    }

    pub(super) fn nothing(requests: u64) -> Self {
        Self { requests, ..Self::default() }
    }

    pub(super) fn unsettled(reserved: &Amounts) -> Self {
        let Amounts { cost, requests, .. } = *reserved;
        Self { requests, unsettled_requests: requests, unsettled_cost: cost, ..Self::default() }
    }
}

pub(super) async fn add_to_counters(
    tx: &mut Write,
    (collection, day, model): (&str, &str, &str),
    counted: &Counted,
) -> Result<(), SpendError> {
    let Counted { requests, took, unsettled_requests, unsettled_cost, unpriced_requests } = counted;
    sqlx::query(ADD)
        .bind(collection)
        .bind(day)
        .bind(model)
        .bind(column(*requests))
        .bind(column(took.input))
        .bind(column(took.output))
        .bind(column(took.cache_read))
        .bind(column(took.cache_write))
        .bind(column(took.cost.map_or(0, Usd::micros)))
        .bind(column(*unsettled_requests))
        .bind(column(*unsettled_cost))
        .bind(column(*unpriced_requests))
        .execute(&mut **tx)
        .await
        .map_err(SpendError::act("count a request"))?;
    Ok(())
}

impl Spend {
    /// Counts what a run used that asked past any gateway, by its own account, once for each `part`.
    /// `is_billed` says whether it takes of its collection's day and month: a scripted model costs
    /// nothing.
    ///
    /// # Errors
    /// [`SpendError`] when the file fails. Then nothing is counted.
    pub async fn count_run(
        &self,
        collection: &Slug,
        (part, is_billed): (&str, bool),
        used: &[(String, u64, Took)],
        now: Timestamp,
    ) -> Result<(), SpendError> {
        let failed = SpendError::act("count a run");
        let period = period(now);
        let mut tx = self.write().await?;
        let marked =
            sqlx::query(MARK).bind(part).bind(now.as_millisecond()).execute(&mut *tx).await;
        if marked.map_err(&failed)?.rows_affected() == 0 {
            return Ok(());
        }
        let mut sum = Amounts::default();
        for (model, requests, took) in used {
            let place = (collection.as_str(), period.day.as_str(), model.as_str());
            add_to_counters(&mut tx, place, &Counted::of(*took, *requests)).await?;
            let cost = took.cost.map_or(0, Usd::micros);
            sum = sum.plus(&Amounts { cost, tokens: took.tokens(), requests: *requests });
        }
        if is_billed {
            for (span, name) in spans(collection.as_str(), "", &period.day, &period.month) {
                let opened = sqlx::query(OPEN_TOTAL).bind(span).bind(&name);
                let opened = opened.bind(now.as_millisecond()).execute(&mut *tx).await;
                opened.map_err(&failed)?;
                let added = [sum.cost, sum.tokens, sum.requests].map(column);
                add_to_total(&mut tx, (span, &name), added).await.map_err(&failed)?;
            }
        }
        tx.commit().await.map_err(failed)
    }
}
