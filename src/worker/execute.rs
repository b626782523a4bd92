//! One run, top to bottom.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::agent::AgentSource;
use super::attend::{Attended, Bounds, Clock, Stop, attend};
use super::claim::Claims;
use super::conclude::{ConcludeError, Remains, conclude};
use super::follow::{FollowError, Follower, Seal};
use super::model::Model;
use super::record::{AgentEnding, Ended, Record};
use super::report::RunReport;
use super::setup::{NoAgent, SetupBounds, SetupError, setup};
use super::stage::sandbox_spec;
use super::watch::{Phase, RunUpdate, Watcher};
use crate::provider;
use crate::run::{Finding, RunFailure, RunPlan, RunStatus, error_chain};
use crate::runtime::{self, Assignment};
use crate::sandbox::{Engine, Exit, Sandbox, SandboxId};
use crate::secret::{Keyring, Redactor};
use crate::store::{Store, StoreError};
use crate::trajectory::Recorder;

/// How an agent ends that is killed, as a shell reports it.
const KILLED: Exit = Exit { code: 137, oom_killed: false };

/// What a run needs of the world.
#[derive(Debug)]
pub struct Parts {
    /// Where sandboxes are made.
    pub engine: Engine,
    /// Which sandboxes belong to a process that lives.
    pub claims: Claims,
    /// Where agent CLIs come from.
    pub agents: AgentSource,
    /// Where the record goes.
    pub store: Store,
    /// Where credentials come from.
    pub keyring: Keyring,
    /// The time.
    pub clock: Clock,
}

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
    watch(RunUpdate::Opened { name: plan.name.clone(), folder: record.folder().path().to_owned() });
    plan.notes.iter().for_each(|note| watch(RunUpdate::Note(note.clone())));
    let run = Run { parts, plan, record: &record, stop };
    let ended = match AssertUnwindSafe(run.live(watch)).catch_unwind().await {
        Ok(Ok(ended)) => ended,
        Ok(Err(status)) => Ended::without_agent(status),
        // The panic's own message is on standard error already.
        Err(_) => {
            run.reap().await;
            let detail = "the run's task panicked".to_owned();
            Ended::without_agent(RunStatus::Failed(RunFailure::Internal { detail }))
        }
    };
    record.close(plan, ended, (parts.clock)())
}

/// A run between its record's opening and its closing.
struct Run<'a> {
    parts: &'a Parts,
    plan: &'a RunPlan,
    record: &'a Record,
    stop: &'a Stop,
}

