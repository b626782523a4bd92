//! The last word about runs that ended without a worker: cancelled while they waited, or given up.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::job::enqueue_webhook;
use super::step::{Prepared, close_unplanned, prepared};
use super::workers::{Shared, Workers, sandbox_of};
use crate::queue::{Ended, Leased, QueueError, Stage, Untold};
use crate::records::RecordError;
use crate::run::{RunFailure, RunStatus, error_chain};
use crate::store::StoreError;
use crate::telemetry::meters;
use crate::webhook::OutboxError;
use crate::worker::attend::Stop;
use crate::worker::claim::Claim;
use crate::worker::conclude::Remains;
use crate::worker::ending::{Ending, How};
use crate::worker::execute::Run;
use crate::worker::follow::Seal;
use crate::worker::record::Record;
use crate::worker::tenure::Tenure;

/// How often the queue is asked when nothing was heard of it: for ends that come due by the clock.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The end of a run was not told. It is tried again when its claim has run out.
#[derive(Debug, thiserror::Error)]
enum NotTold {
    #[error("another worker still has its sandbox")]
    Busy(#[source] std::io::Error),
    #[error("could not close its record")]
    Store(#[from] StoreError),
    #[error("could not bring its record up to date")]
    Record(#[from] RecordError),
    #[error("could not put its webhook into the outbox")]
    Outbox(#[from] OutboxError),
    #[error("could not note that it was told")]
    Queue(#[from] QueueError),
}

impl Workers {
    /// Tells the end of every run that ended without a worker, until `drain` is cancelled: its record
    /// is closed, its news get their last line, and who wanted to know is told.
    pub async fn tell_ends(&self, drain: CancellationToken) {
        let shared = &*self.shared;
        let mut changed = shared.queue.changed();
        while !drain.is_cancelled() {
            changed.borrow_and_update();
            match shared.queue.untold((shared.parts.clock)()).await {
                Ok(Some(untold)) => {
                    let span = tracing::info_span!("run", run.id = %untold.run.grant.name.id);
                    told(shared, &untold).instrument(span).await;
                    continue;
                }
                Ok(None) => {}
                Err(e) => {
                    tracing::error!(error = %error_chain(&e), "the ends of runs are not told");
                }
            }
            tokio::select! {
                () = drain.cancelled() => {}
                _ = changed.changed() => {}
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }
}

/// Tells one end, or says why not. A fault of one must not keep the others from being told.
async fn told(shared: &Shared, untold: &Untold) {
    match AssertUnwindSafe(tell(shared, untold)).catch_unwind().await {
        Ok(Ok(())) => meters::run_ended(match untold.ended {
            Ended::Completed => "completed",
            Ended::Failed => "failed",
            Ended::Cancelled => "cancelled",
        }),
        Ok(Err(e)) => {
            tracing::warn!(error = %error_chain(&e), "the end of a run is not told yet");
        }
        Err(_) => tracing::error!("telling the end of a run panicked; it is tried again"),
    }
}

/// Everything can be done twice: whoever is killed in between is followed by one who begins anew.
async fn tell(shared: &Shared, untold: &Untold) -> Result<(), NotTold> {
    let run = &untold.run;
    let _claim = without_sandbox(shared, run).await?;
    let status = match untold.ended {
        Ended::Completed => RunStatus::Completed,
        Ended::Failed => RunStatus::Failed(RunFailure::WorkerLost),
        Ended::Cancelled => RunStatus::Cancelled,
    };
    // Between two steps there is nothing but what the earlier ones left.
    let is_between = run.step > 0 && matches!(run.stage, Stage::Fresh);
    let prepared = if is_between { None } else { prepared(shared, run).await.ok() };
    match prepared {
        Some(prepared) => say_last(untold, prepared, status).await?,
        None => drop(close_unplanned(shared, run, &status).await?),
    }
    enqueue_webhook(shared, &run.grant.name, (&run.spec, run.sealed.as_deref()), untold.ended)
        .await?;
    Ok(shared.queue.told(untold).await?)
}

/// Closes the record of a run that can be planned.
async fn say_last(
    untold: &Untold,
    Prepared { plan, parts, part }: Prepared,
    status: RunStatus,
) -> Result<(), NotTold> {
    let run = &untold.run;
    let record = match &run.stage {
        Stage::Fresh => Record::of_job(&parts, &plan, part, run.created)?,
        Stage::Started { at, .. } => {
            Record::of_started(&parts, &plan, part, (run.created, Some(*at)))?
        }
        Stage::Finishing { started, .. } => {
            Record::of_started(&parts, &plan, part, (run.created, *started))?
        }
    };
    let (stop, tenure) = (Stop::default(), Tenure::Own);
    let run = Run { parts: &parts, plan: &plan, record: &record, stop: &stop, tenure: &tenure };
    Ok(run.say_last(ending(&untold.run, status), untold.finished).await?)
}

/// What is known of the end of a run that nobody attended to it.
fn ending(run: &Leased, status: RunStatus) -> Ending {
    let how = match (&run.stage, status) {
        (Stage::Started { .. } | Stage::Finishing { .. }, RunStatus::Failed(failure)) => {
            How::Agent { exit: Err(failure), stopped: None }
        }
        (Stage::Fresh | Stage::Started { .. } | Stage::Finishing { .. }, status) => {
            How::NoAgent { status }
        }
    };
    Ending::new(how, Seal::default(), Remains::default())
}

/// Sees to it that nothing of the run's sandbox is left here. Who still works on it, although the run
/// was taken from him, holds its claim.
async fn without_sandbox(shared: &Shared, run: &Leased) -> Result<Option<Claim>, NotTold> {
    let Some(id) = sandbox_of(run).filter(|_| run.grant.attempt > 0) else { return Ok(None) };
    let claim = shared.parts.claims.claim(&id).map_err(NotTold::Busy)?;
    if let Err(e) = shared.parts.engine.discard(&id).await {
        tracing::error!(sandbox.id = %id, error = %error_chain(&e), "sandbox `{id}` stays behind");
    }
    Ok(Some(claim))
}
