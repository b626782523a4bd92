//! One row of the index: a run as the queue knows it.

use std::fmt;

use jiff::Timestamp;

use crate::run::RunName;

use super::error::QueueError;
use super::grant::WorkerId;

/// Where a run stands in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// It waits for a worker.
    Queued,
    /// A worker has it; no agent was reported as started.
    Leased,
    /// Its agent was started.
    Running,
    /// Its agent has ended and its record is being closed.
    Finishing,
    /// It ended well.
    Completed,
    /// It ended badly.
    Failed,
    /// Somebody stopped it.
    Cancelled,
    /// It had ended, and somebody put it away.
    Archived,
}

impl Status {
    /// Every status, in the order of a run's life.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Leased,
        Self::Running,
        Self::Finishing,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Archived,
    ];

    /// The word in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Leased => "leased",
            Self::Running => "running",
            Self::Finishing => "finishing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Archived => "archived",
        }
    }

    /// Whether the run has ended.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::Leased | Self::Running | Self::Finishing => false,
            Self::Completed | Self::Failed | Self::Cancelled | Self::Archived => true,
        }
    }

    /// Whether a worker has it.
    #[must_use]
    pub fn is_live(self) -> bool {
        match self {
            Self::Leased | Self::Running | Self::Finishing => true,
            Self::Queued | Self::Completed | Self::Failed | Self::Cancelled | Self::Archived => {
                false
            }
        }
    }

    pub(super) fn read(word: &str) -> Result<Self, QueueError> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == word)
            .ok_or_else(|| QueueError::Unreadable { column: "status", found: word.to_owned() })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ended {
    /// Well.
    Completed,
    /// Badly.
    Failed,
    /// Somebody stopped it.
    Cancelled,
}

impl From<Ended> for Status {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Completed => Self::Completed,
            Ended::Failed => Self::Failed,
            Ended::Cancelled => Self::Cancelled,
        }
    }
}

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A run of this daemon.
    Run,
    /// A record that was made elsewhere and handed in.
    Ingested,
    /// A conversation with a model, without a sandbox.
    Chat,
}

impl Kind {
    /// The word in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Ingested => "ingested",
            Self::Chat => "chat",
        }
    }

    pub(super) fn read(word: &str) -> Result<Self, QueueError> {
        [Self::Run, Self::Ingested, Self::Chat]
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| QueueError::Unreadable { column: "kind", found: word.to_owned() })
    }
}

/// Token counts of a run, for lists and sums. The trajectory has them in full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobUsage {
    /// Input tokens that did not touch the cache.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// Input tokens read from the cache.
    pub cache_read_tokens: u64,
    /// Input tokens written to the cache.
    pub cache_write_tokens: u64,
    /// What it cost.
    pub cost: Cost,
}

/// What a run cost, in millionths of a US dollar. A cost that nobody knows is not zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cost {
    /// Nobody knows.
    #[default]
    Unknown,
    /// The agent reported it.
    Reported(u64),
    /// It was reckoned from the tokens.
    Estimated(u64),
}

impl Cost {
    /// The amount, where it is known.
    #[must_use]
    pub fn micros(self) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::Reported(micros) | Self::Estimated(micros) => Some(micros),
        }
    }

    /// The word in the database for how it is known.
    #[must_use]
    pub fn basis(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Reported(_) => "reported",
            Self::Estimated(_) => "estimated",
        }
    }
}

/// One row, without what only a worker needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The run.
    pub name: RunName,
    /// What the row is about.
    pub kind: Kind,
    /// Where it stands.
    pub status: Status,
    /// Why it ended as it did, or why it waits again.
    pub reason: Option<String>,
    /// Which of its steps it is at, from 0.
    pub step: u64,
    /// How often it was leased.
    pub attempt: u64,
    /// How often the step that it is at went back to the queue after a failure.
    pub retries: u32,
    /// Higher goes first.
    pub priority: i64,
    /// Not to be leased before.
    pub run_at: Timestamp,
    /// The worker that has it, or had it last.
    pub worker: Option<WorkerId>,
    /// The end of its lease. One in the past means that the worker is silent.
    pub lease_expires: Option<Timestamp>,
    /// Whether somebody wants it stopped.
    pub cancel_requested: bool,
    /// The agent's session.
    pub session_id: Option<String>,
    /// The agent's exit code.
    pub exit_code: Option<i64>,
    /// The routine that submitted it.
    pub triggered_by_routine: Option<String>,
    /// Token counts.
    pub usage: JobUsage,
    /// How long it took.
    pub duration_ms: Option<u64>,
    /// When it was submitted.
    pub created: Timestamp,
    /// When its first agent was started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// When the row changed last.
    pub updated: Timestamp,
}

impl Job {
    /// Where the run stands for whoever asks. One that waits between two of its steps, or whose next
    /// agent is not up yet, goes on.
    #[must_use]
    pub fn standing(&self) -> Status {
        match self.status {
            Status::Queued | Status::Leased if self.step > 0 => Status::Running,
            Status::Queued
            | Status::Leased
            | Status::Running
            | Status::Finishing
            | Status::Completed
            | Status::Failed
            | Status::Cancelled
            | Status::Archived => self.status,
        }
    }

    /// Whether its worker has not renewed the lease in time.
    #[must_use]
    pub fn is_silent(&self, now: Timestamp) -> bool {
        self.status.is_live() && self.lease_expires.is_some_and(|end| end < now)
    }
}
