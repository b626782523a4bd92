//! What a worker writes about a run that it holds. Every statement is guarded by the grant's fence.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments};

use super::error::QueueError;
use super::grant::Grant;
use super::job::{Ended, JobUsage, Status};
use super::last_word::QUIET;
use super::row::{Columns, after, milliseconds, number};
use super::{Connection, Queue};

/// How a run ended, and what it used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    /// How.
    pub ended: Ended,
    /// Why, where it did not end well.
    pub reason: Option<String>,
    /// The agent's exit code, where it had one.
    pub exit_code: Option<i64>,
    /// Bytes of the agent's output. All of them must be recorded; where the output itself is gone,
    /// this is what is recorded of it.
    pub total_bytes: u64,
    /// Token counts, of all its steps.
    pub usage: JobUsage,
    /// How long it took, all its steps together.
    pub duration: Option<Duration>,
}

/// Where a run went that was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeued {
    /// Back to the queue.
    Queued,
    /// Somebody wants it stopped, so it is cancelled.
    Cancelled,
}

const STARTED: &str = "UPDATE jobs SET status = 'running',
    started_at = CASE WHEN started_at IS NULL THEN $5 ELSE started_at END, updated_at = $5
    WHERE collection = $1 AND task = $2 AND id = $3 AND fence = $4
    AND status IN ('leased', 'running')";

const ADVANCE: &str = "UPDATE jobs SET next_off = $7, updated_at = $5
    WHERE collection = $1 AND task = $2 AND id = $3 AND fence = $4
    AND status IN ('running', 'finishing') AND next_off = $6";

const FINISHING: &str = "UPDATE jobs SET status = 'finishing', ending = $6, updated_at = $5
    WHERE collection = $1 AND task = $2 AND id = $3 AND fence = $4
    AND status IN ('leased', 'running', 'finishing')";

const FINISH: &str = "UPDATE jobs SET status = $6, reason = $7, exit_code = $8, input_tokens = $10,
    output_tokens = $11, cache_read_tokens = $12, cache_write_tokens = $13, cost_micros = $14,
    cost_basis = $15, duration_ms = $16, sealed = NULL, ending = NULL, lease_expires = NULL,
    finished_at = $5, updated_at = $5
    WHERE collection = $1 AND task = $2 AND id = $3 AND fence = $4
    AND status IN ('leased', 'running', 'finishing') AND next_off = $9";

/// A run that somebody wants stopped does not go back to the queue. The cast is for PostgreSQL, which
/// takes the type of a parameter from what stands beside it: here, nothing but NULL.
const RETRY: &str = "UPDATE jobs SET
    status = CASE WHEN cancel_requested = 0 THEN 'queued' ELSE 'cancelled' END,
    finished_at = CASE WHEN cancel_requested = 0 THEN NULL ELSE CAST($5 AS BIGINT) END,
    tell_at = CASE WHEN cancel_requested = 0 THEN NULL ELSE CAST($8 AS BIGINT) END,
    run_at = $6, reason = $7, retries = retries + 1, lease_expires = NULL, updated_at = $5
    WHERE collection = $1 AND task = $2 AND id = $3 AND fence = $4
    AND status = 'leased' AND retries + 1 < max_attempts
    RETURNING status";

const RELEASE: &str = "UPDATE jobs SET
    status = CASE WHEN cancel_requested = 0 THEN 'queued' ELSE 'cancelled' END,
    finished_at = CASE WHEN cancel_requested = 0 THEN NULL ELSE CAST($5 AS BIGINT) END,
    tell_at = CASE WHEN cancel_requested = 0 THEN NULL ELSE CAST($6 AS BIGINT) END,
    lease_expires = NULL, updated_at = $5
    WHERE collection = $1 AND task = $2 AND id = $3 AND fence = $4 AND status = 'leased'
    RETURNING status";

const FIND: &str = "SELECT status, reason, exit_code, fence, step, next_off, retries, max_attempts,
    cancel_requested FROM jobs WHERE collection = $1 AND task = $2 AND id = $3";

