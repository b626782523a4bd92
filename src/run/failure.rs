//! Every way a run can fail, in the user's words. The list is closed: a new way needs a name here.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::activity::Activity;
use super::budget::Exhausted;
use super::disk::DiskExcess;

/// Why a run failed. `Display` is a sentence for the person who started the run, [`Self::code`] a
/// stable word for programs, [`Self::mend`] what to do about it. Part of what the worker saves of a
/// run's end before it removes the sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub enum RunFailure {
    /// Planning or the checks before the start found problems. No sandbox was made.
    #[error("the run was refused before it started: {}", problems.join("; "))]
    Refused {
        /// Whole sentences, each with what to do.
        problems: Vec<String>,
    },
    /// A step of a run cannot begin with what the steps before it have left.
    #[error("it cannot begin with what the steps before it left: {}", problems.join("; "))]
    StepInputs {
        /// What is wrong, each with the path where it was looked for.
        problems: Vec<String>,
    },
    /// The provider has no credential, or the agent CLI found itself logged out.
    #[error("{detail}")]
    NoCredentials {
        /// Which provider's, and the variable that should hold it.
        detail: String,
    },
    /// The provider refused the credential (HTTP 401 or 403).
    #[error("the provider refused the credential: {detail}")]
    AuthRefused {
        /// What the provider said.
        detail: String,
    },
    /// The account cannot pay for the request.
    #[error("the provider's account has no credit: {detail}")]
    OutOfCredit {
        /// What the provider said.
        detail: String,
    },
    /// The provider limited the rate for longer than the agent would wait.
    #[error("the provider limited the rate: {detail}")]
    RateLimited {
        /// What the provider said.
        detail: String,
    },
    /// The provider was overloaded for longer than the agent would wait.
    #[error("the provider was overloaded: {detail}")]
    Overloaded {
        /// What the provider said.
        detail: String,
    },
    /// The provider does not know the model, or the base URL is wrong: the agent cannot tell.
    #[error("the model `{model}` was not found: {detail}")]
    ModelNotFound {
        /// The model that was asked for.
        model: String,
        /// What the agent said.
        detail: String,
    },
    /// The provider could not be reached, or its answers broke off.
    #[error("the provider could not be reached: {detail}")]
    ProviderUnreachable {
        /// What the agent said.
        detail: String,
    },
    /// The provider answered with another error.
    #[error("the provider answered with an error: {detail}")]
    ProviderError {
        /// HTTP status, where the agent reported one.
        status: Option<u16>,
        /// What the provider said.
        detail: String,
    },
    /// The prompt or the conversation is larger than the model can take.
    #[error("the prompt is too long for the model: {detail}")]
    PromptTooLong {
        /// What the agent said.
        detail: String,
    },
    /// The model declined to answer.
    #[error("the model refused to answer: {detail}")]
    ModelRefused {
        /// What the model said.
        detail: String,
    },
    /// The run used up its model turns.
    #[error("the run used up its turns (limit: {limit})")]
    TurnLimit {
        /// The limit.
        limit: u32,
    },
    /// What the run, or its collection, may spend does not suffice for its next request.
    #[error("the run reached its budget: {detail}")]
    BudgetExceeded {
        /// What was spent and allowed, in words.
        detail: String,
        /// The same in numbers, where the gateway kept the budget.
        #[serde(default)]
        exhausted: Option<Exhausted>,
    },
    /// The agent said that it failed, for a reason of its own.
    #[error("the agent reported a failure: {detail}")]
    AgentFailed {
        /// What it said.
        detail: String,
    },
    /// The agent's process ended by a signal or with an error, without a result.
    #[error("the agent crashed: {detail}")]
    AgentCrashed {
        /// Exit code or signal, with the last of its standard error.
        detail: String,
    },
    /// The agent's process ended quietly and never said how it went. Exit code 0 is not success.
    #[error("the agent ended without a result: {detail}")]
    NoResult {
        /// What there was instead.
        detail: String,
    },
    /// The agent said "success" without having asked the model once.
    #[error("the agent did nothing: {detail}")]
    DidNothing {
        /// What it said.
        detail: String,
    },
    /// The agent CLI in the sandbox is not the pinned one.
    #[error("the agent CLI reports version {found}, but {expected} is pinned")]
    WrongAgentVersion {
        /// The pinned version.
        expected: String,
        /// What its first event says.
        found: String,
    },
    /// The pinned agent CLI could not be had.
    #[error("the agent CLI could not be had: {detail}")]
    AgentUnavailable {
        /// What failed, and what to do.
        detail: String,
    },
    /// The setup script did not end well, so the agent was never started.
    #[error("the setup script {end}; its last lines: {}", last_lines(tail))]
    SetupFailed {
        /// How it ended.
        end: SetupEnd,
        /// The last of what it wrote, secrets masked.
        tail: String,
    },
    /// The run took longer than it may.
    #[error("timeout after {} s", limit.as_secs())]
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// Nothing went on in the run for longer than may be.
    #[error(
        "the run stalled (`{}`): {} for {} s, since {since:.0}",
        activity.as_str(), activity.complaint(), quiet.as_secs()
    )]
    Stalled {
        /// What it should have been doing.
        activity: Activity,
        /// When it was last seen to go on.
        since: Timestamp,
        /// How long it did nothing, of which we watched.
        quiet: Duration,
    },
    /// The sandbox held more of the disk than it may.
    #[error("the run took too much of the disk: {excess}")]
    DiskLimit {
        /// What was too much.
        excess: DiskExcess,
    },
    /// The agent wrote more than it may.
    #[error("the agent wrote more than {limit_bytes} bytes to its standard output")]
    OutputLimit {
        /// The limit in bytes.
        limit_bytes: u64,
    },
    /// The kernel ended the agent because the sandbox's memory was used up.
    #[error("the sandbox ran out of memory ({limit_bytes} bytes)")]
    OutOfMemory {
        /// The limit in bytes.
        limit_bytes: u64,
    },
    /// The snapshot's image could not be built.
    #[error("the snapshot `{snapshot}` could not be built: {detail}")]
    SnapshotFailed {
        /// The snapshot, or the packages on top of an image.
        snapshot: String,
        /// The last lines of the build.
        detail: String,
    },
    /// The image lacks what an agent needs to start.
    #[error("no agent can work in the image `{image}`: {detail}")]
    UnfitImage {
        /// The image.
        image: String,
        /// What is missing, and what to install.
        detail: String,
    },
    /// The sandbox could not be made or did not do its part.
    #[error("the sandbox failed: {detail}")]
    SandboxFailed {
        /// What failed.
        detail: String,
    },
    /// The sandbox went away while its agent worked, and not by our doing.
    #[error("the sandbox was lost: {detail}")]
    SandboxLost {
        /// What is known about it.
        detail: String,
    },
    /// Nobody heard of the worker that had the run for so long that it was given up.
    #[error("the worker of the run is gone; what its agent had said until then was kept")]
    WorkerLost,
    /// The results directory could not be written.
    #[error("the results could not be written: {detail}")]
    StoreFailed {
        /// What failed.
        detail: String,
    },
    /// A bug in runbookd.
    #[error("an internal error ended the run: {detail}")]
    Internal {
        /// What is known about it.
        detail: String,
    },
}

