//! One leased run: from the job's text to its finish in the queue.

use std::time::Duration;

use tokio::time::sleep;
use uuid::Uuid;

use super::workers::{Shared, sandbox_of};
use crate::job::{JobSecrets, JobSpec};
use crate::plan::plan;
use crate::queue::{Cost, Ended, Finish, Grant, JobUsage, Leased, QueueError, Stage, Status};
use crate::records::{RecordError, Records};
use crate::run::{RunFailure, RunName, RunPlan, RunStatus, error_chain};
use crate::telemetry::meters::{self, TokenKind};
use crate::trajectory::{CostBasis, Usage};
use crate::webhook::{News as WebhookNews, OutboxError};
use crate::worker::attend::{LetGo, Stop};
use crate::worker::ending::Ending;
use crate::worker::execute::{Done, Entry, Parts, Run, Unfinished};
use crate::worker::news::News;
use crate::worker::record::Record;
use crate::worker::report::RunReport;
use crate::worker::tenure::Tenure;
use crate::worker::watch::RunUpdate;

/// How long after a failed try the end of a run is written again. The run stays ours until it is
/// written, and a process that is stopped before that leaves it to the next one.
const FINISH_AGAIN: Duration = Duration::from_secs(10);

/// Millionths in a dollar.
const MICROS: f64 = 1e6;

/// Works on a run until it has ended or is let go.
pub(super) async fn work(shared: &Shared, leased: Leased, stop: &Stop) {
    if leased.cancel_requested {
        stop.cancel.cancel();
    }
    let grant = leased.grant.clone();
    let frozen = Frozen { spec: leased.spec.clone(), sealed: leased.sealed.clone() };
    let finish = match run(shared, leased, stop).await {
        Ok(finish) => finish,
        Err(Unfinished::Store(e)) => Finish {
            total_bytes: 0,
            ..failed(&RunFailure::StoreFailed { detail: error_chain(&e) })
        },
        Err(Unfinished::Requeued | Unfinished::LetGo(_)) => return,
    };
    end(shared, (&grant, &frozen), finish, stop).await;
}

/// Ends a run whose work broke off by a bug of ours.
pub(super) async fn fail_after_panic(shared: &Shared, leased: &Leased, stop: &Stop) {
    let detail = "the work on the run panicked".to_owned();
    let finish = given_up(shared, leased, &RunFailure::Internal { detail }).await;
    let frozen = Frozen { spec: leased.spec.clone(), sealed: leased.sealed.clone() };
    end(shared, (&leased.grant, &frozen), finish, stop).await;
}

