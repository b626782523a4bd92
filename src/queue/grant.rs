//! What a worker holds while it works on a run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::run::{RunName, Slug};

use super::job::JobUsage;

/// A worker: one state folder on one machine. Its processes come and go and have the same name, so
/// a new one may adopt what an old one left.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(String);

impl WorkerId {
    /// Takes the name as the worker keeps it.
    #[must_use]
    pub fn new(id: String) -> Self {
        Self(id)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The right to write about one run, until somebody else gets it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grant {
    /// The run.
    pub name: RunName,
    /// Names the sandbox: a number that was used is never used for another one.
    pub attempt: u64,
    /// Names this writer.
    pub fence: u64,
}

/// What may be leased at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseLimits {
    /// How many runs of one collection may be worked on at a time.
    pub per_collection: u32,
    /// Collections with a limit of their own.
    pub exceptions: BTreeMap<Slug, u32>,
}

/// A run with the right to work on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    /// The right.
    pub grant: Grant,
    /// What to do, as it was frozen at submit.
    pub spec: String,
    /// The environment and the secret parameters, encrypted.
    pub sealed: Option<String>,
    /// The agent's session.
    pub session_id: Option<String>,
    /// Which of its steps is to be done, from 0.
    pub step: u64,
    /// What the steps before this one used.
    pub used: JobUsage,
    /// How long they took.
    pub took: Duration,
    /// How far an earlier grant of the same attempt got.
    pub stage: Stage,
    /// Whether somebody wants it stopped.
    pub cancel_requested: bool,
    /// When it was submitted.
    pub created: Timestamp,
}

/// How far a leased run got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// No agent of this step was reported as started.
    Fresh,
    /// Its agent was started.
    Started {
        /// When.
        at: Timestamp,
        /// Bytes of its output that are recorded.
        next_off: u64,
    },
    /// Its sandbox was about to be removed.
    Finishing {
        /// When its agent was started, if it was.
        started: Option<Timestamp>,
        /// Bytes of its output that are recorded.
        next_off: u64,
        /// What was saved before.
        ending: String,
    },
}

/// What a heartbeat says about one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulse {
    /// Go on.
    Ok,
    /// Somebody wants it stopped; the lease is renewed, so that it can be stopped in order.
    Cancel,
    /// It is somebody else's, or it has ended: stop and write nothing more.
    Lost,
}
