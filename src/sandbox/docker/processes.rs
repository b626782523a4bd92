//! A container's processes, by the daemon's word: what they have done, and where they are.

use std::fs;
use std::time::Duration;

use bollard::Docker as Client;
use bollard::query_parameters::StatsOptionsBuilder;
use futures_util::StreamExt as _;

use crate::run::Pulse;

/// The processes of one container.
#[derive(Debug, Clone)]
pub(in super::super) struct ContainerProcesses {
    client: Client,
    name: String,
}

impl ContainerProcesses {
    pub(super) fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    /// One sample, for which the daemon does not wait.
    pub(in super::super) async fn pulse(&self) -> Option<Pulse> {
        let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let stats = self.client.stats(&self.name, Some(options)).next().await?.ok()?;
        let used = stats.cpu_stats?.cpu_usage?.total_usage?;
        let n_processes = stats.pids_stats.and_then(|pids| pids.current).unwrap_or(0);
        // A container that runs has used some. Where the kernel does not count, nothing is known.
        (used > 0).then_some(Pulse { cpu: Duration::from_nanos(used), n_processes })
    }

    /// The number of its first process; `None` where that means another one here: the daemon counts
    /// as its own machine does, on which this process may be in a container.
    pub(in super::super) async fn init(&self) -> Option<i32> {
        let inspected = self.client.inspect_container(&self.name, None).await.ok()?;
        let (id, pid) = (inspected.id?, inspected.state?.pid?);
        let pid = i32::try_from(pid).ok().filter(|&pid| pid > 0)?;
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        groups.contains(&id).then_some(pid)
    }
}
