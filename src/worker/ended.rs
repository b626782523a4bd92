//! How a run ended: the judgement of an agent's end, and all that is known of it.

use super::account::exhausted;
use super::conclude::Remains;
use super::ending::{Ending, How};
use super::settle::settle;
use super::spent::job_usage;
use crate::gateway::took;
use crate::provider;
use crate::queue::JobUsage;
use crate::run::{RunFailure, RunPlan, RunStatus};
use crate::runtime::{self, AgentEnd, OutcomeFacts, StopReason};
use crate::sandbox::Exit;
use crate::spend::Took;
use crate::store::{Area, RunFolder};
use crate::trajectory::{Reconciled, Recorder, UsageReport};

/// How a run ended, with all that is known of it.
pub(super) struct Ended {
    pub(super) status: RunStatus,
    pub(super) recorder: Recorder,
    pub(super) usage: UsageReport,
    pub(super) reconciled: Reconciled,
    pub(super) notes: Vec<String>,
    pub(super) remains: Remains,
    exit_code: Option<i32>,
}

impl Ended {
    /// A run that never had an agent, or lost what was known of it.
    pub(super) fn without_agent(status: RunStatus) -> Self {
        Self {
            status,
            recorder: Recorder::new(),
            usage: UsageReport::default(),
            reconciled: Reconciled::default(),
            notes: Vec::new(),
            remains: Remains::default(),
            exit_code: None,
        }
    }

    /// The agent's exit code, where it had one.
    pub(super) fn exit_code(&self) -> Option<i32> {
        self.exit_code
    }

    /// How it ended.
    pub(super) fn status(&self) -> RunStatus {
        self.status.clone()
    }

    /// What it used.
    pub(super) fn used(&self) -> JobUsage {
        job_usage(&self.usage.by_model.total())
    }

    /// What it used of each model, for the counters.
    pub(super) fn took(&self) -> Vec<(String, u64, Took)> {
        let models = self.usage.by_model.iter();
        models
            .map(|(model, usage)| (model.to_owned(), usage.requests_seen, took(model, usage)))
            .collect()
    }

    /// A run whose sandbox ended without an agent.
    pub(super) fn before_agent(status: RunStatus, remains: Remains) -> Self {
        Self { remains, ..Self::without_agent(status) }
    }

    /// A run whose agent has ended.
    /// It reads session files, so it belongs on a thread that may block.
    pub(super) fn with_agent(
        plan: &RunPlan,
        folder: &RunFolder,
        recorder: Recorder,
        ending: Ending,
    ) -> Self {
        let exit_code = ending.exit_code();
        let Ending { how, seal, mut remains, .. } = ending;
        let (exit, stopped) = match how {
            How::Agent { exit, stopped } => (exit, stopped),
            How::NoAgent { status } => return Self::before_agent(status, remains),
        };
        remains.logs.push(format!("{}/{}.txt", Area::AgentLogs.path(), plan.runtime.as_str()));
        let facts = OutcomeFacts {
            summary: recorder.summary(),
            end: exit.as_ref().map_or(AgentEnd::Exited(0), |exit| agent_end(plan, *exit)),
            stopped: stopped.clone(),
            stderr_tail: &remains.stderr_tail,
            provider: plan.provider.as_str(),
            credential: provider::credentials(plan.provider).first().copied().unwrap_or("one"),
            max_turns: plan.limits.max_turns,
        };
        let mut notes = runtime::end_warnings(plan.runtime, &facts);
        let status = match exit {
            Ok(exit) => explained(runtime::outcome(plan.runtime, &facts), exit, stopped.as_ref()),
            // Somebody wanted it stopped, and it is.
            Err(_) if stopped == Some(StopReason::Cancelled) => RunStatus::Cancelled,
            // What the agent said of itself cannot make up for a sandbox that failed.
            Err(failure) => RunStatus::Failed(failure),
        };
        let status = budgeted(status, stopped.as_ref(), folder);
        notes.extend(seal.findings);
        let (usage, reconciled) = settle(plan, &recorder, folder, &mut notes);
        Self { status, recorder, usage, reconciled, notes, remains, exit_code }
    }
}

/// Says of a run that it reached its budget, whatever its agent made of the refusal: what a sub-agent
/// or a tool was refused is missing from its work.
fn budgeted(status: RunStatus, stopped: Option<&StopReason>, folder: &RunFolder) -> RunStatus {
    let is_ours = match stopped {
        None | Some(StopReason::Lingered) => false,
        Some(
            StopReason::Timeout(_)
            | StopReason::Cancelled
            | StopReason::OutputLimit { .. }
            | StopReason::Failed(_),
        ) => true,
    };
    let is_memory = matches!(status, RunStatus::Failed(RunFailure::OutOfMemory { .. }));
    if is_ours || is_memory || status == RunStatus::Cancelled {
        return status;
    }
    match exhausted(folder) {
        Some(exhausted) => RunStatus::Failed(RunFailure::BudgetExceeded {
            detail: exhausted.to_string(),
            exhausted: Some(exhausted),
        }),
        None => status,
    }
}

/// Says of a crash by a signal that the signal was not ours.
fn explained(status: RunStatus, exit: Exit, stopped: Option<&StopReason>) -> RunStatus {
    match (status, exit.signal()) {
        (RunStatus::Failed(RunFailure::AgentCrashed { detail }), Some(9 | 15))
            if stopped.is_none() =>
        {
            let detail = format!(
                "{detail} (not sent by runbookd: the agent did it itself, somebody killed it, or its \
                 engine was stopped)"
            );
            RunStatus::Failed(RunFailure::AgentCrashed { detail })
        }
        (status, _) => status,
    }
}

fn agent_end(plan: &RunPlan, exit: Exit) -> AgentEnd {
    match exit.signal() {
        _ if exit.oom_killed && exit.code != 0 => {
            AgentEnd::OutOfMemory { limit_bytes: plan.limits.memory_bytes }
        }
        Some(signal) => AgentEnd::Signaled(signal),
        None => AgentEnd::Exited(exit.code),
    }
}
