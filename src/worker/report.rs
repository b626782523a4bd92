//! What is left of a run when it has ended.

use std::path::PathBuf;
use std::time::Duration;

use crate::run::{RunName, RunStatus, Verdict};
use crate::trajectory::UsageReport;

/// A finished run.
#[derive(Debug, Clone)]
pub struct RunReport {
    /// What it is called.
    pub name: RunName,
    /// Its folder.
    pub folder: PathBuf,
    /// How it ended; always terminal.
    pub status: RunStatus,
    /// What it achieved.
    pub verdict: Verdict,
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
            verdict: Verdict::default(),
            usage: UsageReport::default(),
            took: Duration::ZERO,
            n_steps: 0,
            warnings: Vec::new(),
            answer: None,
        }
    }
}
