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
