//! Beside a sandbox that is there: from its start, or its adoption, to its removal.

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::attend::{AttendError, Attended, Bounds, LetGo, Stop, attend};
use super::conclude::{ConcludeError, Masking, Remains, conclude};
use super::ended::Ended;
use super::ending::{Ending, How};
use super::execute::{ASK_AGAIN, Break, ENGINE_ABSENCE, Run};
use super::fault::{sandbox_failed, sandbox_failure};
use super::follow::{FollowError, Follower, Keep, Seal};
use super::model::Model;
use super::record::Record;
use super::setup::{NoAgent, SetupBounds, SetupError, setup};
use super::watch::{Phase, RunUpdate, Watcher};
use super::wire::Bygone;
use crate::host::blocking;
use crate::run::{RunFailure, RunPlan, RunStatus, error_chain};
use crate::runtime::StopReason;
use crate::sandbox::{Exit, Sandbox, SandboxError};
use crate::secret::Redactor;
use crate::store::StoreError;
use crate::trajectory::Recorder;

/// How an agent ends that is killed, as a shell reports it.
const KILLED: Exit = Exit { code: 137, oom_killed: false };

/// A sandbox with all that stays beside it.
pub(super) struct Stay {
    pub(super) sandbox: Sandbox,
    /// When an earlier process started it; `None` where it has not been started.
    pub(super) adopted: Option<Timestamp>,
    pub(super) model: Model,
    pub(super) redactor: Redactor,
}

/// Why an agent was not attended to its end.
enum NotAttended {
    /// There was none.
    NoAgent(NoAgent),
    LetGo(LetGo),
}

impl From<RunStatus> for NotAttended {
    fn from(status: RunStatus) -> Self {
        Self::NoAgent(status.into())
    }
}

impl From<LetGo> for NotAttended {
    fn from(let_go: LetGo) -> Self {
        Self::LetGo(let_go)
    }
}