impl Queue {
    /// Notes that the agent is being started: from now on the run is never queued again. Call it
    /// before the start, so that no crash leaves an agent that nobody knows of.
    ///
    /// # Errors
    /// [`QueueError::Lost`].
    pub async fn started(&self, grant: &Grant, now: Timestamp) -> Result<(), QueueError> {
        let failed = || QueueError::act("note that a run was started");
        let mut tx = self.write().await?;
        let query = self.guarded(STARTED, grant, now);
        if query.execute(&mut *tx).await.map_err(failed())?.rows_affected() == 0 {
            return Err(QueueError::Lost);
        }
        tx.commit().await.map_err(failed())
    }

    /// Notes that the agent's output is recorded from one byte to another.
    ///
    /// # Errors
    /// [`QueueError::Lost`], or [`QueueError::Offset`] when it does not go on where the record ends:
    /// the caller goes on from there.
    pub async fn advance(
        &self,
        grant: &Grant,
        from: u64,
        to: u64,
        now: Timestamp,
    ) -> Result<(), QueueError> {
        let failed = || QueueError::act("note how far the output of a run is recorded");
        let mut tx = self.write().await?;
        // Output never shrinks, so a step back is answered with where to go on.
        let query = self.guarded(ADVANCE, grant, now).bind(number(from)).bind(number(to.max(from)));
        if query.execute(&mut *tx).await.map_err(failed())?.rows_affected() == 0 {
            let found = self.held(&mut tx, grant).await?;
            return Err(match found.status {
                Status::Running | Status::Finishing => found.offset(),
                Status::Queued
                | Status::Leased
                | Status::Completed
                | Status::Failed
                | Status::Cancelled
                | Status::Archived => QueueError::Lost,
            });
        }
        tx.commit().await.map_err(failed())
    }

    /// Saves what cannot be found out again once the sandbox is removed.
    ///
    /// # Errors
    /// [`QueueError::Lost`].
    pub async fn finishing(
        &self,
        grant: &Grant,
        ending: &str,
        now: Timestamp,
    ) -> Result<(), QueueError> {
        let failed = || QueueError::act("save how a run ended");
        let mut tx = self.write().await?;
        let query = self.guarded(FINISHING, grant, now).bind(ending.to_owned());
        if query.execute(&mut *tx).await.map_err(failed())?.rows_affected() == 0 {
            return Err(QueueError::Lost);
        }
        tx.commit().await.map_err(failed())
    }

    /// Ends a run. Until this has returned, the worker removes nothing. The same finish again is
    /// fine: its answer may have been lost.
    ///
    /// # Errors
    /// [`QueueError::Lost`], or [`QueueError::Offset`] when output is missing.
    pub async fn finish(
        &self,
        grant: &Grant,
        finish: &Finish,
        now: Timestamp,
    ) -> Result<(), QueueError> {
        let failed = || QueueError::act("end a run");
        let mut tx = self.write().await?;
        let usage = finish.usage;
        let query = self
            .guarded(FINISH, grant, now)
            .bind(Status::from(finish.ended).as_str())
            .bind(finish.reason.clone())
            .bind(finish.exit_code)
            .bind(number(finish.total_bytes))
            .bind(number(usage.input_tokens))
            .bind(number(usage.output_tokens))
            .bind(number(usage.cache_read_tokens))
            .bind(number(usage.cache_write_tokens))
            .bind(usage.cost.micros().map(number))
            .bind(usage.cost.basis())
            .bind(finish.duration.map(milliseconds));
        if query.execute(&mut *tx).await.map_err(failed())?.rows_affected() == 0 {
            return self.held(&mut tx, grant).await?.is_answered_by(finish);
        }
        tx.commit().await.map_err(failed())?;
        self.wake();
        Ok(())
    }

    /// Gives a run back after a failure that was not its own, to be tried again at `run_at`. Only
    /// one whose agent was never started, and only so often.
    ///
    /// # Errors
    /// [`QueueError::Lost`], [`QueueError::Started`], or [`QueueError::OutOfAttempts`]: the caller
    /// still holds it and ends it.
    pub async fn retry(
        &self,
        grant: &Grant,
        run_at: Timestamp,
        reason: &str,
        now: Timestamp,
    ) -> Result<Requeued, QueueError> {
        let mut tx = self.write().await?;
        let query = self
            .guarded(RETRY, grant, now)
            .bind(run_at.as_millisecond())
            .bind(reason.to_owned())
            .bind(after(now, QUIET));
        let row = query
            .fetch_optional(&mut *tx)
            .await
            .map_err(QueueError::act("give a run back to be tried again"))?;
        let Some(row) = row else {
            return Err(self.held(&mut tx, grant).await?.why_not_queued());
        };
        let status = Columns(&row).status()?;
        tx.commit().await.map_err(QueueError::act("give a run back to be tried again"))?;
        self.wake();
        Ok(requeued(status))
    }

