//! By what right a run is written about: nobody else knows of it, or a lease of the queue that
//! another worker can take over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;

use super::attend::{LetGo, Stop};
use crate::queue::{Grant, NextStep, PassedOn, Queue, QueueError, Requeued};
use crate::run::{RunFailure, error_chain};

/// How long after its first failure a run that could not be started is tried again. A registry or an
/// engine that is restarted is back by then.
const FIRST_RETRY: SignedDuration = SignedDuration::from_secs(15);

/// How soon the queue is told again what it must know. A disk that was full for a moment takes it then.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// Somebody else has the run now: nothing more may be written about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost;

/// Where a run is that could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// In the queue again.
    Queued,
    /// It was to be stopped anyway, and the queue knows.
    Cancelled,
    /// Still ours: it has to be ended.
    Ours,
}

/// The right to write about a run.
#[derive(Debug)]
pub(super) enum Tenure {
    /// The run of this process, which no queue knows.
    Own,
    /// A lease.
    Leased(Lease),
}

/// A lease of the queue.
#[derive(Debug)]
pub(super) struct Lease {
    queue: Queue,
    grant: Grant,
    /// Which step of the run it is for, from 0.
    step: u64,
    /// Bytes of the agent's output that the queue knows of.
    recorded: AtomicU64,
    /// Whether the agent may have been started, by this process or an earlier one.
    may_work: AtomicBool,
}

impl Tenure {
    pub(super) fn leased(queue: Queue, (grant, step): (Grant, u64), recorded: u64) -> Self {
        let (recorded, may_work) = (AtomicU64::new(recorded), AtomicBool::new(false));
        Self::Leased(Lease { queue, grant, step, recorded, may_work })
    }

    /// From here on the agent may work: the run never goes back into the queue.
    pub(super) fn may_work(&self) {
        if let Self::Leased(Lease { may_work, .. }) = self {
            may_work.store(true, Ordering::Relaxed);
        }
    }

    /// Whether nothing can have been started for the run.
    pub(super) fn is_untouched(&self) -> bool {
        match self {
            Self::Own => false,
            Self::Leased(lease) => !lease.may_work.load(Ordering::Relaxed),
        }
    }

    /// The number of the sandbox among those of the run; `None` where there is only one.
    pub(super) fn attempt(&self) -> Option<u64> {
        match self {
            Self::Own => None,
            Self::Leased(lease) => Some(lease.grant.attempt),
        }
    }

    /// Bytes of the agent's output that are known to have been recorded.
    pub(super) fn recorded(&self) -> u64 {
        match self {
            Self::Own => 0,
            Self::Leased(lease) => lease.recorded.load(Ordering::Relaxed),
        }
    }

    /// The agent has been started. The queue must know it before anything else is told: it never
    /// gives a started run to anybody again.
    pub(super) async fn started(&self, now: Timestamp, stop: &Stop) -> Result<(), LetGo> {
        let Self::Leased(Lease { queue, grant, .. }) = self else { return Ok(()) };
        insist(stop, || queue.started(grant, now)).await
    }

    /// The agent's output was recorded up to `n_bytes`.
    pub(super) async fn advance(&self, n_bytes: u64, now: Timestamp) -> Result<(), Lost> {
        let Self::Leased(Lease { queue, grant, recorded, .. }) = self else { return Ok(()) };
        let from = recorded.load(Ordering::Relaxed);
        if n_bytes <= from {
            return Ok(());
        }
        match queue.advance(grant, from, n_bytes, now).await {
            Ok(()) => recorded.store(n_bytes, Ordering::Relaxed),
            // An earlier advance came through and its answer was lost.
            Err(QueueError::Offset { recorded: known }) => {
                recorded.store(known, Ordering::Relaxed);
            }
            other => tolerate(other)?,
        }
        Ok(())
    }

    /// Saves what cannot be found out again once the sandbox is removed.
    pub(super) async fn finishing(
        &self,
        ending: &str,
        now: Timestamp,
        stop: &Stop,
    ) -> Result<(), LetGo> {
        let Self::Leased(Lease { queue, grant, .. }) = self else { return Ok(()) };
        insist(stop, || queue.finishing(grant, ending, now)).await
    }

    /// Goes on to the next step of a run, which waits for a lease of its own. Only a run that a queue
    /// knows has several.
    pub(super) async fn pass_on(
        &self,
        next: &NextStep,
        now: Timestamp,
        stop: &Stop,
    ) -> Result<PassedOn, LetGo> {
        let Self::Leased(Lease { queue, grant, recorded, .. }) = self else {
            return Ok(PassedOn::ToBeCancelled);
        };
        loop {
            let total_bytes = recorded.load(Ordering::Relaxed);
            match queue.pass_on(grant, &NextStep { total_bytes, ..next.clone() }, now).await {
                Ok(passed_on) => return Ok(passed_on),
                Err(QueueError::Lost) => return Err(LetGo::Lost),
                // What an earlier process had read and this one could not find again.
                Err(QueueError::Offset { recorded: known }) => {
                    recorded.store(known, Ordering::Relaxed);
                    continue;
                }
                Err(e) => {
                    tracing::warn!(error = %error_chain(&e), "the queue does not go on with a run yet; it is told again");
                }
            }
            tokio::select! {
                biased;
                let_go = stop.let_go() => return Err(let_go),
                () = sleep(TELL_AGAIN) => {}
            }
        }
    }

    /// Gives a run back whose agent could not be started through no fault of its own.
    pub(super) async fn retry(&self, failure: &RunFailure, now: Timestamp) -> Result<Retry, Lost> {
        let Self::Leased(Lease { queue, grant, step, .. }) = self else { return Ok(Retry::Ours) };
        // Every step before this one took at least one attempt of its own.
        let n_tries = grant.attempt.saturating_sub(*step).clamp(1, 20);
        let backoff = FIRST_RETRY * i32::try_from(n_tries).unwrap_or(1);
        let run_at = now.checked_add(backoff).unwrap_or(now);
        match queue.retry(grant, run_at, &failure.to_string(), now).await {
            Ok(Requeued::Queued) => Ok(Retry::Queued),
            Ok(Requeued::Cancelled) => Ok(Retry::Cancelled),
            Err(QueueError::OutOfAttempts { .. } | QueueError::Started) => Ok(Retry::Ours),
            Err(e) => tolerate(Err(e)).map(|()| Retry::Ours),
        }
    }
}

/// Tells the queue until it has heard, or the run is let go. The lease is renewed meanwhile.
async fn insist<F>(stop: &Stop, tell: impl Fn() -> F) -> Result<(), LetGo>
where
    F: Future<Output = Result<(), QueueError>>,
{
    loop {
        match tell().await {
            Ok(()) => return Ok(()),
            Err(QueueError::Lost) => return Err(LetGo::Lost),
            Err(e) => {
                tracing::warn!(error = %error_chain(&e), "the queue does not take what it must know; it is told again");
            }
        }
        tokio::select! {
            biased;
            let_go = stop.let_go() => return Err(let_go),
            () = sleep(TELL_AGAIN) => {}
        }
    }
}

/// Only a lost lease ends a run. A queue that cannot be written to for a moment does not: what was
/// not saved is found out again after a restart, or was advice.
fn tolerate(written: Result<(), QueueError>) -> Result<(), Lost> {
    match written {
        Ok(()) => Ok(()),
        Err(QueueError::Lost) => Err(Lost),
        Err(e) => {
            tracing::warn!(error = %error_chain(&e), "the queue was not told how far a run is");
            Ok(())
        }
    }
}
