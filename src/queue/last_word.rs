//! The runs that ended without a worker: who waited, went back to the queue or was given up. Their
//! end stands in the queue alone until somebody tells it.

use std::time::Duration;

use jiff::Timestamp;

use super::error::QueueError;
use super::grant::Leased;
use super::job::Ended;
use super::row::{Columns, after};
use super::{HEARTBEAT_EVERY, Queue, WORKER_LOST};

/// How long after its end the last word about a run waits that a worker had: by the next heartbeat
/// that worker has heard that it is not its own any more.
pub const QUIET: Duration = HEARTBEAT_EVERY.saturating_add(Duration::from_secs(5));

/// How long the telling of one end may take before somebody may begin it anew.
pub const TELL_LIMIT: Duration = Duration::from_secs(20);

/// A run that ended without a worker, claimed by the one who tells its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untold {
    /// The run, as its last worker had it.
    pub run: Leased,
    /// How it ended.
    pub ended: Ended,
    /// When.
    pub finished: Timestamp,
    /// Until when it is claimed, in milliseconds: what tells this claim from another.
    claim: i64,
}

/// One that was given up has a word for it; any other end without a worker is a cancellation.
const CLAIM: &str = "UPDATE jobs SET tell_at = $2
    WHERE tell_at <= $1 AND (collection, task, id) = (
        SELECT collection, task, id FROM jobs WHERE tell_at <= $1 ORDER BY tell_at, id LIMIT 1 {skip})
    RETURNING *";

const TOLD: &str = "UPDATE jobs SET tell_at = NULL, sealed = NULL
    WHERE collection = $1 AND task = $2 AND id = $3 AND tell_at = $4";

impl Queue {
    /// Claims the run whose end has waited longest to be told. Whoever has not told it after
    /// [`TELL_LIMIT`] loses it to the next who asks: it may be told twice, and never not at all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn untold(&self, now: Timestamp) -> Result<Option<Untold>, QueueError> {
        let failed = || QueueError::act("look for an end that nobody has told");
        let claim = after(now, TELL_LIMIT);
        let mut tx = self.write().await?;
        let row = sqlx::query(self.sql(CLAIM))
            .bind(now.as_millisecond())
            .bind(claim)
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed())?;
        let Some(row) = row else { return Ok(None) };
        let columns = Columns(&row);
        let job = columns.job()?;
        let is_lost = job.reason.as_deref() == Some(WORKER_LOST);
        let untold = Untold {
            run: columns.leased()?,
            ended: if is_lost { Ended::Failed } else { Ended::Cancelled },
            finished: job.finished.unwrap_or(job.updated),
            claim,
        };
        tx.commit().await.map_err(failed())?;
        Ok(Some(untold))
    }

    /// Notes that the end of a run was told. Its secrets go with that.
    ///
    /// # Errors
    /// [`QueueError::Lost`] when somebody else has claimed it meanwhile.
    pub async fn told(&self, untold: &Untold) -> Result<(), QueueError> {
        let failed = || QueueError::act("note that the end of a run was told");
        let name = &untold.run.grant.name;
        let mut tx = self.write().await?;
        let told = sqlx::query(self.sql(TOLD))
            .bind(name.collection.as_str())
            .bind(name.task.as_str())
            .bind(name.id.as_str())
            .bind(untold.claim)
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
        if told.rows_affected() == 0 {
            return Err(QueueError::Lost);
        }
        tx.commit().await.map_err(failed())
    }
}
