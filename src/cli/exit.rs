//! The exit codes. The table in the README is this file in prose.

use crate::run::{RunFailure, RunStatus};
use crate::worker::RunReport;

/// How the process ends, for the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// The run completed, and nothing that can be checked speaks against it.
    Success,
    /// The run failed.
    RunFailed,
    /// `doctor`: no run is possible on this machine yet.
    NotReady,
    /// The command line is wrong. (clap ends the process with it.)
    Usage,
    /// The run completed, but its own checks failed or a declared output is missing.
    VerdictFailed,
    /// The run was refused before it started: the runbook, a key, a file.
    Refused,
    /// There is nothing to run on: no engine, no image that would do, or the agent CLI cannot be
    /// had.
    Unavailable,
    /// The results could not be written.
    NotWritten,
    /// The settings cannot be used.
    BadConfig,
    /// Somebody stopped the run.
    Cancelled,
}

impl ExitCode {
    /// The number. Those above 63 are from BSD's `sysexits`; 130 is what shells give for Ctrl-C.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::RunFailed | Self::NotReady => 1,
            Self::Usage => 2,
            Self::VerdictFailed => 3,
            Self::Refused => 4,
            Self::Unavailable => 69,
            Self::NotWritten => 74,
            Self::BadConfig => 78,
            Self::Cancelled => 130,
        }
    }

    /// What a finished run means for the shell.
    #[must_use]
    pub fn of(report: &RunReport) -> Self {
        match &report.status {
            RunStatus::Completed if report.passed == Some(false) => Self::VerdictFailed,
            RunStatus::Completed => Self::Success,
            RunStatus::Cancelled => Self::Cancelled,
            RunStatus::Failed(failure) => Self::of_failure(failure),
            // A run is only reported when it has ended.
            RunStatus::Pending | RunStatus::Running => Self::RunFailed,
        }
    }

    /// What a run that ended on a server means for the shell; the same as if it had ended here.
    #[must_use]
    pub fn of_words(status: &str, failure: Option<&str>, passed: Option<bool>) -> Self {
        match (status, failure) {
            ("completed" | "archived", _) if passed == Some(false) => Self::VerdictFailed,
            ("completed" | "archived", _) => Self::Success,
            ("cancelled", _) => Self::Cancelled,
            (_, Some("refused" | "no_credentials")) => Self::Refused,
            (_, Some("agent_unavailable")) => Self::Unavailable,
            (_, Some("store_failed")) => Self::NotWritten,
            (_, _) => Self::RunFailed,
        }
    }

    /// What a failure means for the shell.
    #[must_use]
    pub fn of_failure(failure: &RunFailure) -> Self {
        match failure {
            RunFailure::Refused { .. } | RunFailure::NoCredentials { .. } => Self::Refused,
            RunFailure::AgentUnavailable { .. }
            | RunFailure::SnapshotFailed { .. }
            | RunFailure::UnfitImage { .. } => Self::Unavailable,
            RunFailure::StoreFailed { .. } => Self::NotWritten,
            RunFailure::AuthRefused { .. }
            | RunFailure::OutOfCredit { .. }
            | RunFailure::RateLimited { .. }
            | RunFailure::Overloaded { .. }
            | RunFailure::ModelNotFound { .. }
            | RunFailure::ProviderUnreachable { .. }
            | RunFailure::ProviderError { .. }
            | RunFailure::PromptTooLong { .. }
            | RunFailure::ModelRefused { .. }
            | RunFailure::TurnLimit { .. }
            | RunFailure::BudgetExceeded { .. }
            | RunFailure::AgentFailed { .. }
            | RunFailure::AgentCrashed { .. }
            | RunFailure::NoResult { .. }
            | RunFailure::DidNothing { .. }
            | RunFailure::WrongAgentVersion { .. }
            | RunFailure::SetupFailed { .. }
            | RunFailure::Timeout { .. }
            | RunFailure::Stalled { .. }
            | RunFailure::DiskLimit { .. }
            | RunFailure::OutputLimit { .. }
            | RunFailure::OutOfMemory { .. }
            | RunFailure::SandboxFailed { .. }
            | RunFailure::SandboxLost { .. }
            | RunFailure::WorkerLost
            | RunFailure::StepInputs { .. }
            | RunFailure::Internal { .. } => Self::RunFailed,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_on_a_server_ends_with_the_code_that_it_would_have_here() {
        let text = || "made up".to_owned();
        for failure in [
            RunFailure::Refused { problems: vec![text()] },
            RunFailure::StoreFailed { detail: text() },
            RunFailure::AgentUnavailable { detail: text() },
            RunFailure::SandboxFailed { detail: text() },
            RunFailure::Internal { detail: text() },
        ] {
            let there = ExitCode::of_words("failed", Some(failure.code()), None);
            assert_eq!(there, ExitCode::of_failure(&failure), "{failure:?}");
        }
        for (status, passed, expected) in [
            ("completed", None, ExitCode::Success),
            ("completed", Some(true), ExitCode::Success),
            ("completed", Some(false), ExitCode::VerdictFailed),
            ("cancelled", None, ExitCode::Cancelled),
            ("failed", None, ExitCode::RunFailed),
        ] {
            assert_eq!(ExitCode::of_words(status, None, passed), expected, "{status} {passed:?}");
        }
    }
}
