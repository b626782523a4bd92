//! What the processes of a sandbox have done, for whoever wants to know whether they work.

use std::time::Duration;

use tokio::time::timeout;

use super::bubblewrap::CellPulse;
use super::docker::ContainerPulse;
use super::engine::blocking;
use crate::run::Pulse;

/// How long an engine may take to tell. It takes milliseconds; one that is away is not waited for.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// Reads the pulse of one sandbox, whoever holds the sandbox meanwhile.
#[derive(Debug, Clone)]
pub struct PulseReader {
    from: PulseSource,
}

#[derive(Debug, Clone)]
pub(super) enum PulseSource {
    Docker(ContainerPulse),
    Bubblewrap(CellPulse),
}

impl PulseReader {
    pub(super) fn new(from: PulseSource) -> Self {
        Self { from }
    }

    /// What the processes have done so far; `None` where that cannot be told.
    pub async fn read(&self) -> Option<Pulse> {
        match &self.from {
            PulseSource::Docker(container) => {
                timeout(READ_LIMIT, container.read()).await.ok().flatten()
            }
            PulseSource::Bubblewrap(cell) => {
                let cell = cell.clone();
                blocking(move || cell.read()).await
            }
        }
    }
}