    /// Gives a run back that nothing was done for, because the worker stops. It costs no try.
    ///
    /// # Errors
    /// [`QueueError::Lost`] or [`QueueError::Started`].
    pub async fn release(&self, grant: &Grant, now: Timestamp) -> Result<Requeued, QueueError> {
        let mut tx = self.write().await?;
        let row = self
            .guarded(RELEASE, grant, now)
            .bind(after(now, QUIET))
            .fetch_optional(&mut *tx)
            .await
            .map_err(QueueError::act("give a run back"))?;
        let Some(row) = row else {
            return Err(self.held(&mut tx, grant).await?.why_not_queued());
        };
        let status = Columns(&row).status()?;
        tx.commit().await.map_err(QueueError::act("give a run back"))?;
        self.wake();
        Ok(requeued(status))
    }

    /// A statement whose first parameters are the grant and the time.
    pub(super) fn guarded(
        &self,
        text: &'static str,
        grant: &Grant,
        now: Timestamp,
    ) -> Query<'static, Sqlite, SqliteArguments> {
        sqlx::query(self.sql(text))
            .bind(grant.name.collection.as_str().to_owned())
            .bind(grant.name.task.as_str().to_owned())
            .bind(grant.name.id.as_str().to_owned())
            .bind(number(grant.fence))
            .bind(now.as_millisecond())
    }

    /// The row behind a grant that is the newest one; it may have ended.
    pub(super) async fn held(
        &self,
        connection: &mut Connection,
        grant: &Grant,
    ) -> Result<Held, QueueError> {
        let row = sqlx::query(self.sql(FIND))
            .bind(grant.name.collection.as_str())
            .bind(grant.name.task.as_str())
            .bind(grant.name.id.as_str())
            .fetch_optional(connection)
            .await
            .map_err(QueueError::act("look a run up"))?
            .ok_or(QueueError::Lost)?;
        let columns = Columns(&row);
        if columns.count("fence")? != grant.fence {
            return Err(QueueError::Lost);
        }
        Ok(Held {
            status: columns.status()?,
            reason: columns.get("reason")?,
            exit_code: columns.get("exit_code")?,
            step: columns.count("step")?,
            next_off: columns.count("next_off")?,
            retries: columns.count("retries")?,
            max_attempts: columns.count("max_attempts")?,
            cancel_requested: columns.flag("cancel_requested")?,
        })
    }
}

/// What explains a refusal.
pub(super) struct Held {
    pub(super) status: Status,
    reason: Option<String>,
    exit_code: Option<i64>,
    pub(super) step: u64,
    next_off: u64,
    retries: u64,
    max_attempts: u64,
    pub(super) cancel_requested: bool,
}

impl Held {
    pub(super) fn offset(&self) -> QueueError {
        QueueError::Offset { recorded: self.next_off }
    }

    /// Whether a finish that changed nothing was done before, by the same grant.
    fn is_answered_by(&self, finish: &Finish) -> Result<(), QueueError> {
        if self.status.is_live() {
            return Err(self.offset());
        }
        let same = self.next_off == finish.total_bytes
            && (self.status == finish.ended.into() || self.status == Status::Archived)
            && self.reason == finish.reason
            && self.exit_code == finish.exit_code;
        if same { Ok(()) } else { Err(QueueError::Lost) }
    }

    fn why_not_queued(&self) -> QueueError {
        match self.status {
            Status::Leased if self.retries + 1 >= self.max_attempts => {
                let max_attempts = u32::try_from(self.max_attempts).unwrap_or(u32::MAX);
                QueueError::OutOfAttempts { max_attempts }
            }
            Status::Running | Status::Finishing => QueueError::Started,
            Status::Queued
            | Status::Leased
            | Status::Completed
            | Status::Failed
            | Status::Cancelled
            | Status::Archived => QueueError::Lost,
        }
    }
}

fn requeued(status: Status) -> Requeued {
    if status == Status::Cancelled { Requeued::Cancelled } else { Requeued::Queued }
}
