//! What somebody who watches a run is told while it goes on.

use std::path::PathBuf;

use crate::run::{ActivityNow, RunName};
use crate::trajectory::{Live, StepUpdate};

/// News of a run.
#[derive(Debug, Clone)]
pub enum RunUpdate {
    /// The run has a folder now.
    Opened {
        /// What it is called.
        name: RunName,
        /// Its folder.
        folder: PathBuf,
    },
    /// The run went on to its next part.
    Phase(Phase),
    /// Something that a person should know, as a whole sentence.
    Note(String),
    /// The agent did something.
    Step(StepUpdate),
    /// Where the agent is and what it has used.
    Live(Live),
    /// What the run is doing, as far as can be seen from outside.
    Activity(ActivityNow),
}

/// The parts of a run, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// The pinned agent CLI is being had.
    FetchingAgent {
        /// Bytes so far.
        done: u64,
        /// All bytes, where that is known.
        total: Option<u64>,
    },
    /// Another process downloads the agent CLI; this one waits for it.
    WaitingForDownload,
    /// An image is being built. Without a last line a new step of it begins.
    BuildingSnapshot {
        /// The snapshot, or what packages are called.
        name: String,
        /// The step that it is at.
        step: String,
        /// The last line that it said.
        last_line: Option<String>,
    },
    /// The sandbox is being made.
    Provisioning,
    /// The setup script runs.
    Setup,
    /// The agent works.
    Running,
    /// The agent has ended; its files are being collected.
    Collecting,
}

/// Is told the news, at once and in order. It must not block for long: the run waits for it.
pub type Watcher<'a> = &'a mut (dyn FnMut(RunUpdate) + Send);
