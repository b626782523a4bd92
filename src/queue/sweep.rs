//! Giving up the runs of workers that went away for good.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::run::RunName;

use super::error::QueueError;
use super::last_word::QUIET;
use super::row::{Columns, after, milliseconds};
use super::{LEASE_TTL, MAX_SWEEP_GAP, Queue, WORKER_LOST};

/// When this process swept last.
#[derive(Debug, Clone, Default)]
pub(super) struct Sweeps {
    last: Arc<Mutex<Option<Timestamp>>>,
}

impl Sweeps {
    /// Whether this process has watched the clock go on evenly since its last sweep. If not, leases
    /// may have run out while nobody could renew them.
    fn is_even(&self, now: Timestamp) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        last.is_some_and(|last| {
            let gap = now.as_millisecond() - last.as_millisecond();
            (0..=milliseconds(MAX_SWEEP_GAP)).contains(&gap)
        })
    }
}

const GRACE: &str = "UPDATE jobs SET lease_expires = $1
    WHERE status IN ('leased', 'running', 'finishing')";

const EXPIRE: &str = "UPDATE jobs SET status = 'failed', reason = $3, ending = NULL,
    lease_expires = NULL, tell_at = $4, finished_at = $2, updated_at = $2
    WHERE status IN ('leased', 'running', 'finishing') AND lease_expires < $1
    RETURNING collection, task, id";

impl Queue {
    /// Fails the runs whose lease ended more than `lost_after` ago, with [`WORKER_LOST`], and names
    /// them. Call it every few seconds. The first call of a process, and one after the clock jumped
    /// or the machine slept, gives every worker a fresh lease instead: an outage of the server is
    /// not the death of a worker.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expire(
        &self,
        now: Timestamp,
        lost_after: Duration,
    ) -> Result<Vec<RunName>, QueueError> {
        if !self.sweeps.is_even(now) {
            self.grace_at_start(now).await?;
            return Ok(Vec::new());
        }
        let failed = || QueueError::act("give up the runs of lost workers");
        let lost_before = now.as_millisecond().saturating_sub(milliseconds(lost_after));
        let mut tx = self.write().await?;
        let rows = sqlx::query(self.sql(EXPIRE))
            .bind(lost_before)
            .bind(now.as_millisecond())
            .bind(WORKER_LOST)
            .bind(after(now, QUIET))
            .fetch_all(&mut *tx)
            .await
            .map_err(failed())?;
        let mut lost: Vec<RunName> =
            rows.iter().map(|row| Columns(row).name()).collect::<Result<_, _>>()?;
        tx.commit().await.map_err(failed())?;
        if !lost.is_empty() {
            self.wake();
        }
        lost.sort();
        Ok(lost)
    }

    /// Gives every live lease its full length again, and returns how many there are. Call it when
    /// the server starts.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn grace_at_start(&self, now: Timestamp) -> Result<u64, QueueError> {
        let failed = || QueueError::act("renew the leases at the start");
        let mut tx = self.write().await?;
        let renewed = sqlx::query(self.sql(GRACE))
            .bind(after(now, LEASE_TTL))
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
        tx.commit().await.map_err(failed())?;
        Ok(renewed.rows_affected())
    }
}
