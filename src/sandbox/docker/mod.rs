//! The Docker engine. `bollard` is named in this folder and nowhere else.

mod build;
mod container;
mod examine;
mod look;
mod processes;
mod prune;

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker as Client;
use bollard::errors::Error;
use bollard::models::{ContainerSummary, SystemInfo};
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};
use futures_util::TryStreamExt as _;
use tokio::time::timeout;

pub(super) use container::Container;
pub(super) use examine::{CHECK, examine};
pub(super) use processes::ContainerProcesses;

use super::error::{EngineFault, SandboxError};
use super::host_folder::{AgentFiles, EngineKind, HostFolder, Staging};
use super::launcher::{Output, StartsAs};
use super::spec::{SandboxId, SandboxSpec};

/// Where the daemon listens when nobody says otherwise.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// How long the daemon may take to say its version. It takes milliseconds.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

/// How long any other answer may take to begin, in seconds. A loaded daemon takes its time to
/// create or remove a container.
const ANSWER_LIMIT_SECS: u64 = 120;

/// How long an image may take to arrive.
const PULL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// The oldest daemon that is spoken to: 20.10.
const MIN_API: (usize, usize) = (1, 41);

/// The label that says which daemon of ours a container belongs to.
const OWNER_LABEL: &str = "runbookd.owner";
/// The label with the sandbox's id.
const SANDBOX_LABEL: &str = "runbookd.sandbox";
/// The label with the run, for people.
const RUN_LABEL: &str = "runbookd.run";

/// The label that says which state folder an image belongs to: those who share it know what is
/// current.
const STATE_LABEL: &str = "runbookd.state";

/// What the Docker daemon said.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct DockerFault(#[from] Error);

impl From<Error> for EngineFault {
    fn from(error: Error) -> Self {
        Self::Docker(DockerFault(error))
    }
}

/// The Docker engine.
#[derive(Debug)]
pub struct Docker {
    client: Client,
    version: String,
    owner: String,
    /// The state folder, as a label.
    state: String,
    default_image: Option<String>,
    agent_files: AgentFiles,
    /// The owner that files get back from the agent, as the containers see it; `None` where the
    /// daemon is root and needs no such help.
    reclaim_to: Option<String>,
    unenforced: Vec<String>,
}

impl Docker {
    /// Greets the daemon. The error is a fragment for a person.
    pub(super) async fn connect(
        host: Option<&str>,
        owner: &str,
        state: String,
        default_image: Option<String>,
    ) -> Result<Self, String> {
        let socket = local_socket(host)?;
        let asleep = |why: String| {
            format!(
                "Docker does not answer at {socket} ({why}; install and start `docker.io`, or check your rights on the socket)"
            )
        };
        let client =
            Client::connect_with_unix(&socket, ANSWER_LIMIT_SECS, bollard::API_DEFAULT_VERSION)
                .map_err(|error| asleep(error.to_string()))?;
        let greeted = timeout(HELLO_LIMIT, async {
            let client = client.negotiate_version().await?;
            let info = client.info().await?;
            Ok::<_, Error>((client, info))
        });
        let (client, info) = match greeted.await {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(error)) => return Err(asleep(error.to_string())),
            Err(_) => return Err(asleep(format!("no answer within {} s", HELLO_LIMIT.as_secs()))),
        };
        let api = client.client_version();
        if (api.major_version, api.minor_version) < MIN_API {
            return Err(format!("Docker at {socket} is too old (20.10 or newer is needed)"));
        }
        let has = |option: &str| {
            let options = info.security_options.iter().flatten();
            options.flat_map(|o| o.split(',')).any(|o| o == option)
        };
        let rootless = has("name=rootless");
        if has("name=userns") && !rootless {
            return Err(format!(
                "Docker at {socket} maps users (`userns-remap`), so a sandbox could not open its files; switch that off or use rootless Docker"
            ));
        }
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let reclaim_to = match (uid.is_root() && !rootless, rootless) {
            (true, _) => None,
            (false, true) => Some("0:0".to_owned()),
            (false, false) => Some(format!("{}:{}", uid.as_raw(), gid.as_raw())),
        };
        Ok(Self {
            client,
            version: info.server_version.clone().unwrap_or_default(),
            owner: owner.to_owned(),
            state,
            default_image,
            agent_files: match reclaim_to {
                None => AgentFiles::Given,
                Some(_) => AgentFiles::OpenToAll,
            },
            reclaim_to,
            unenforced: unenforced(&info, has("name=seccomp"), traces_are_limited()),
        })
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    pub(super) fn unenforced(&self) -> &[String] {
        &self.unenforced
    }

    pub(super) fn staging(&self) -> Staging {
        Staging {
            engine: EngineKind::Docker,
            output: Output::Opened,
            starts_as: StartsAs::Root,
            agent_files: self.agent_files,
            relay: None,
        }
    }

    /// The image of a sandbox, fetched if it is not here.
    pub(super) async fn image(&self, named: Option<&str>) -> Result<String, SandboxError> {
        let named = named.or(self.default_image.as_deref());
        let image = named.ok_or(SandboxError::NoImage)?.to_owned();
        let failed = |source| SandboxError::Image { image: image.clone(), source };
        match self.client.inspect_image(&image).await {
            Ok(_) => return Ok(image),
            Err(error) if status(&error) == Some(404) => {}
            Err(error) => return Err(failed(error.into())),
        }
        let options = CreateImageOptionsBuilder::new().from_image(&one_tag(&image)).build();
        let pull = self.client.create_image(Some(options), None, None);
        match timeout(PULL_LIMIT, pull.try_for_each(|_| async { Ok(()) })).await {
            Ok(Ok(())) => Ok(image),
            Ok(Err(error)) => Err(failed(error.into())),
            Err(_) => Err(failed(EngineFault::Slow { limit: PULL_LIMIT })),
        }
    }