/// Tells whoever wants to know of an end, and then the queue.
async fn end(shared: &Shared, (grant, frozen): (&Grant, &Frozen), finish: Finish, stop: &Stop) {
    if told_webhook(shared, grant, frozen, (finish.ended, stop)).await {
        count(&finish);
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

/// Closes the record of a run that there is no plan for: its document is brought up to its end, and
/// its news get their last line.
pub(super) async fn record_unplanned(
    shared: &Shared,
    name: &RunName,
    status: &RunStatus,
) -> Result<(), RecordError> {
    let Some(mut job) = shared.queue.get(name).await? else { return Ok(()) };
    (job.status, job.reason) = match status {
        RunStatus::Failed(failure) => (Status::Failed, Some(failure.to_string())),
        RunStatus::Cancelled => (Status::Cancelled, None),
        RunStatus::Pending | RunStatus::Running | RunStatus::Completed => return Ok(()),
    };
    let folder = Records::new(shared.queue.clone(), shared.parts.store.clone()).settle(job).await?;
    let (events, mut nobody) = (shared.parts.store.event_log(name)?, |_| {});
    let mut news = News::new(events, shared.parts.clock, &mut nobody);
    news.tell(RunUpdate::Opened { name: name.clone(), folder: folder.clone() });
    Ok(news.finish(&RunReport::without_agent(name, folder, status))?)
}

/// Counts an end for whoever watches the figures.
fn count(finish: &Finish) {
    meters::run_ended(match finish.ended {
        Ended::Completed => "completed",
        Ended::Failed => "failed",
        Ended::Cancelled => "cancelled",
    });
    let usage = &finish.usage;
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

/// Runs it, and says what the queue is to know of its end.
async fn run(shared: &Shared, leased: Leased, stop: &Stop) -> Result<Finish, Unfinished> {
    let (next_off, started, entry) = match &leased.stage {
        Stage::Fresh if shared.was_held(&leased.grant) => (0, None, Ok(Entry::Leased)),
        Stage::Fresh => (0, None, Ok(Entry::New)),
        Stage::Started { at, next_off } => (*next_off, Some(*at), Ok(Entry::Started(*at))),
        Stage::Finishing { started, next_off, ending } => {
            let saved = Ending::from_json(ending).map(|ending| Entry::Finishing(Box::new(ending)));
            (*next_off, *started, saved)
        }
    };
    let tenure = Tenure::leased(shared.queue.clone(), leased.grant.clone(), next_off);
    if shared.was_held(&leased.grant) {
        tenure.may_work();
    }
    let with_bytes = |finish| Finish { total_bytes: tenure.recorded(), ..finish };
    let prepared = prepared(shared, &leased);
    let (plan, parts, entry) = match (prepared, entry) {
        (Ok((plan, parts)), Ok(entry)) => (plan, parts, entry),
        (Err(failure), _) => return Ok(with_bytes(given_up(shared, &leased, &failure).await)),
        (Ok(_), Err(e)) => return Ok(with_bytes(given_up(shared, &leased, &internal(&e)).await)),
    };
    let record = match entry {
        Entry::New | Entry::Leased => Record::of_job(&parts, &plan, leased.created),
        Entry::Started(_) | Entry::Finishing(_) => {
            Record::of_started(&parts, &plan, leased.created, started)
        }
    };
    let record = match record {
        Ok(record) => record,
        // Its agent may work, and its sandbox must not outlive it.
        Err(e) => {
            let failure = RunFailure::StoreFailed { detail: error_chain(&e) };
            return Ok(with_bytes(given_up(shared, &leased, &failure).await));
        }
    };
    let run = Run { parts: &parts, plan: &plan, record: &record, stop, tenure: &tenure };
    match run.to_its_end(entry, &mut |_| {}).await {
        Ok(done) => Ok(with_bytes(finish_of(&done))),
        Err(Unfinished::LetGo(LetGo::Leave)) if tenure.is_untouched() => {
            release(shared, &leased.grant).await;
            Err(Unfinished::LetGo(LetGo::Leave))
        }
        Err(unfinished) => Err(unfinished),
    }
}

/// The plan of a job, and the parts with the keys that it may use. It was planned before it was
/// taken into the queue, so a failure here is about something that has changed since.
pub(super) fn prepared(shared: &Shared, leased: &Leased) -> Result<(RunPlan, Parts), RunFailure> {
    let name = &leased.grant.name;
    let spec = JobSpec::thaw(&leased.spec).map_err(|e| internal(&e))?;
    let secrets = secrets(shared, name, leased.sealed.as_deref())?;
    let session = leased.session_id.as_deref().unwrap_or_default();
    let session = Uuid::parse_str(session).map_err(|e| internal(&e))?;
    let keyring = secrets.keyring(shared.shared_keys.as_ref());
    let request = spec.request(name, &secrets, shared.parts.store.root());
    let draw = JobSpec::draw(name, session);
    let plan = plan(&request, &keyring, &shared.parts.snapshots, draw).accepted()?;
    Ok((plan, Parts { keyring, ..shared.parts.clone() }))
}

/// A run that this process cannot go on with. No run ends before its sandbox does.
async fn given_up(shared: &Shared, leased: &Leased, failure: &RunFailure) -> Finish {
    if let Some(id) = sandbox_of(leased)
        && let Err(e) = shared.parts.engine.discard(&id).await
    {
        tracing::error!(sandbox.id = %id, error = %error_chain(&e), "sandbox `{id}` stays behind");
    }
    let status = RunStatus::Failed(failure.clone());
    if let Err(e) = record_unplanned(shared, &leased.grant.name, &status).await {
        tracing::warn!(error = %error_chain(&e), "the record of a run is not closed");
    }
    failed(failure)
}

/// The secrets of a job.
fn secrets(
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
        RunStatus::Failed(failure) => (Ended::Failed, Some(reason(failure))),
        RunStatus::Pending | RunStatus::Running => {
            (Ended::Failed, Some("the run was closed before it ended".to_owned()))
        }
    };
    Finish {
        ended,
        reason,
        exit_code: done.exit_code.map(i64::from),
        total_bytes: 0,
        usage: usage(&report.usage.by_model.total()),
        duration: Some(report.took),
    }
}

fn failed(failure: &RunFailure) -> Finish {
    Finish {
        ended: Ended::Failed,
        reason: Some(reason(failure)),
        exit_code: None,
        total_bytes: 0,
        usage: JobUsage::default(),
        duration: None,
    }
}

/// What a list of runs shows of a failure.
fn reason(failure: &RunFailure) -> String {
    format!("{}: {failure}", failure.code())
}

fn usage(total: &Usage) -> JobUsage {
    JobUsage {
        input_tokens: total.input,
        output_tokens: total.output,
        cache_read_tokens: total.cache_read,
        cache_write_tokens: total.cache_write(),
        cost: match (total.cost_usd.map(micros), total.cost_basis) {
            (Some(micros), CostBasis::Reported) => Cost::Reported(micros),
            (Some(micros), CostBasis::Estimated) => Cost::Estimated(micros),
            (Some(_), CostBasis::Unknown) | (None, _) => Cost::Unknown,
        },
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cost is a small positive amount, and one that is not becomes 0 or the largest"
)]
fn micros(usd: f64) -> u64 {
    (usd * MICROS).round() as u64
}

fn internal(error: &dyn std::error::Error) -> RunFailure {
    RunFailure::Internal { detail: error_chain(error) }
}
