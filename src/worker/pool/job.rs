//! One leased run: from the job's text to its finish in the queue.

use std::time::Duration;

use tokio::time::sleep;

use super::step::{Prepared, close_unplanned, prepared};
use super::workers::{Shared, sandbox_of};
use crate::job::{JobSecrets, JobSpec};
use crate::queue::{Cost, Ended, Finish, Grant, JobUsage, Leased, QueueError, Stage};
use crate::run::{RunFailure, RunName, RunStatus, error_chain};
use crate::telemetry::meters::{self, TokenKind};
use crate::webhook::{News as WebhookNews, OutboxError};
use crate::worker::attend::{LetGo, Stop};
use crate::worker::ending::Ending;
use crate::worker::execute::{Done, Entry, Run, Unfinished};
use crate::worker::record::Record;
use crate::worker::spent::job_usage;
use crate::worker::tenure::Tenure;

/// How long after a failed try the end of a run is written again. The run stays ours until it is
/// written, and a process that is stopped before that leaves it to the next one.
const FINISH_AGAIN: Duration = Duration::from_secs(10);

/// Works on a run until it has ended or is let go.
pub(super) async fn work(shared: &Shared, leased: Leased, stop: &Stop) {
    if leased.cancel_requested {
        stop.cancel.cancel();
    }
    let grant = leased.grant.clone();
    let so_far = (leased.used, leased.took);
    let frozen = Frozen { spec: leased.spec.clone(), sealed: leased.sealed.clone() };
    let finish = match run(shared, leased, stop).await {
        Ok(finish) => finish,
        Err(Unfinished::Store(e)) => {
            let failure = RunFailure::StoreFailed { detail: error_chain(&e) };
            (failed(&failure, None, so_far), JobUsage::default())
        }
        Err(Unfinished::PassedOn(used)) => {
            count_tokens(&used);
            return;
        }
        Err(Unfinished::Requeued | Unfinished::LetGo(_)) => return,
    };
    end(shared, (&grant, &frozen), finish, stop).await;
}

/// Ends a run whose work broke off by a bug of ours.
pub(super) async fn fail_after_panic(shared: &Shared, leased: &Leased, stop: &Stop) {
    let detail = "the work on the run panicked".to_owned();
    let finish = given_up(shared, leased, RunFailure::Internal { detail }).await;
    let frozen = Frozen { spec: leased.spec.clone(), sealed: leased.sealed.clone() };
    end(shared, (&leased.grant, &frozen), (finish, JobUsage::default()), stop).await;
}

/// Tells whoever wants to know of an end, and then the queue.
async fn end(
    shared: &Shared,
    (grant, frozen): (&Grant, &Frozen),
    (finish, used): (Finish, JobUsage),
    stop: &Stop,
) {
    if told_webhook(shared, grant, frozen, (finish.ended, stop)).await {
        count(&finish, &used);
        write_finish(shared, grant, finish, stop).await;
    }
}

/// What was frozen of a job when it was submitted.
struct Frozen {
    spec: String,
    sealed: Option<String>,
}

/// Puts the news into the outbox of webhooks, where somebody wants to be told. It happens before the
/// queue knows of the end: a crash in between tells it once more instead of never. False where the
/// run is let go before that: the next process does it.
async fn told_webhook(
    shared: &Shared,
    grant: &Grant,
    frozen: &Frozen,
    (ended, stop): (Ended, &Stop),
) -> bool {
    let frozen = (frozen.spec.as_str(), frozen.sealed.as_deref());
    loop {
        let Err(e) = enqueue_webhook(shared, &grant.name, frozen, ended).await else { return true };
        tracing::warn!(error = %error_chain(&e), "the webhook of a run is not in the outbox yet");
        tokio::select! {
            biased;
            _ = stop.let_go() => return false,
            () = sleep(FINISH_AGAIN) => {}
        }
    }
}

