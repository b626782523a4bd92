//! Removing what nobody asks for any more.

use std::time::Duration;

use jiff::Timestamp;

use super::error::SpendError;
use super::open::Spend;
use super::settle::{Charge, settle_row};

/// How long it is kept what a run has taken. Longer than any run lasts.
const KEEP_RUNS: Duration = Duration::from_secs(60 * 24 * 3600);

/// After so long nobody settles what a chat has set aside: its process is gone.
const CHAT_LIMIT: Duration = Duration::from_secs(3600);

/// The same of a run's requests: longer than any run.
const RUN_LIMIT: Duration = Duration::from_secs(8 * 24 * 3600);

const GIVE_UP_OLD: &str = "DELETE FROM spend_reservations
    WHERE (run = '' AND at_ms < $1) OR at_ms < $2
    RETURNING collection, run, day, month, model, cost_micros, tokens, requests, rate_tokens, rate_limit";

const FORGET_RUNS: &str = "DELETE FROM spend_totals WHERE span = 'run' AND at_ms < $1";

const FORGET_COUNTED: &str = "DELETE FROM spend_counted WHERE at_ms < $1";

impl Spend {
    /// Counts what nobody will settle, and forgets runs that ended long ago. What collections used
    /// stays.
    ///
    /// # Errors
    /// [`SpendError`] when the file fails. Then nothing is changed.
    pub async fn tidy(&self, now: Timestamp) -> Result<(), SpendError> {
        let failed = SpendError::act("tidy up what is spent");
        let before = |age: Duration| {
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            now.as_millisecond().saturating_sub(age)
        };
        let mut tx = self.write().await?;
        let rows = sqlx::query(GIVE_UP_OLD).bind(before(CHAT_LIMIT)).bind(before(RUN_LIMIT));
        for row in rows.fetch_all(&mut *tx).await.map_err(&failed)? {
            settle_row(&mut tx, &row, Charge::Kept, now).await?;
        }
        for forget in [FORGET_RUNS, FORGET_COUNTED] {
            let forgotten = sqlx::query(forget).bind(before(KEEP_RUNS)).execute(&mut *tx).await;
            forgotten.map_err(&failed)?;
        }
        tx.commit().await.map_err(failed)
    }
}
