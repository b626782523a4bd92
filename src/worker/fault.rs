//! What it means for a run that something on its way failed.

use super::execute::Break;
use crate::run::{Finding, RunFailure, RunStatus, error_chain};
use crate::sandbox::SandboxError;

/// The plan was made with the same keyring, so this is a key that was taken away meanwhile.
pub(super) fn no_access(faults: &[Finding]) -> RunStatus {
    RunStatus::Failed(RunFailure::Refused {
        problems: faults.iter().map(Finding::sentence).collect(),
    })
}

/// Something of ours that may do its part the next time.
pub(super) fn not_ready(error: &dyn std::error::Error) -> Break {
    Break::NotReady(sandbox_failure(error))
}

/// What contradicts the specification does so the next time too; an engine may have come back.
pub(super) fn not_provisioned(error: &SandboxError) -> Break {
    let is_ours = matches!(error, SandboxError::Spec(_) | SandboxError::NoImage);
    if is_ours { Break::Status(sandbox_failed(error)) } else { not_ready(error) }
}

/// An image that could not be had may be had the next time.
pub(super) fn not_prepared(status: RunStatus) -> Break {
    match status {
        RunStatus::Failed(failure @ RunFailure::SandboxFailed { .. }) => Break::NotReady(failure),
        status @ (RunStatus::Pending
        | RunStatus::Running
        | RunStatus::Completed
        | RunStatus::Failed(_)
        | RunStatus::Cancelled) => Break::Status(status),
    }
}

pub(super) fn sandbox_failed(error: &dyn std::error::Error) -> RunStatus {
    RunStatus::Failed(sandbox_failure(error))
}

pub(super) fn sandbox_failure(error: &dyn std::error::Error) -> RunFailure {
    RunFailure::SandboxFailed { detail: error_chain(error) }
}