/// Puts the news of an end into the outbox, where somebody wants to be told. What can never be told is
/// said in the log.
pub(super) async fn enqueue_webhook(
    shared: &Shared,
    run: &RunName,
    (spec, sealed): (&str, Option<&str>),
    ended: Ended,
) -> Result<(), OutboxError> {
    let url = JobSpec::thaw(spec).ok().and_then(|spec| spec.webhook_url);
    let (Some(outbox), Some(url)) = (&shared.outbox, url) else { return Ok(()) };
    let secret = secrets(shared, run, sealed).unwrap_or_default().webhook_secret;
    let news = WebhookNews { run, ended, url: &url, secret };
    match outbox.enqueue(news, (shared.parts.clock)()).await {
        Err(e) if e.is_final() => {
            tracing::error!(error = %error_chain(&e), "the webhook of a run cannot be told");
            Ok(())
        }
        told => told,
    }
}

/// Counts an end for whoever watches the figures, and what the last step used.
fn count(finish: &Finish, used: &JobUsage) {
    meters::run_ended(match finish.ended {
        Ended::Completed => "completed",
        Ended::Failed => "failed",
        Ended::Cancelled => "cancelled",
    });
    count_tokens(used);
}

/// Counts what a step used.
fn count_tokens(usage: &JobUsage) {
    meters::tokens(TokenKind::Input, usage.input_tokens);
    meters::tokens(TokenKind::Output, usage.output_tokens);
    meters::tokens(TokenKind::CacheRead, usage.cache_read_tokens);
    meters::tokens(TokenKind::CacheWrite, usage.cache_write_tokens);
    match usage.cost {
        Cost::Reported(micros) => meters::cost("reported", micros),
        Cost::Estimated(micros) => meters::cost("estimated", micros),
        Cost::Unknown => {}
    }
}

/// Runs it, and says what the queue is to know of its end, and what its last step used.
async fn run(
    shared: &Shared,
    leased: Leased,
    stop: &Stop,
) -> Result<(Finish, JobUsage), Unfinished> {
    let (next_off, started, entry) = match &leased.stage {
        Stage::Fresh if shared.was_held(&leased.grant) => (0, None, Ok(Entry::Leased)),
        Stage::Fresh => (0, None, Ok(Entry::New)),
        Stage::Started { at, next_off } => (*next_off, Some(*at), Ok(Entry::Started(*at))),
        Stage::Finishing { started, next_off, ending } => {
            let saved = Ending::from_json(ending).map(|ending| Entry::Finishing(Box::new(ending)));
            (*next_off, *started, saved)
        }
    };
    let tenure =
        Tenure::leased(shared.queue.clone(), (leased.grant.clone(), leased.step), next_off);
    if shared.was_held(&leased.grant) {
        tenure.may_work();
    }
    let with_bytes =
        |finish| (Finish { total_bytes: tenure.recorded(), ..finish }, JobUsage::default());
    let prepared = prepared(shared, &leased).await;
    let (Prepared { plan, parts, part }, entry) = match (prepared, entry) {
        (Ok(prepared), Ok(entry)) => (prepared, entry),
        (Err(failure), _) => return Ok(with_bytes(given_up(shared, &leased, failure).await)),
        (Ok(_), Err(e)) => return Ok(with_bytes(given_up(shared, &leased, internal(&e)).await)),
    };
    let record = match entry {
        Entry::New | Entry::Leased => Record::of_job(&parts, &plan, part, leased.created),
        Entry::Started(_) | Entry::Finishing(_) => {
            Record::of_started(&parts, &plan, part, (leased.created, started))
        }
    };
    let record = match record {
        Ok(record) => record,
        // Its agent may work, and its sandbox must not outlive it.
        Err(e) => {
            let failure = RunFailure::StoreFailed { detail: error_chain(&e) };
            return Ok(with_bytes(given_up(shared, &leased, failure).await));
        }
    };
    let run = Run { parts: &parts, plan: &plan, record: &record, stop, tenure: &tenure };
    match run.to_its_end(entry, &mut |_| {}).await {
        Ok(done) => Ok((with_bytes(finish_of(&done)).0, done.used)),
        Err(Unfinished::LetGo(LetGo::Leave)) if tenure.is_untouched() => {
            release(shared, &leased.grant).await;
            Err(Unfinished::LetGo(LetGo::Leave))
        }
        Err(unfinished) => Err(unfinished),
    }
}

