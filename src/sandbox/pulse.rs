//! What the processes of a sandbox have done, for whoever wants to know whether they work.

use std::time::Duration;

use tokio::time::timeout;

use super::bubblewrap::CellProcesses;
use super::docker::ContainerProcesses;
use super::engine::blocking;
use crate::run::Pulse;

/// How long an engine may take to tell. It takes milliseconds; one that is away is not waited for.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// Reads the pulse of one sandbox, whoever holds the sandbox meanwhile.
#[derive(Debug, Clone)]
pub struct PulseReader {
    of: Processes,
}

/// The processes of a sandbox, as its engine knows them.
#[derive(Debug, Clone)]
pub(super) enum Processes {
    Docker(ContainerProcesses),
    Bubblewrap(CellProcesses),
}

impl PulseReader {
    pub(super) fn new(of: Processes) -> Self {
        Self { of }
    }

    /// What the processes have done so far; `None` where that cannot be told.
    pub async fn read(&self) -> Option<Pulse> {
        match &self.of {
            Processes::Docker(container) => {
                timeout(READ_LIMIT, container.pulse()).await.ok().flatten()
            }
            Processes::Bubblewrap(cell) => {
                let cell = cell.clone();
                blocking(move || cell.pulse()).await
            }
        }
    }
}
