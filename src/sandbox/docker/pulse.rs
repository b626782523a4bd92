//! What a container's processes have done, by the daemon's word.

use std::time::Duration;

use bollard::Docker as Client;
use bollard::query_parameters::StatsOptionsBuilder;
use futures_util::StreamExt as _;

use crate::run::Pulse;

/// Reads the pulse of one container.
#[derive(Debug, Clone)]
pub(in super::super) struct ContainerPulse {
    client: Client,
    name: String,
}

impl ContainerPulse {
    pub(super) fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    /// One sample, for which the daemon does not wait.
    pub(in super::super) async fn read(&self) -> Option<Pulse> {
        let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let stats = self.client.stats(&self.name, Some(options)).next().await?.ok()?;
        let used = stats.cpu_stats?.cpu_usage?.total_usage?;
        let n_processes = stats.pids_stats.and_then(|pids| pids.current).unwrap_or(0);
        // A container that runs has used some. Where the kernel does not count, nothing is known.
        (used > 0).then_some(Pulse { cpu: Duration::from_nanos(used), n_processes })
    }
}
