//! How a run ended, wherever it ran.

use std::time::Duration;

use serde::Deserialize;

use crate::run::{RunStatus, Verdict};
use crate::trajectory::{UsageByModel, UsageReport, UsageSource};
use crate::worker::RunReport;

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ending {
    /// `completed`, `failed` or `cancelled`.
    pub(crate) status: String,
    /// Why it failed, if it did.
    pub(crate) failure: Option<Failure>,
    /// Whether it achieved what it was to achieve, where that can be checked.
    pub(crate) passed: Option<bool>,
    pub(crate) verdict: Verdict,
    pub(crate) usage: UsageReport,
    pub(crate) took: Duration,
    pub(crate) n_steps: u64,
    pub(crate) warnings: Vec<String>,
    pub(crate) answer: Option<String>,
    /// Its folder, or its address on a server.
    pub(crate) place: String,
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Failure {
    /// A stable word.
    pub(crate) code: String,
    /// A sentence.
    pub(crate) message: String,
    /// What to do.
    pub(crate) mend: String,
}

/// The event that a server sends last.
#[derive(Deserialize)]
struct FinishedEvent {
    status: String,
    #[serde(default)]
    failure: Option<Failure>,
    #[serde(default)]
    passed: Option<bool>,
    #[serde(default)]
    verdict: Verdict,
    #[serde(default)]
    usage: FinalUsage,
    #[serde(default)]
    duration_ms: u64,
    #[serde(default)]
    n_steps: u64,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    answer: Option<String>,
}

#[derive(Default, Deserialize)]
struct FinalUsage {
    source: UsageSource,
    by_model: UsageByModel,
}

impl Ending {
    /// Reads the last event of a run on a server.
    pub(crate) fn of_event(
        event: &serde_json::Value,
        place: String,
    ) -> Result<Self, serde_json::Error> {
        let event = FinishedEvent::deserialize(event)?;
        Ok(Self {
            status: event.status,
            failure: event.failure,
            passed: event.passed,
            verdict: event.verdict,
            usage: UsageReport { source: event.usage.source, by_model: event.usage.by_model },
            took: Duration::from_millis(event.duration_ms),
            n_steps: event.n_steps,
            warnings: event.warnings,
            answer: event.answer,
            place,
        })
    }
}

impl From<&RunReport> for Ending {
    fn from(report: &RunReport) -> Self {
        let failure = match &report.status {
            RunStatus::Failed(failure) => Some(Failure {
                code: failure.code().to_owned(),
                message: failure.to_string(),
                mend: failure.mend().to_owned(),
            }),
            RunStatus::Pending
            | RunStatus::Running
            | RunStatus::Completed
            | RunStatus::Cancelled => None,
        };
        Self {
            status: report.status.as_str().to_owned(),
            failure,
            passed: report.passed,
            verdict: report.verdict.clone(),
            usage: report.usage.clone(),
            took: report.took,
            n_steps: report.n_steps,
            warnings: report.warnings.clone(),
            answer: report.answer.clone(),
            place: report.folder.display().to_string(),
        }
    }
}