/// How a setup script ended that did not end well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SetupEnd {
    /// With this exit code.
    #[error("failed with exit code {0}")]
    Exited(i32),
    /// This signal ended it.
    #[error("was ended by signal {0}")]
    Signaled(i32),
    /// The kernel ended something of it because the sandbox's memory was used up.
    #[error("ran out of memory ({limit_bytes} bytes)")]
    OutOfMemory {
        /// The limit in bytes.
        limit_bytes: u64,
    },
    /// It took more of the disk than the sandbox may.
    #[error("took too much of the disk: {excess}")]
    DiskLimit {
        /// What was too much.
        excess: DiskExcess,
    },
    /// It took longer than it may.
    #[error("did not end within {} s", limit.as_secs())]
    Timeout {
        /// The limit.
        limit: Duration,
    },
}

/// The lines in one, for a sentence.
fn last_lines(tail: &str) -> String {
    let lines: Vec<&str> = tail.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "none".to_owned() } else { lines.join(" | ") }
}

impl RunFailure {
    /// A stable word for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::StepInputs { .. } => "step_inputs",
            Self::NoCredentials { .. } => "no_credentials",
            Self::AuthRefused { .. } => "auth_refused",
            Self::OutOfCredit { .. } => "out_of_credit",
            Self::RateLimited { .. } => "rate_limited",
            Self::Overloaded { .. } => "overloaded",
            Self::ModelNotFound { .. } => "model_not_found",
            Self::ProviderUnreachable { .. } => "provider_unreachable",
            Self::ProviderError { .. } => "provider_error",
            Self::PromptTooLong { .. } => "prompt_too_long",
            Self::ModelRefused { .. } => "model_refused",
            Self::TurnLimit { .. } => "turn_limit",
            Self::BudgetExceeded { .. } => "budget_exceeded",
            Self::AgentFailed { .. } => "agent_failed",
            Self::AgentCrashed { .. } => "agent_crashed",
            Self::NoResult { .. } => "no_result",
            Self::DidNothing { .. } => "did_nothing",
            Self::WrongAgentVersion { .. } => "wrong_agent_version",
            Self::AgentUnavailable { .. } => "agent_unavailable",
            Self::SetupFailed { .. } => "setup_failed",
            Self::Timeout { .. } => "timeout",
            Self::Stalled { .. } => "stalled",
            Self::DiskLimit { .. } => "disk_limit",
            Self::OutputLimit { .. } => "output_limit",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::SnapshotFailed { .. } => "snapshot_failed",
            Self::UnfitImage { .. } => "unfit_image",
            Self::SandboxFailed { .. } => "sandbox_failed",
            Self::SandboxLost { .. } => "sandbox_lost",
            Self::WorkerLost => "worker_lost",
            Self::StoreFailed { .. } => "store_failed",
            Self::Internal { .. } => "internal",
        }
    }

    /// The limit that was reached, in numbers, where the gateway kept it.
    #[must_use]
    pub fn exhausted(&self) -> Option<&Exhausted> {
        if let Self::BudgetExceeded { exhausted, .. } = self { exhausted.as_ref() } else { None }
    }

    /// The failure with the step that it ended, where the run has several.
    #[must_use]
    pub fn told_of(&self, step: Option<&str>) -> String {
        match step {
            Some(step) => format!("step `{step}`: {self}"),
            None => self.to_string(),
        }
    }

    /// What to do about it, as a sentence.
    #[must_use]
    pub fn mend(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "Mend each problem and start again; nothing was spent.",
            Self::StepInputs { .. } => {
                "Read the outputs of the steps before it, and correct its paths or their runbooks."
            }
            Self::NoCredentials { .. } => "Set the variable, or choose another `model_provider`.",
            Self::AuthRefused { .. } => {
                "Check that the key is current and belongs to this provider."
            }
            Self::OutOfCredit { .. } => "Add credit to the account or use another key.",
            Self::RateLimited { .. } => {
                "Wait for the limit to reset, or raise it with the provider."
            }
            Self::Overloaded { .. } => "Start the run again later; the provider was busy.",
            Self::ModelNotFound { .. } => "Check the model's spelling and the provider's base URL.",
            Self::ProviderUnreachable { .. } => "Check the network and the provider's base URL.",
            Self::ProviderError { .. } => {
                "Read the provider's words above; the request was refused."
            }
            Self::PromptTooLong { .. } => {
                "Shorten the runbook or choose a model with a larger window."
            }
            Self::ModelRefused { .. } => "Read the refusal; change what the runbook asks for.",
            Self::TurnLimit { .. } => "Raise the turn limit, or split the runbook.",
            Self::BudgetExceeded { .. } => {
                "Raise the limit that the message names, wait until it opens again, or split the runbook."
            }
            Self::AgentFailed { .. } => "Read the last steps of the trajectory.",
            Self::AgentCrashed { .. } => "Read logs/agent/stderr.txt in the results folder.",
            Self::NoResult { .. } => "Read logs/agent in the results folder; the stream broke off.",
            Self::DidNothing { .. } => "Check that the runbook says what to do.",
            Self::WrongAgentVersion { .. } => "Use an image without its own agent CLI on the path.",
            Self::AgentUnavailable { .. } => "Check the registry and the cache folder.",
            Self::SetupFailed { .. } => {
                "Read logs/setup.txt in the results folder; the model was not asked."
            }
            Self::Timeout { .. } => "Raise the time limit, or split the runbook.",
            Self::Stalled { .. } => {
                "Read the last steps of the trajectory; where the run needs longer, raise its limit \
                 under `stall` in the front matter (docs/stalls.md)."
            }
            Self::DiskLimit { excess } => excess.mend(),
            Self::OutputLimit { .. } => "Raise the limit, or find out what floods the output.",
            Self::OutOfMemory { .. } => "Raise the memory limit.",
            Self::SnapshotFailed { .. } => {
                "Read logs/snapshot.txt in the results folder, if the build began; docs/snapshots.md \
                 tells what it needs."
            }
            Self::UnfitImage { .. } => "Install what is missing in the image, or name another one.",
            Self::SandboxFailed { .. } => "Check the engine and the image.",
            Self::SandboxLost { .. } => {
                "Find out who removed it, or whether the engine or the machine was restarted; then \
                 start the run again."
            }
            Self::WorkerLost => {
                "Find out why the server was down for so long; then start the run again."
            }
            Self::StoreFailed { .. } => "Check the results folder: free space, permissions.",
            Self::Internal { .. } => "Please report it with the log.",
        }
    }
}