impl Run<'_> {
    /// Stays with a sandbox to the end of its agent, keeps what is left of it and removes it.
    pub(super) async fn stay(&self, stay: Stay, watch: Watcher<'_>) -> Result<Ended, Break> {
        let Self { plan, record, stop, .. } = self;
        let Stay { mut sandbox, adopted, model, redactor } = stay;
        let known = (redactor.clone(), model.bygone());
        let attended = self.attend(&mut sandbox, adopted, known, watch).await;
        if let Err(NotAttended::LetGo(let_go)) = attended {
            return self.let_go(let_go, sandbox, model).await;
        }
        if let Err(let_go) = kill_patiently(&mut sandbox, stop).await {
            return self.let_go(let_go, sandbox, model).await;
        }
        // Whatever came of it: nothing of the agent goes on, and its sandbox does not stay.
        watch(RunUpdate::Phase(Phase::Collecting));
        let has_setup = plan.setup.is_some();
        let results = plan.redact_artifacts || self.parts.redact_artifacts;
        let masking = Masking { redactor, results };
        let (remains, concluded) =
            conclude(&mut sandbox, record.folder(), masking, stop, has_setup).await;
        let kept = record.keep_ledger(&model.stop().await);
        let (ending, recorder) = self.sum_up(attended, remains, concluded).await;
        match self.save(&ending).await {
            Ok(()) => {}
            Err(LetGo::Leave) => {
                // The next process finds the sandbox with its agent's end, and collects once more.
                sandbox.leave();
                return Err(Break::LetGo(LetGo::Leave));
            }
            Err(LetGo::Lost) => {
                remove_lost(sandbox).await;
                return Err(Break::LetGo(LetGo::Lost));
            }
        }
        self.remove(sandbox).await;
        kept.map_err(|e| store_failed(&e))?;
        Ok(self.judge(ending, recorder).await?)
    }

    /// Starts the agent, unless that was done, and stays with it until it has ended.
    async fn attend(
        &self,
        sandbox: &mut Sandbox,
        adopted: Option<Timestamp>,
        (redactor, bygone): (Redactor, Bygone),
        watch: Watcher<'_>,
    ) -> Result<Attended, NotAttended> {
        let Self { parts, plan, record, stop, tenure } = self;
        if adopted.is_none() {
            // One that was started once must never be started again, and an engine that gives an
            // error may have started it.
            tenure.may_work();
            sandbox.start().await.map_err(|e| sandbox_failed(&e))?;
        }
        let at = adopted.unwrap_or_else(parts.clock);
        let since = since(at, (parts.clock)());
        tenure.started(at, stop).await?;
        record.is_running(plan, at).map_err(|e| store_failed(&e))?;
        if plan.setup.is_some() {
            watch(RunUpdate::Phase(Phase::Setup));
            let bounds = SetupBounds { limits: &plan.limits, stop, since, disk: &parts.disk };
            setup(sandbox, &bounds).await.map_err(setup_failed)?;
        }
        watch(RunUpdate::Phase(Phase::Running));
        let keep = keep(plan, record).map_err(|e| store_failed(&e))?;
        let follower = Follower::open(sandbox.stdout(), plan.runtime, redactor, keep)
            .map_err(|e| sandbox_failed(&e))?;
        let bounds = Bounds {
            limits: &plan.limits,
            stop,
            clock: parts.clock,
            since,
            is_adopted: adopted.is_some(),
            tenure,
            folder: record.folder(),
            disk: &parts.disk,
            bygone,
            told_to: (parts.store.activities(), &plan.name),
        };
        let attended = attend(sandbox, follower, bounds, watch).await;
        match attended.exit {
            Err(AttendError::LetGo(let_go)) => Err(NotAttended::LetGo(let_go)),
            Ok(_) | Err(_) => Ok(attended),
        }
    }

    /// Lets go of a run in the middle of it.
    async fn let_go(&self, let_go: LetGo, sandbox: Sandbox, model: Model) -> Result<Ended, Break> {
        match let_go {
            LetGo::Leave => {
                sandbox.leave();
                let ledger = model.leave().await;
                if let Err(e) = self.record.keep_ledger(&ledger) {
                    tracing::warn!(error = %error_chain(&e), "what the scripted provider answered is not kept");
                }
            }
            // The sandbox is of this attempt, which the other one does not use.
            LetGo::Lost => {
                remove_lost(sandbox).await;
                model.stop().await;
            }
        }
        Err(Break::LetGo(let_go))
    }

    /// Reads the last of the agent's words, and puts together all that the sandbox knew.
    async fn sum_up(
        &self,
        attended: Result<Attended, NotAttended>,
        remains: Remains,
        concluded: Result<(), ConcludeError>,
    ) -> (Ending, Recorder) {
        let concluded = concluded.map_err(|e| sandbox_failure(&e));
        let Attended { exit, stopped, follower } = match attended {
            Ok(attended) => attended,
            Err(not_attended) => {
                let status = match (concluded, not_attended) {
                    (Err(failure), _) => RunStatus::Failed(failure),
                    (Ok(()), NotAttended::NoAgent(none)) => none.status(&remains.setup_tail),
                    (Ok(()), NotAttended::LetGo(_)) => RunStatus::Cancelled,
                };
                let how = How::NoAgent { status };
                return (Ending::new(how, Seal::default(), remains), Recorder::new());
            }
        };
        let now = (self.parts.clock)();
        let finished = finish(follower, now).await;
        let concluded = concluded.and(finished.as_ref().map(drop).map_err(Clone::clone));
        let exit = match (exit, concluded) {
            (_, Err(failure)) => Err(failure),
            (Ok(exit), Ok(())) => Ok(exit),
            // Stopped before its agent came up: the sandbox has no end of an agent to tell.
            (Err(_), Ok(())) if stopped.is_some() => Ok(KILLED),
            (Err(e), Ok(())) => Err(attend_failure(&e)),
        };
        let (recorder, seal) = finished.unwrap_or_default();
        (Ending::new(How::Agent { exit, stopped }, seal, remains), recorder)
    }

    /// Saves what only the sandbox knows.
    async fn save(&self, ending: &Ending) -> Result<(), LetGo> {
        let now = (self.parts.clock)();
        self.tenure.advance(ending.seal.n_bytes, now).await?;
        self.tenure.finishing(&ending.to_json(), now, self.stop).await
    }

    /// Removes the sandbox of a run whose end is known. An engine that cannot do it now is asked
    /// again; what the run achieved does not depend on it.
    async fn remove(&self, sandbox: Sandbox) {
        if let Err(e) = sandbox.destroy().await {
            tracing::warn!(error = %error_chain(&e), "the sandbox could not be removed at once");
            self.discard().await;
        }
    }

    /// Decides how the run ended.
    pub(super) async fn judge(
        &self,
        ending: Ending,
        recorder: Recorder,
    ) -> Result<Ended, RunStatus> {
        let (plan, folder) = (self.plan.clone(), self.record.folder().clone());
        // It reads session files.
        let judged = blocking(move || match ending.how {
            How::NoAgent { status } => Ended::before_agent(status, ending.remains),
            How::Agent { .. } => Ended::with_agent(&plan, &folder, recorder, ending),
        });
        judged.await.map_err(|e| internal(&e))
    }

    /// Decides how a run ended whose end an earlier process saved: the agent's log is read again.
    pub(super) async fn judge_saved(&self, ending: Ending) -> Result<Ended, RunStatus> {
        let log = self.record.folder().agent_log_path(self.plan.runtime.as_str());
        let recorder = if log.is_file() {
            let keep = Keep {
                log: None,
                arrivals: self.record.folder().arrivals().map_err(|e| store_failed(&e))?,
            };
            // What is in the log is masked.
            let follower = Follower::open(&log, self.plan.runtime, Redactor::nothing(), keep)
                .map_err(|e| store_failed(&e))?;
            finish(Some(follower), (self.parts.clock)()).await.map_err(RunStatus::Failed)?.0
        } else {
            Recorder::new()
        };
        self.judge(ending, recorder).await
    }

    /// Decides how a run ended whose agent was started and whose sandbox is not there any more.
    pub(super) async fn judge_lost(&self) -> Result<Ended, RunStatus> {
        let detail = "it was removed while runbookd was not running; what the agent had said until \
                      then was kept, its files were not";
        let stop = self.stop;
        let how = How::Agent {
            exit: Err(RunFailure::SandboxLost { detail: detail.to_owned() }),
            stopped: stop.cancel.is_cancelled().then_some(StopReason::Cancelled),
        };
        self.judge_saved(Ending::new(how, Seal::default(), Remains::default())).await
    }
}

