//! What is left of a run when it has ended.

use std::path::PathBuf;
use std::time::Duration;

use super::part::Part;
use crate::run::{RunName, RunStatus, Verdict};
use crate::trajectory::{SoFar, UsageReport, in_step};

/// A finished run.
#[derive(Debug, Clone)]
pub struct RunReport {
    /// What it is called.
    pub name: RunName,
    /// Its folder.
    pub folder: PathBuf,
    /// How it ended; terminal, unless another step follows.
    pub status: RunStatus,
    /// The step that ended last, where the run has several.
    pub step: Option<String>,
    /// What it achieved: what its last step did.
    pub verdict: Verdict,
    /// Whether what it was to achieve is there, in every step, where that can be checked.
    pub passed: Option<bool>,
    /// What it used, and how that is known.
    pub usage: UsageReport,
    /// From the moment it was begun with to its last record.
    pub took: Duration,
    /// Steps of the trajectory.
    pub n_steps: u64,
    /// What looked wrong, as whole sentences.
    pub warnings: Vec<String>,
    /// The agent's last words, at most a step's size.
    pub answer: Option<String>,
}

impl RunReport {
    /// Of a run that there is nothing to tell of but its end.
    pub(super) fn without_agent(name: &RunName, folder: PathBuf, status: &RunStatus) -> Self {
        Self {
            name: name.clone(),
            folder,
            status: status.clone(),
            step: None,
            verdict: Verdict::default(),
            passed: None,
            usage: UsageReport::default(),
            took: Duration::ZERO,
            n_steps: 0,
            warnings: Vec::new(),
            answer: None,
        }
    }

    /// The report of a run that cannot go on with this step.
    pub(super) fn unbegun(part: &Part, status: &RunStatus) -> Self {
        Self::without_agent(part.run(), PathBuf::new(), status).after(part)
    }

    /// The report of a run whose last step so far is this one.
    pub(super) fn after(self, part: &Part) -> Self {
        let SoFar { usage, n_agent_steps, warnings, has_failed_verdict } = part.so_far();
        let own = self.warnings.iter().map(|warning| in_step(part.step(), warning));
        Self {
            step: Some(part.step().to_owned()),
            passed: if *has_failed_verdict { Some(false) } else { self.passed },
            usage: usage.plus(&self.usage),
            took: part.took() + self.took,
            n_steps: n_agent_steps + self.n_steps,
            warnings: warnings.iter().cloned().chain(own).collect(),
            ..self
        }
    }
}
