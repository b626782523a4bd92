//! Where a run stands, and what it achieved.

use serde::{Deserialize, Serialize};

use super::failure::RunFailure;

/// Where a run stands. A terminal status never changes. Part of what the worker saves of a run's end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RunStatus {
    /// Recorded, not started.
    Pending,
    /// Its sandbox is being made or its agent works.
    Running,
    /// The agent said that it finished, and nothing contradicts it. What it achieved is the
    /// [`Verdict`]'s word.
    Completed,
    /// It did not finish, for this reason.
    Failed(RunFailure),
    /// Somebody stopped it.
    Cancelled,
}

impl RunStatus {
    /// The name on the wire (Jetty's words).
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the run has ended.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Pending | Self::Running => false,
            Self::Completed | Self::Failed(_) | Self::Cancelled => true,
        }
    }
}

/// What a run achieved, apart from whether it ended well. Part of `trajectory.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The declared `primary_outputs`, in their order.
    pub primary_outputs: Vec<OutputCheck>,
    /// What the runbook's own `validation_report.json` says.
    pub validation: ValidationReport,
    /// Files collected from `/app/results`.
    pub n_results: usize,
    /// Whole sentences for a person: what looks wrong though the run completed.
    pub warnings: Vec<String>,
}

impl Verdict {
    /// Whether everything that can be checked says that the runbook did its work: every primary
    /// output is there and the report, where there is one, passed. `None` when nothing can be
    /// checked.
    #[must_use]
    pub fn passed(&self) -> Option<bool> {
        let outputs = (!self.primary_outputs.is_empty())
            .then(|| self.primary_outputs.iter().all(|output| output.exists));
        let report = match self.validation {
            ValidationReport::Absent => None,
            ValidationReport::Unreadable { .. } => Some(false),
            ValidationReport::Read { overall_passed } => overall_passed,
        };
        match (outputs, report) {
            (None, None) => None,
            (outputs, report) => Some(outputs.unwrap_or(true) && report.unwrap_or(true)),
        }
    }
}

/// One declared output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputCheck {
    /// Its path as the runbook declared it, relative to `/app/results`.
    pub path: String,
    /// Whether a regular file of that path was collected.
    pub exists: bool,
}

/// What `validation_report.json` says. Only `overall_passed` is read; the rest is the runbook's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ValidationReport {
    /// The run left none.
    #[default]
    Absent,
    /// It is there and cannot be read.
    Unreadable {
        /// Why.
        reason: String,
    },
    /// It was read.
    Read {
        /// Its `overall_passed`, where it has one.
        overall_passed: Option<bool>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(exists: &[bool], validation: ValidationReport) -> Option<bool> {
        let primary_outputs = exists
            .iter()
            .map(|&exists| OutputCheck { path: "out.md".to_owned(), exists })
            .collect();
        Verdict { primary_outputs, validation, n_results: 0, warnings: vec![] }.passed()
    }

    #[test]
    fn a_verdict_needs_something_to_check_and_everything_checked_to_pass() {
        let read = |overall_passed| ValidationReport::Read { overall_passed };
        assert_eq!(verdict(&[], ValidationReport::Absent), None);
        assert_eq!(verdict(&[], read(None)), None);
        assert_eq!(verdict(&[true, true], ValidationReport::Absent), Some(true));
        assert_eq!(verdict(&[true, false], read(Some(true))), Some(false));
        assert_eq!(verdict(&[true], read(Some(false))), Some(false));
        assert_eq!(verdict(&[], read(Some(true))), Some(true));
        let unreadable = ValidationReport::Unreadable { reason: "not JSON".to_owned() };
        assert_eq!(verdict(&[true], unreadable), Some(false));
    }
}
