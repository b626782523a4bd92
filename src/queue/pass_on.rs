//! From one step of a run to the next: the step that ended well gives its lease back, and the next
//! one waits for a lease of its own.

use std::time::Duration;

use jiff::Timestamp;

use super::Queue;
use super::error::QueueError;
use super::grant::Grant;
use super::job::{JobUsage, Status};
use super::row::{milliseconds, number};

/// A step that ended well and is not the last one of its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextStep {
    /// Which step it is, from 0.
    pub from: u64,
    /// Bytes of its agent's output. All of them must be recorded.
    pub total_bytes: u64,
    /// Token counts of the run so far.
    pub usage: JobUsage,
    /// How long its steps took so far.
    pub took: Duration,
}

/// Where a run went whose step has ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassedOn {
    /// Its next step waits for a worker.
    Queued,
    /// Somebody wants it stopped: the caller still holds it and ends it.
    ToBeCancelled,
}

/// The run keeps its place: what was submitted first goes first. It has waited since now, and its new
/// step may be tried as often as the first.
const PASS_ON: &str =
    "UPDATE jobs SET status = 'queued', step = step + 1, next_off = 0, retries = 0,
    begun_at = COALESCE(begun_at, started_at), started_at = NULL, ending = NULL, reason = NULL,
    run_at = $5, input_tokens = $8, output_tokens = $9, cache_read_tokens = $10,
    cache_write_tokens = $11, cost_micros = $12, cost_basis = $13, duration_ms = $14,
    lease_expires = NULL, updated_at = $5
    WHERE collection = $1 AND task = $2 AND id = $3 AND fence = $4
    AND status = 'finishing' AND step = $6 AND next_off = $7 AND cancel_requested = 0";

impl Queue {
    /// Goes on to the next step of a run. The same again is fine: its answer may have been lost.
    ///
    /// # Errors
    /// [`QueueError::Lost`], or [`QueueError::Offset`] when output is missing.
    pub async fn pass_on(
        &self,
        grant: &Grant,
        next: &NextStep,
        now: Timestamp,
    ) -> Result<PassedOn, QueueError> {
        let failed = || QueueError::act("go on to the next step of a run");
        let mut tx = self.write().await?;
        let usage = next.usage;
        let query = self
            .guarded(PASS_ON, grant, now)
            .bind(number(next.from))
            .bind(number(next.total_bytes))
            .bind(number(usage.input_tokens))
            .bind(number(usage.output_tokens))
            .bind(number(usage.cache_read_tokens))
            .bind(number(usage.cache_write_tokens))
            .bind(usage.cost.micros().map(number))
            .bind(usage.cost.basis())
            .bind(milliseconds(next.took));
        if query.execute(&mut *tx).await.map_err(failed())?.rows_affected() == 0 {
            let held = self.held(&mut tx, grant).await?;
            // A lease of the next step has another fence: this is what this call did before.
            if held.step == next.from + 1 {
                return Ok(PassedOn::Queued);
            }
            return match held.status {
                Status::Finishing if held.step != next.from => Err(QueueError::Lost),
                Status::Finishing if held.cancel_requested => Ok(PassedOn::ToBeCancelled),
                Status::Finishing => Err(held.offset()),
                Status::Queued
                | Status::Leased
                | Status::Running
                | Status::Completed
                | Status::Failed
                | Status::Cancelled
                | Status::Archived => Err(QueueError::Lost),
            };
        }
        tx.commit().await.map_err(failed())?;
        self.wake();
        Ok(PassedOn::Queued)
    }
}
