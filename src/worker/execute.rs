//! One run, top to bottom. `stay.rs` tells what happens beside a sandbox that runs.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::attend::{LetGo, Stop};
use super::base::{Prepared, prepare};
use super::ended::Ended;
use super::ending::Ending;
use super::fault::{no_access, not_prepared, not_provisioned, not_ready, sandbox_failed};
use super::model::{self, Model};
use super::news::News;
use super::part::Part;
use super::parts::Parts;
use super::record::Record;
use super::report::RunReport;
use super::spent::job_usage;
use super::stage::{Ground, sandbox_spec};
use super::stay::Stay;
use super::tenure::{Lost, Retry, Tenure};
use super::watch::{Phase, RunUpdate, Watcher};
use crate::provider;
use crate::queue::{JobUsage, NextStep, PassedOn};
use crate::run::{Credentials, RunFailure, RunName, RunPlan, RunStatus, error_chain};
use crate::runtime::{self, Assignment, Session};
use crate::sandbox::{InvalidSpec, Sandbox, SandboxId};
use crate::secret::Redactor;
use crate::spend::Purse;
use crate::store::StoreError;
use crate::telemetry::meters;

/// What whoever watches is told of a run that was taken over.
const ADOPTED: &str = "runbookd was restarted while the run went on; nothing of it was lost.";

/// How long an engine may be away when something is asked of it: the time of an upgrade.
pub(super) const ENGINE_ABSENCE: Duration = Duration::from_secs(120);

/// How soon a disk that refused a record is asked again.
const WRITE_AGAIN: Duration = Duration::from_secs(5);

/// How often it is asked again.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Runs a plan to its end. Whatever happens to the run is in the report; an error means that there
/// could be no record of it.
///
/// # Errors
/// [`StoreError`] when the run's folder cannot be made or its record cannot be written.
pub async fn execute(
    parts: &Parts,
    plan: &RunPlan,
    stop: &Stop,
    watch: Watcher<'_>,
) -> Result<RunReport, StoreError> {
    let record = Record::open(parts, plan)?;
    let run = Run { parts, plan, record: &record, stop, tenure: &Tenure::Own };
    match run.to_its_end(Entry::New, watch).await {
        Ok(done) => Ok(done.report),
        Err(Unfinished::Store(e)) => Err(e),
        Err(Unfinished::LetGo(_) | Unfinished::Requeued | Unfinished::PassedOn(_)) => {
            unreachable!("only a run that a queue knows is let go")
        }
    }
}

/// Where a run is entered.
#[derive(Debug)]
pub(super) enum Entry {
    /// Nothing was done for it.
    New,
    /// An earlier process had it and did not say that its agent was started.
    Leased,
    /// An earlier process started its agent then.
    Started(Timestamp),
    /// An earlier process saved its end.
    Finishing(Box<Ending>),
}

/// A run between its record's opening and its closing.
pub(super) struct Run<'a> {
    pub(super) parts: &'a Parts,
    pub(super) plan: &'a RunPlan,
    pub(super) record: &'a Record,
    pub(super) stop: &'a Stop,
    pub(super) tenure: &'a Tenure,
}

/// A run that has ended.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) report: RunReport,
    /// The agent's, where it had one.
    pub(super) exit_code: Option<i32>,
    /// What its last step used.
    pub(super) used: JobUsage,
}

/// Why a run has not ended here.
#[derive(Debug)]
pub(super) enum Unfinished {
    /// Its record cannot be written.
    Store(StoreError),
    /// Somebody else goes on with it.
    LetGo(LetGo),
    /// Its agent could not be started, and it is in the queue again, or was to be stopped anyway.
    Requeued,
    /// A step of it has ended, having used so much, and the next one waits in the queue.
    PassedOn(JobUsage),
}

/// What breaks the story off.
pub(super) enum Break {
    /// There was no agent.
    Status(RunStatus),
    /// There was no agent because something of ours did not do its part: it may be tried again.
    NotReady(RunFailure),
    LetGo(LetGo),
}

impl From<RunStatus> for Break {
    fn from(status: RunStatus) -> Self {
        Self::Status(status)
    }
}

impl From<Lost> for Break {
    fn from(lost: Lost) -> Self {
        Self::LetGo(lost.into())
    }
}