/// A run that this process cannot go on with. No run ends before its sandbox does.
async fn given_up(shared: &Shared, leased: &Leased, failure: RunFailure) -> Finish {
    if let Some(id) = sandbox_of(leased)
        && let Err(e) = shared.parts.engine.discard(&id).await
    {
        tracing::error!(sandbox.id = %id, error = %error_chain(&e), "sandbox `{id}` stays behind");
    }
    let status = RunStatus::Failed(failure.clone());
    let closed = close_unplanned(shared, leased, &status).await;
    let step = closed.unwrap_or_else(|e| {
        tracing::warn!(error = %error_chain(&e), "the record of a run is not closed; the queue knows its end");
        None
    });
    failed(&failure, step.as_deref(), (leased.used, leased.took))
}

/// The secrets of a job.
pub(super) fn secrets(
    shared: &Shared,
    name: &RunName,
    sealed: Option<&str>,
) -> Result<JobSecrets, RunFailure> {
    let Some(sealed) = sealed else { return Ok(JobSecrets::default()) };
    let opened = shared.vault.open(sealed, &JobSecrets::context(name));
    let opened = opened.map_err(|e| internal(&e))?;
    JobSecrets::from_plaintext(opened.expose()).map_err(|e| internal(&e))
}

/// Gives a run back whose agent was not started. One whose agent works stays ours: the next process
/// of this worker takes it over.
async fn release(shared: &Shared, grant: &Grant) {
    match shared.queue.release(grant, (shared.parts.clock)()).await {
        Ok(_) | Err(QueueError::Started | QueueError::Lost) => {}
        Err(e) => {
            tracing::warn!(run.id = %grant.name.id, error = %error_chain(&e), "a run was not given back; the next start takes it over");
        }
    }
}

/// Tells the queue how a run ended.
async fn write_finish(shared: &Shared, grant: &Grant, mut finish: Finish, stop: &Stop) {
    loop {
        match shared.queue.finish(grant, &finish, (shared.parts.clock)()).await {
            Ok(()) | Err(QueueError::Lost) => return,
            // What an earlier process had read and this one could not find again.
            Err(QueueError::Offset { recorded }) => finish.total_bytes = recorded,
            Err(e) => {
                tracing::warn!(run.id = %grant.name.id, error = %error_chain(&e), "the end of a run was not written to the queue; it is tried again");
                tokio::select! {
                    biased;
                    _ = stop.let_go() => return,
                    () = sleep(FINISH_AGAIN) => {}
                }
            }
        }
    }
}

fn finish_of(done: &Done) -> Finish {
    let report = &done.report;
    let (ended, reason) = match &report.status {
        RunStatus::Completed => (Ended::Completed, None),
        RunStatus::Cancelled => (Ended::Cancelled, None),
        RunStatus::Failed(failure) => {
            (Ended::Failed, Some(reason(failure, report.step.as_deref())))
        }
        RunStatus::Pending | RunStatus::Running => {
            (Ended::Failed, Some("the run was closed before it ended".to_owned()))
        }
    };
    Finish {
        ended,
        reason,
        exit_code: done.exit_code.map(i64::from),
        total_bytes: 0,
        usage: job_usage(&report.usage.by_model.total()),
        duration: Some(report.took),
    }
}

/// A run that failed in this step, where it has several, after it had used so much in so long.
fn failed(failure: &RunFailure, step: Option<&str>, (usage, took): (JobUsage, Duration)) -> Finish {
    Finish {
        ended: Ended::Failed,
        reason: Some(reason(failure, step)),
        exit_code: None,
        total_bytes: 0,
        usage,
        duration: Some(took).filter(|took| !took.is_zero()),
    }
}

/// What a list of runs shows of a failure.
fn reason(failure: &RunFailure, step: Option<&str>) -> String {
    format!("{}: {}", failure.code(), failure.told_of(step))
}

pub(super) fn internal(error: &dyn std::error::Error) -> RunFailure {
    RunFailure::Internal { detail: error_chain(error) }
}