impl Run<'_> {
    /// The story. The error is the status of a run that had no agent.
    async fn live(&self, watch: Watcher<'_>) -> Result<Ended, RunStatus> {
        let Self { parts, plan, record, stop } = self;
        let access = provider::access(plan.provider, plan.runtime, &parts.keyring)
            .map_err(|faults| no_access(&faults))?;
        let redactor = Redactor::new(access.secrets.iter().chain(plan.secrets.values()));
        let cli = tokio::select! {
            biased;
            () = stop.cancel.cancelled() => return Err(RunStatus::Cancelled),
            cli = parts.agents.fetch(plan.runtime, watch) => cli.map_err(RunStatus::Failed)?,
        };
        let model = Model::start(plan).await.map_err(RunStatus::Failed)?;
        let invocation = self.invocation();
        invocation.notes.iter().for_each(|note| watch(RunUpdate::Note(note.clone())));
        watch(RunUpdate::Phase(Phase::Provisioning));
        let id = self.sandbox_id()?;
        let _claim = parts.claims.claim(&id).map_err(|e| sandbox_failed(&e))?;
        let mut spec = sandbox_spec(id, plan, invocation, &access, &cli);
        spec.mounts.extend(model.mounts());
        let mut sandbox = parts.engine.provision(spec).await.map_err(|e| sandbox_failed(&e))?;
        let attended = self.attend(&mut sandbox, redactor.clone(), watch).await;
        // Whatever came of it: nothing of the agent goes on, and its sandbox does not stay.
        watch(RunUpdate::Phase(Phase::Collecting));
        let has_setup = plan.setup.is_some();
        let (remains, concluded) =
            conclude(sandbox, record.folder(), redactor, stop, has_setup).await;
        let remains = Remains { ledger: model.stop().await, ..remains };
        match attended {
            Ok(attended) => self.judge(attended, remains, concluded).await,
            Err(no_agent) => {
                concluded.map_err(|e| sandbox_failed(&e))?;
                Ok(Ended::before_agent(no_agent.status(&remains.setup_tail), remains))
            }
        }
    }

    /// Starts the agent and stays with it until it has ended.
    async fn attend(
        &self,
        sandbox: &mut Sandbox,
        redactor: Redactor,
        watch: Watcher<'_>,
    ) -> Result<Attended, NoAgent> {
        let Self { parts, plan, record, stop } = self;
        sandbox.start().await.map_err(|e| sandbox_failed(&e))?;
        let since = Instant::now();
        record.is_running(plan, (parts.clock)()).map_err(|e| store_failed(&e))?;
        if plan.setup.is_some() {
            watch(RunUpdate::Phase(Phase::Setup));
            let bounds = SetupBounds { limits: &plan.limits, stop, since };
            setup(sandbox, &bounds).await.map_err(setup_failed)?;
        }
        watch(RunUpdate::Phase(Phase::Running));
        let log = record.folder().agent_log(plan.runtime.as_str()).map_err(|e| store_failed(&e))?;
        let follower = Follower::open(sandbox.stdout(), plan.runtime, redactor, log)
            .map_err(|e| sandbox_failed(&e))?;
        let bounds = Bounds { limits: &plan.limits, stop, clock: parts.clock, since };
        Ok(attend(sandbox, follower, bounds, watch).await)
    }

    /// Reads the last of the agent's words and decides how the run ended.
    async fn judge(
        &self,
        attended: Attended,
        remains: Remains,
        concluded: Result<(), ConcludeError>,
    ) -> Result<Ended, RunStatus> {
        let (plan, folder) = (self.plan.clone(), self.record.folder().clone());
        let now = (self.parts.clock)();
        let judged = tokio::task::spawn_blocking(move || {
            let Attended { exit, stopped, follower } = attended;
            let (recorder, seal) = match follower {
                Some(follower) => follower.finish(now)?,
                None => (Recorder::new(), Seal::default()),
            };
            let exit = match (exit, concluded) {
                (_, Err(e)) => Err(sandbox_failure(&e)),
                (Ok(exit), Ok(())) => Ok(exit),
                // Stopped before its agent came up: the sandbox has no end of an agent to tell.
                (Err(_), Ok(())) if stopped.is_some() => Ok(KILLED),
                (Err(e), Ok(())) => Err(sandbox_failure(&e)),
            };
            let ending = AgentEnding { recorder, seal, exit, stopped, remains };
            Ok::<_, FollowError>(Ended::with_agent(&plan, &folder, ending))
        });
        match judged.await {
            Ok(ended) => ended.map_err(|e| sandbox_failed(&e)),
            Err(e) => Err(RunStatus::Failed(RunFailure::Internal { detail: e.to_string() })),
        }
    }

    /// Removes the sandbox that a panic has left: no run ends before its sandbox does.
    async fn reap(&self) {
        let Ok(own) = self.sandbox_id() else { return };
        if let Err(e) = self.parts.engine.reap(|id| *id != own).await {
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
                mcp_servers: &plan.mcp_servers,
                max_turns: plan.limits.max_turns,
                model_retries: plan.limits.model_retries,
                session_id: plan.session_id,
            },
        )
    }

    /// Unique on this machine although run ids are only unique inside their task.
    fn sandbox_id(&self) -> Result<SandboxId, RunStatus> {
        let session = self.plan.session_id.simple().to_string();
        SandboxId::new(&format!("{}-{}", self.plan.name.id, &session[..8]))
            .map_err(|e| RunStatus::Failed(RunFailure::Internal { detail: error_chain(&e) }))
    }
}

/// The plan was made with the same keyring, so this is a key that was taken away meanwhile.
fn no_access(faults: &[Finding]) -> RunStatus {
    RunStatus::Failed(RunFailure::Refused {
        problems: faults.iter().map(Finding::sentence).collect(),
    })
}

fn setup_failed(error: SetupError) -> NoAgent {
    match error {
        SetupError::Ended(end) => NoAgent::Setup(end),
        SetupError::Cancelled => RunStatus::Cancelled.into(),
        SetupError::Sandbox(e) => sandbox_failed(&e).into(),
    }
}

fn sandbox_failed(error: &dyn std::error::Error) -> RunStatus {
    RunStatus::Failed(sandbox_failure(error))
}

fn sandbox_failure(error: &dyn std::error::Error) -> RunFailure {
    RunFailure::SandboxFailed { detail: error_chain(error) }
}

fn store_failed(error: &dyn std::error::Error) -> RunStatus {
    RunStatus::Failed(RunFailure::StoreFailed { detail: error_chain(error) })
}