/// Ends what is left of the agent, and asks an engine again that is away. What cannot be ended in that
/// time is a failure for who asks last.
async fn kill_patiently(sandbox: &mut Sandbox, stop: &Stop) -> Result<(), LetGo> {
    let since = Instant::now();
    while let Err(e) = sandbox.kill().await {
        tracing::warn!(error = %error_chain(&e), "the sandbox cannot be ended yet");
        if since.elapsed() >= ENGINE_ABSENCE {
            break;
        }
        tokio::select! {
            biased;
            let_go = stop.let_go() => return Err(let_go),
            () = stop.force.cancelled() => break,
            () = sleep(ASK_AGAIN) => {}
        }
    }
    Ok(())
}

/// Removes the sandbox of a run about which nothing may be written any more.
async fn remove_lost(sandbox: Sandbox) {
    let id = sandbox.id().clone();
    if let Err(e) = sandbox.destroy().await {
        tracing::error!(sandbox.id = %id, error = %error_chain(&e), "the sandbox of a lost run stays behind");
    }
}

/// When a sandbox was started that was started `at`, by the clock that only goes forward.
fn since(at: Timestamp, now: Timestamp) -> Instant {
    // A wall clock that was set back makes no negative age.
    let age = std::time::Duration::try_from(now.duration_since(at)).unwrap_or_default();
    Instant::now().checked_sub(age).unwrap_or_else(Instant::now)
}

fn keep(plan: &RunPlan, record: &Record) -> Result<Keep, StoreError> {
    let folder = record.folder();
    let log = folder.agent_log(plan.runtime.as_str())?;
    Ok(Keep { log: Some(log), arrivals: folder.arrivals()? })
}

/// Reads what is left, on a thread that may block.
async fn finish(
    follower: Option<Follower>,
    now: Timestamp,
) -> Result<(Recorder, Seal), RunFailure> {
    let Some(follower) = follower else { return Ok((Recorder::new(), Seal::default())) };
    match blocking(move || follower.finish(now)).await {
        Ok(finished) => finished.map_err(|e| match e {
            FollowError::Store(e) => RunFailure::StoreFailed { detail: error_chain(&e) },
            FollowError::Read { .. } => sandbox_failure(&e),
        }),
        Err(e) => Err(RunFailure::Internal { detail: e.to_string() }),
    }
}

/// What it means that an agent could not be attended to its end.
fn attend_failure(error: &AttendError) -> RunFailure {
    match error {
        AttendError::Sandbox(SandboxError::Gone { .. }) => RunFailure::SandboxLost {
            detail: "somebody removed it or killed what watched it, or its engine was restarted; \
                     what the agent had said until then was kept"
                .to_owned(),
        },
        AttendError::Sandbox(_)
        | AttendError::Follow(_)
        | AttendError::Reader
        | AttendError::LetGo(_) => sandbox_failure(error),
    }
}

fn setup_failed(error: SetupError) -> NotAttended {
    match error {
        SetupError::Ended(end) => NotAttended::NoAgent(NoAgent::Setup(end)),
        SetupError::Cancelled => RunStatus::Cancelled.into(),
        SetupError::LetGo(let_go) => NotAttended::LetGo(let_go),
        SetupError::Sandbox(e @ SandboxError::Gone { .. }) => {
            RunStatus::Failed(attend_failure(&e.into())).into()
        }
        SetupError::Sandbox(e) => sandbox_failed(&e).into(),
    }
}

fn internal(error: &dyn std::error::Error) -> RunStatus {
    RunStatus::Failed(RunFailure::Internal { detail: error_chain(error) })
}

fn store_failed(error: &dyn std::error::Error) -> RunStatus {
    RunStatus::Failed(RunFailure::StoreFailed { detail: error_chain(error) })
}