    /// Creates the container. The folder is filled already.
    pub(super) async fn provision(
        &self,
        spec: &SandboxSpec,
        folder: HostFolder,
    ) -> Result<Container, SandboxError> {
        Container::create(self, spec, folder).await
    }

    /// Takes over a sandbox that an earlier daemon started. `None` where it never started.
    pub(super) async fn adopt(
        &self,
        id: SandboxId,
        image: Option<String>,
        folder: HostFolder,
    ) -> Result<Option<Container>, SandboxError> {
        Container::adopt(self, id, image, folder).await
    }

    /// The containers that carry our label: sandbox and name.
    pub(super) async fn containers(&self) -> Result<Vec<(SandboxId, String)>, SandboxError> {
        let label = format!("{OWNER_LABEL}={}", self.owner);
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let listed = self.client.list_containers(Some(options)).await;
        let listed = listed.map_err(|error| SandboxError::List(error.into()))?;
        Ok(listed.into_iter().filter_map(named).collect())
    }

    /// Removes a container with all that runs in it.
    pub(super) async fn remove(&self, id: &SandboxId, name: &str) -> Result<(), SandboxError> {
        remove(&self.client, name)
            .await
            .map_err(|source| SandboxError::Remove { id: id.clone(), source })
    }

    /// Takes back the files of a sandbox whose container is gone.
    pub(super) async fn reclaim(
        &self,
        id: &SandboxId,
        image: Option<String>,
        folder: &HostFolder,
    ) -> Result<(), SandboxError> {
        container::reclaim(self, id, image, folder).await
    }

    fn container_name(&self, id: &SandboxId) -> String {
        format!("runbookd-{}-{id}", self.owner)
    }
}

fn named(container: ContainerSummary) -> Option<(SandboxId, String)> {
    let labels = container.labels?;
    let id = SandboxId::new(labels.get(SANDBOX_LABEL)?).ok()?;
    Some((id, container.id?))
}

/// Removes a container, with its anonymous volumes. One that is gone is removed already.
async fn remove(client: &Client, name: &str) -> Result<(), EngineFault> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    match client.remove_container(name, Some(options)).await {
        Ok(()) => Ok(()),
        Err(error) if status(&error) == Some(404) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The HTTP status of the daemon's answer, where it gave one.
fn status(error: &Error) -> Option<u16> {
    if let Error::DockerResponseServerError { status_code, .. } = error {
        Some(*status_code)
    } else {
        None
    }
}

/// The path of the daemon's socket. Another machine's daemon would look for our folders there.
fn local_socket(host: Option<&str>) -> Result<String, String> {
    let Some(host) = host else { return Ok(DEFAULT_SOCKET.to_owned()) };
    let path = host.strip_prefix("unix://").unwrap_or(host);
    if path.starts_with('/') {
        Ok(path.to_owned())
    } else {
        Err(format!(
            "the Docker host `{host}` is not on this machine; a sandbox shares folders with its engine, so give a socket like unix://{DEFAULT_SOCKET}"
        ))
    }
}

/// The name with a tag: without one the daemon would fetch every tag there is.
fn one_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

/// Whether a process may trace none but its children. The agent holds its output's descriptor, and
/// what it starts has the same user. (Bubblewrap's own filter refuses tracing altogether.)
fn traces_are_limited() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope")
        .is_ok_and(|scope| scope.trim() != "0")
}

/// What this daemon's kernel cannot enforce.
fn unenforced(info: &SystemInfo, has_seccomp: bool, traces_are_limited: bool) -> Vec<String> {
    let checks = [
        (Some(has_seccomp), "Docker filters no system calls here (no seccomp)."),
        (
            Some(traces_are_limited),
            "What the agent starts may trace the agent (kernel.yama.ptrace_scope is not 1), and so write into its recorded output.",
        ),
    ];
    let mut sentences = unlimited(info);
    sentences.extend(failed(checks));
    sentences
}

/// What this daemon's control groups do not limit.
fn unlimited(info: &SystemInfo) -> Vec<String> {
    let checks = [
        (info.memory_limit, "The memory limit of a sandbox is not enforced."),
        (info.swap_limit, "Swap is not counted in the memory limit of a sandbox."),
        (info.pids_limit, "The limit on processes in a sandbox is not enforced."),
        (info.cpu_cfs_quota, "The processor limit of a sandbox is not enforced."),
    ];
    failed(checks).collect()
}

fn failed<const N: usize>(
    checks: [(Option<bool>, &'static str); N],
) -> impl Iterator<Item = String> {
    let failed = checks.into_iter().filter(|(enforced, _)| *enforced == Some(false));
    failed.map(|(_, sentence)| sentence.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_of_this_machine_is_spoken_to() {
        assert_eq!(local_socket(None).as_deref(), Ok("/var/run/docker.sock"));
        assert_eq!(local_socket(Some("unix:///run/x.sock")).as_deref(), Ok("/run/x.sock"));
        for host in ["tcp://10.0.0.1:2375", "ssh://me@there", "npipe://x", ""] {
            assert!(local_socket(Some(host)).is_err(), "{host}");
        }
    }

    #[test]
    fn an_image_without_a_tag_is_the_latest() {
        for (image, pulled) in [
            ("debian", "debian:latest"),
            ("debian:12", "debian:12"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("a/b@sha256:00", "a/b@sha256:00"),
        ] {
            assert_eq!(one_tag(image), pulled);
        }
    }
}