impl Run<'_> {
    /// Lives through a run from where it is entered, and closes its record.
    pub(super) async fn to_its_end(
        &self,
        entry: Entry,
        watch: Watcher<'_>,
    ) -> Result<Done, Unfinished> {
        let Self { parts, plan, record, .. } = self;
        let events = self.insist(|| parts.store.event_log(&plan.name)).await?;
        let events = events.masked_by(record.redactor().clone());
        let mut news = News::new(events, parts.clock, watch);
        let folder = record.folder().path().to_owned();
        news.tell(RunUpdate::Opened { name: plan.name.clone(), folder });
        if let Some(part) = record.part() {
            self.insist(|| news.begin(part)).await?;
        }
        if matches!(entry, Entry::New) {
            plan.notes.iter().for_each(|note| news.tell(RunUpdate::Note(note.clone())));
        }
        let lived = {
            let mut tell = |update| news.tell(update);
            AssertUnwindSafe(self.live(entry, &mut tell)).catch_unwind().await
        };
        let ended = match lived {
            Ok(lived) => self.what_of_it(lived, &mut news).await?,
            // The panic's own message is on standard error already.
            Err(_) => {
                self.clear().await;
                let detail = "the run's task panicked".to_owned();
                Ended::without_agent(RunStatus::Failed(RunFailure::Internal { detail }))
            }
        };
        let (exit_code, used) = (ended.exit_code(), ended.used());
        self.count_ungated(&ended).await;
        if record.goes_on(&ended) {
            let so_far = self.close(&ended, &RunStatus::Running).await?;
            self.insist(|| news.end_step()).await?;
            self.pass_on(&so_far, used).await?;
        }
        let status = if record.goes_on(&ended) { RunStatus::Cancelled } else { ended.status() };
        let report = self.close(&ended, &status).await?;
        match self.insist(|| news.finish(&report)).await {
            // The record is whole without it.
            Err(Unfinished::Store(e)) => {
                tracing::warn!(error = %error_chain(&e), "the last news of the run is not written");
            }
            told => told?,
        }
        Ok(Done { report, exit_code, used })
    }

    /// Counts a run that asked past any gateway by its own account, once however often it is ended.
    async fn count_ungated(&self, ended: &Ended) {
        let Self { parts, plan, record, .. } = self;
        if plan.credentials == Credentials::Gateway && plan.script.is_none() {
            return;
        }
        let step = record.part().map_or("", Part::step);
        let part = format!("{}/{step}", Purse::name_of(&plan.name));
        let used = ended.took();
        if used.is_empty() {
            return;
        }
        let counted = (part.as_str(), plan.script.is_none());
        let collection = &plan.name.collection;
        let counted = parts.spend.count_run(collection, counted, &used, (parts.clock)()).await;
        if let Err(e) = counted {
            tracing::warn!(error = %error_chain(&e), "what a run used is not counted");
        }
    }

    /// Says the last word about a run that nobody works on any more, unless somebody did.
    pub(super) async fn say_last(
        &self,
        ending: Ending,
        finished: Timestamp,
    ) -> Result<(), StoreError> {
        let Self { parts, plan, record, .. } = self;
        let events = parts.store.event_log(&plan.name)?;
        let events = events.masked_by(record.redactor().clone());
        if events.is_closed() {
            return Ok(());
        }
        let mut nobody = |_| {};
        let mut news = News::new(events, parts.clock, &mut nobody);
        let folder = record.folder().path().to_owned();
        news.tell(RunUpdate::Opened { name: plan.name.clone(), folder });
        if let Some(part) = record.part() {
            news.begin(part)?;
        }
        let ended = self.judge_saved(ending).await.unwrap_or_else(Ended::without_agent);
        news.finish(&record.close(plan, &ended, &ended.status(), finished)?)
    }

    /// Goes on to the next step, unless somebody wants the run stopped: then it is still ours.
    async fn pass_on(&self, so_far: &RunReport, used: JobUsage) -> Result<(), Unfinished> {
        let next = NextStep {
            from: self.record.part().map_or(0, |part| part.index() as u64),
            total_bytes: self.tenure.recorded(),
            usage: job_usage(&so_far.usage.by_model.total()),
            took: so_far.took,
        };
        match self.tenure.pass_on(&next, (self.parts.clock)(), self.stop).await {
            Ok(PassedOn::Queued) => Err(Unfinished::PassedOn(used)),
            Ok(PassedOn::ToBeCancelled) => Ok(()),
            Err(let_go) => Err(Unfinished::LetGo(let_go)),
        }
    }

    async fn close(&self, ended: &Ended, status: &RunStatus) -> Result<RunReport, Unfinished> {
        let Self { parts, plan, record, stop, .. } = self;
        if stop.lost.is_cancelled() {
            // Somebody else has said its last word, or will.
            return Err(Unfinished::LetGo(LetGo::Lost));
        }
        self.insist(|| record.close(plan, ended, status, (parts.clock)())).await
    }

    /// Asks the disk until it does it, where a queue keeps the run for the next process meanwhile: a
    /// disk that is full for a while must not make a failure of a success.
    async fn insist<T>(
        &self,
        mut act: impl FnMut() -> Result<T, StoreError>,
    ) -> Result<T, Unfinished> {
        loop {
            let error = match act() {
                Ok(done) => return Ok(done),
                Err(e) if matches!(self.tenure, Tenure::Own) => return Err(Unfinished::Store(e)),
                Err(e) => e,
            };
            tracing::warn!(error = %error_chain(&error), "the record of a run is not written yet");
            tokio::select! {
                biased;
                let_go = self.stop.let_go() => return Err(Unfinished::LetGo(let_go)),
                () = sleep(WRITE_AGAIN) => {}
            }
        }
    }

    /// The story.
    async fn live(&self, entry: Entry, watch: Watcher<'_>) -> Result<Ended, Break> {
        let Self { parts, plan, .. } = self;
        let id = self.sandbox_id()?;
        let _claim = parts.claims.claim(&id).map_err(|e| not_ready(&e))?;
        let adopted = match entry {
            Entry::New => None,
            Entry::Leased => self.adopt(&id, (parts.clock)()).await?,
            Entry::Started(at) => match self.adopt(&id, at).await? {
                None => {
                    self.close_model(&id).await;
                    return Ok(self.judge_lost().await?);
                }
                adopted => adopted,
            },
            Entry::Finishing(ending) => {
                self.discard().await;
                self.close_model(&id).await;
                return Ok(self.judge_saved(*ending).await?);
            }
        };
        let access = provider::access(plan.provider, plan.runtime, &parts.keyring)
            .map_err(|faults| no_access(&faults))?;
        let real = access.secrets.clone();
        let started = Model::start(self, &id, access).await;
        let (model, access) = started.map_err(Break::NotReady)?;
        let redactor =
            Redactor::new(real.iter().chain(&access.secrets).chain(plan.secret_values()));
        let (sandbox, adopted) = match adopted {
            Some((sandbox, at)) => {
                watch(RunUpdate::Note(ADOPTED.to_owned()));
                (sandbox, Some(at))
            }
            None => match self.provision(id, &access, &model, watch).await {
                Ok(sandbox) => (sandbox, None),
                Err(broken_off) => {
                    model.stop().await;
                    return Err(broken_off);
                }
            },
        };
        self.stay(Stay { sandbox, adopted, model, redactor }, watch).await
    }

    /// Takes over the sandbox of an earlier process. What is there of one that never started goes.
    async fn adopt(
        &self,
        id: &SandboxId,
        at: Timestamp,
    ) -> Result<Option<(Sandbox, Timestamp)>, Break> {
        let engine = &self.parts.engine;
        let since = Instant::now();
        let adopted = loop {
            match engine.adopt(id).await {
                Ok(adopted) => break adopted,
                // An engine that is being restarted comes back; what it holds must not be given up.
                Err(e) if since.elapsed() < ENGINE_ABSENCE => {
                    tracing::warn!(error = %error_chain(&e), "the sandbox cannot be taken over yet");
                }
                Err(e) => return Err(sandbox_failed(&e).into()),
            }
            tokio::select! {
                biased;
                let_go = self.stop.let_go() => return Err(Break::LetGo(let_go)),
                () = sleep(ASK_AGAIN) => {}
            }
        };
        if adopted.is_none() {
            engine.discard(id).await.map_err(|e| not_ready(&e))?;
        }
        Ok(adopted.map(|sandbox| (sandbox, at)))
    }

    /// Makes a sandbox with everything in place.
    async fn provision(
        &self,
        id: SandboxId,
        access: &provider::Access,
        model: &Model,
        watch: Watcher<'_>,
    ) -> Result<Sandbox, Break> {
        let Self { parts, plan, record, stop, .. } = self;
        let Prepared { image, target, hold, .. } = tokio::select! {
            biased;
            let_go = stop.let_go() => return Err(Break::LetGo(let_go)),
            prepared = prepare(parts, plan, record, stop, watch) => prepared.map_err(not_prepared)?,
        };
        let cli = tokio::select! {
            biased;
            let_go = stop.let_go() => return Err(Break::LetGo(let_go)),
            () = stop.cancel.cancelled() => return Err(RunStatus::Cancelled.into()),
            cli = parts.agents.fetch(plan.runtime, target, watch) => cli.map_err(Break::NotReady)?,
        };
        let invocation = self.invocation();
        invocation.notes.iter().for_each(|note| watch(RunUpdate::Note(note.clone())));
        watch(RunUpdate::Phase(Phase::Provisioning));
        let ground = Ground { image: image.as_deref(), cli: &cli };
        let mut spec = sandbox_spec(id, plan, invocation, access, ground);
        spec.mounts.extend(model.mounts());
        let since = Instant::now();
        let provisioned = tokio::select! {
            biased;
            let_go = stop.let_go() => {
                // What was begun of it goes: the run is as if nobody had touched it.
                self.reap().await;
                Err(Break::LetGo(let_go))
            }
            sandbox = parts.engine.provision(spec) => sandbox.map_err(|e| not_provisioned(&e)),
        };
        // Its container keeps the image from here on.
        drop(hold);
        if provisioned.is_ok() {
            meters::sandbox_made(parts.engine.report().kind.as_str(), since.elapsed());
        }
        provisioned
    }

    /// What the end of the story means for the record.
    async fn what_of_it(
        &self,
        lived: Result<Ended, Break>,
        news: &mut News<'_>,
    ) -> Result<Ended, Unfinished> {
        let failure = match lived {
            Ok(ended) => return Ok(ended),
            Err(Break::LetGo(let_go)) => return Err(Unfinished::LetGo(let_go)),
            Err(Break::Status(status)) => {
                // What broke the story off may have left a sandbox, even one that works.
                self.clear().await;
                return Ok(Ended::without_agent(status));
            }
            Err(Break::NotReady(failure)) => {
                self.clear().await;
                failure
            }
        };
        match self.tenure.retry(&failure, (self.parts.clock)()).await {
            Ok(Retry::Queued) => {
                news.tell(RunUpdate::Note(format!("The run is tried again: {failure}.")));
                Err(Unfinished::Requeued)
            }
            // The queue has its end, and who looks after such ends tells it.
            Ok(Retry::Cancelled) => Err(Unfinished::Requeued),
            Ok(Retry::Ours) => Ok(Ended::without_agent(RunStatus::Failed(failure))),
            Err(lost) => Err(Unfinished::LetGo(lost.into())),
        }
    }

    /// Removes what a story that broke off has left: its sandbox, and what stood beside it.
    async fn clear(&self) {
        self.reap().await;
        if let Ok(id) = self.sandbox_id() {
            self.close_model(&id).await;
        }
    }

    /// Ends what is left of the model service of the run's sandbox.
    async fn close_model(&self, id: &SandboxId) {
        let Self { parts, plan, .. } = self;
        let run = Purse::name_of(&plan.name);
        model::close(&parts.sockets, id, (&parts.spend, &run, (parts.clock)())).await;
    }

    /// Removes what is left of a sandbox, and asks an engine again that is away.
    pub(super) async fn discard(&self) {
        let Ok(own) = self.sandbox_id() else { return };
        let since = Instant::now();
        while let Err(e) = self.parts.engine.discard(&own).await {
            if since.elapsed() >= ENGINE_ABSENCE {
                tracing::error!(sandbox.id = %own, error = %error_chain(&e), "sandbox `{own}` stays behind");
                return;
            }
            sleep(ASK_AGAIN).await;
        }
    }

    /// Removes the sandbox that was left in the middle of something: no run ends before it does.
    pub(super) async fn reap(&self) {
        let Ok(own) = self.sandbox_id() else { return };
        if let Err(e) = self.parts.engine.discard(&own).await {
            tracing::error!(sandbox.id = %own, error = %error_chain(&e), "sandbox `{own}` stays behind");
        }
    }

    fn invocation(&self) -> runtime::Invocation {
        let plan = self.plan;
        runtime::invocation(
            plan.runtime,
            &Assignment {
                model: &plan.model,
                instruction: &plan.instruction,
                permissions: &plan.permissions,
                mcp_servers: &plan.mcp_servers,
                max_turns: plan.limits.max_turns,
                max_output_tokens: plan.max_output_tokens,
                model_retries: plan.limits.model_retries,
                session: match &plan.former {
                    Some(former) => Session::Resumed(former.session_id),
                    None => Session::New(plan.session_id),
                },
            },
        )
    }

    fn sandbox_id(&self) -> Result<SandboxId, RunStatus> {
        sandbox_id(&self.plan.name, self.plan.session_id, self.tenure.attempt())
            .map_err(|e| RunStatus::Failed(RunFailure::Internal { detail: error_chain(&e) }))
    }
}

/// Unique on this machine although run ids are only unique inside their task. A number that was used
/// for a sandbox of the run is never used again.
pub(super) fn sandbox_id(
    name: &RunName,
    session_id: Uuid,
    attempt: Option<u64>,
) -> Result<SandboxId, InvalidSpec> {
    let session = session_id.simple().to_string();
    let attempt = attempt.map(|number| format!("-{number}")).unwrap_or_default();
    SandboxId::new(&format!("{}-{}{attempt}", name.id, &session[..8]))
}
