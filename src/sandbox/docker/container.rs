//! One container: its configuration, its life, its end.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bollard::Docker as Client;
use bollard::models::{
    ContainerCreateBody, ContainerState, ContainerStateStatusEnum, HealthConfig, HostConfig,
    HostConfigLogConfig, Mount, MountType, ResourcesUlimits,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, KillContainerOptionsBuilder, LogsOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep, timeout};

use super::super::error::{EngineFault, SandboxError};
use super::super::handover;
use super::super::host_folder::{HostFolder, RESOLV_CONF};
use super::super::launcher::{LAUNCH_ROOT, LAUNCH_SCRIPT, OUTPUT_ROOT};
use super::super::spec::{AgentSignal, Exit, SandboxId, SandboxSpec};
use super::processes::ContainerProcesses;
use super::{Docker, OWNER_LABEL, RUN_LABEL, SANDBOX_LABEL, status};
use crate::run::NetworkMode;

/// What the launcher needs to become the agent, and Docker's init to pass signals on to it.
const LAUNCHER_CAPABILITIES: [&str; 4] = ["SETUID", "SETGID", "SETPCAP", "KILL"];

/// Processes that belong to Docker itself: its init.
const ENGINE_PIDS: i64 = 1;

/// Size of the memory-backed `/dev/shm`, in bytes: Docker's default, written down.
const SHM_BYTES: i64 = 64 << 20;

/// How large Docker's own log of a container gets: only the launcher's complaints land there.
const LOG_SIZE: &str = "64k";

/// How long the daemon may be away (it restarts during an upgrade) before a wait gives up.
const ABSENCE_LIMIT: Duration = Duration::from_secs(120);

/// How often it is asked again while it is away.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How long Docker may take to note a kill for memory: it hears of it another way than of the end.
const OOM_NEWS: Duration = Duration::from_millis(300);

/// How long killed processes may take to go.
const KILL_LIMIT: Duration = Duration::from_secs(30);

/// How often a container that was killed is looked at.
const POLL: Duration = Duration::from_millis(20);

/// How long taking files back may take: one pass over all that the agent wrote.
const RECLAIM_LIMIT: Duration = Duration::from_secs(300);

/// How much of the launcher's words goes into an error, in bytes.
const DETAIL_BYTES: usize = 2_048;

/// A sandbox of Docker.
#[derive(Debug)]
pub(in super::super) struct Container {
    client: Client,
    id: SandboxId,
    name: String,
    folder: HostFolder,
    reclaim: Option<Reclaim>,
}

/// How files are taken back from the agent's user: a daemon without root cannot do it itself.
#[derive(Debug, Clone)]
struct Reclaim {
    image: String,
    name: String,
    owner: String,
    to: String,
}

/// How a container is.
enum Life {
    Created,
    Alive,
    Ended { code: i32, oom_killed: bool },
}

impl Container {
    pub(super) async fn create(
        docker: &Docker,
        spec: &SandboxSpec,
        folder: HostFolder,
    ) -> Result<Self, SandboxError> {
        let name = docker.container_name(&spec.id);
        let reclaim = reclaim_with(docker, &spec.id, spec.image.clone());
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let body = ContainerCreateBody {
            image: spec.image.clone(),
            hostname: Some("sandbox".to_owned()),
            // The image may name another user, and a program that checks the container's health
            // with the launcher's capabilities.
            user: Some("0:0".to_owned()),
            healthcheck: Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..HealthConfig::default()
            }),
            entrypoint: Some(vec!["/bin/sh".to_owned(), format!("{LAUNCH_ROOT}/{LAUNCH_SCRIPT}")]),
            cmd: Some(vec![]),
            working_dir: Some("/".to_owned()),
            labels: Some(labels(&docker.owner, &spec.id, &spec.run)),
            host_config: Some(host_config(spec, &folder, reclaim.is_some())),
            ..ContainerCreateBody::default()
        };
        let created = docker.client.create_container(Some(options), body).await;
        created.map_err(|error| {
            if status(&error) == Some(409) {
                SandboxError::Exists { id: spec.id.clone() }
            } else {
                SandboxError::Create { id: spec.id.clone(), source: error.into() }
            }
        })?;
        Ok(Self { client: docker.client.clone(), id: spec.id.clone(), name, folder, reclaim })
    }

    pub(super) async fn adopt(
        docker: &Docker,
        id: SandboxId,
        image: Option<String>,
        folder: HostFolder,
    ) -> Result<Option<Self>, SandboxError> {
        let name = docker.container_name(&id);
        let reclaim = reclaim_with(docker, &id, image);
        let container = Self { client: docker.client.clone(), id, name, folder, reclaim };
        match container.life().await {
            Ok(Some(Life::Alive | Life::Ended { .. })) => Ok(Some(container)),
            // Removed by somebody, but what its agent said is still here.
            Ok(None) if container.folder.launched() => Ok(Some(container)),
            Ok(Some(Life::Created) | None) => Ok(None),
            Err(source) => Err(SandboxError::Wait { id: container.id.clone(), source }),
        }
    }

    /// Starts the agent.
    pub(in super::super) async fn start(&self) -> Result<(), SandboxError> {
        self.client
            .start_container(&self.name, None)
            .await
            .map_err(|error| SandboxError::Start { id: self.id.clone(), source: error.into() })
    }

    /// Its processes, whoever holds it meanwhile.
    pub(in super::super) fn processes(&self) -> ContainerProcesses {
        ContainerProcesses::new(self.client.clone(), self.name.clone())
    }

    /// Waits for the agent's end. Losing the wait loses nothing: Docker keeps the exit code.
    pub(in super::super) async fn wait(&self) -> Result<Exit, SandboxError> {
        tokio::select! {
            biased;
            exit = self.ended() => exit,
            () = handover::overdue(&self.folder) => {
                self.kill().await?;
                Err(SandboxError::Launch { id: self.id.clone(), detail: handover::words() })
            }
        }
    }

    async fn ended(&self) -> Result<Exit, SandboxError> {
        let failed = |source| SandboxError::Wait { id: self.id.clone(), source };
        let mut absent_since: Option<Instant> = None;
        loop {
            match self.life().await {
                Ok(Some(Life::Ended { code, oom_killed })) => {
                    let oom_killed = oom_killed || (code != 0 && self.oom_is_noted().await);
                    return self.exit(code, oom_killed).await;
                }
                Ok(Some(Life::Alive)) => absent_since = None,
                Ok(Some(Life::Created) | None) => {
                    return Err(SandboxError::Gone { id: self.id.clone() });
                }
                Err(source) => {
                    let since = *absent_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > ABSENCE_LIMIT {
                        return Err(failed(source));
                    }
                    sleep(ASK_AGAIN).await;
                    continue;
                }
            }
            let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
            let ended = self.client.wait_container(&self.name, Some(options)).next().await;
            // An exit code other than 0 comes as an error too, so only the next look tells.
            if ended.is_none() {
                sleep(ASK_AGAIN).await;
            }
        }
    }

    /// Whether Docker notes a little later that the kernel killed something for its memory.
    async fn oom_is_noted(&self) -> bool {
        let since = Instant::now();
        while since.elapsed() < OOM_NEWS {
            sleep(POLL).await;
            if let Ok(Some(Life::Ended { oom_killed: true, .. })) = self.life().await {
                return true;
            }
        }
        false
    }

    async fn exit(&self, code: i32, oom_killed: bool) -> Result<Exit, SandboxError> {
        if self.folder.launched() || oom_killed {
            Ok(Exit { code, oom_killed })
        } else {
            Err(SandboxError::Launch { id: self.id.clone(), detail: self.launcher_words().await })
        }
    }

    /// Sends the agent a signal. One that has ended takes any.
    pub(in super::super) async fn signal(&self, signal: AgentSignal) -> Result<(), SandboxError> {
        let name = match signal {
            AgentSignal::Interrupt => "SIGINT",
            AgentSignal::Terminate => "SIGTERM",
            AgentSignal::Kill => "SIGKILL",
        };
        let options = KillContainerOptionsBuilder::new().signal(name).build();
        match self.client.kill_container(&self.name, Some(options)).await {
            Ok(()) => Ok(()),
            // Gone, or not running.
            Err(error) if matches!(status(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(SandboxError::Stop { id: self.id.clone(), source: error.into() }),
        }
    }

    /// Kills everything in the sandbox and waits until it is gone.
    pub(in super::super) async fn kill(&self) -> Result<(), SandboxError> {
        let failed = |source| SandboxError::Stop { id: self.id.clone(), source };
        self.signal(AgentSignal::Kill).await?;
        let gone = timeout(KILL_LIMIT, async {
            while matches!(self.life().await?, Some(Life::Alive)) {
                sleep(POLL).await;
            }
            Ok(())
        });
        gone.await.unwrap_or(Err(EngineFault::Slow { limit: KILL_LIMIT })).map_err(failed)?;
        self.take_back().await.map_err(failed)
    }

    /// Removes the container with all that runs in it. The folder is the caller's.
    pub(in super::super) async fn remove(&self) -> Result<(), SandboxError> {
        let failed = |source| SandboxError::Remove { id: self.id.clone(), source };
        super::remove(&self.client, &self.name).await.map_err(failed)?;
        self.take_back().await.map_err(failed)
    }

    /// How the container is; `None` where it is gone.
    async fn life(&self) -> Result<Option<Life>, EngineFault> {
        match self.client.inspect_container(&self.name, None).await {
            Ok(inspected) => Ok(inspected.state.map(life)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn take_back(&self) -> Result<(), EngineFault> {
        match &self.reclaim {
            Some(reclaim) => reclaim.run(&self.client, &self.id, &self.folder).await,
            None => Ok(()),
        }
    }

    /// The end of what was said before the agent started.
    async fn launcher_words(&self) -> String {
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail("20").build();
        let mut logs = self.client.logs(&self.name, Some(options));
        let mut words = Vec::new();
        // A log that cannot be read leaves the failure without words, not without a report.
        while let Some(Ok(line)) = logs.next().await {
            words.extend_from_slice(&line.into_bytes());
            if words.len() > DETAIL_BYTES {
                words.truncate(DETAIL_BYTES);
                break;
            }
        }
        let words = String::from_utf8_lossy(&words).trim().to_owned();
        if words.is_empty() { "it left no message".to_owned() } else { words }
    }
}

fn life(state: ContainerState) -> Life {
    match state.status {
        Some(ContainerStateStatusEnum::CREATED) => Life::Created,
        Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD) => Life::Ended {
            code: state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(-1),
            oom_killed: state.oom_killed.unwrap_or(false),
        },
        Some(
            ContainerStateStatusEnum::RUNNING
            | ContainerStateStatusEnum::PAUSED
            | ContainerStateStatusEnum::RESTARTING
            | ContainerStateStatusEnum::REMOVING
            | ContainerStateStatusEnum::STOPPING
            | ContainerStateStatusEnum::EMPTY,
        )
        | None => Life::Alive,
    }
}

fn labels(owner: &str, id: &SandboxId, run: &str) -> HashMap<String, String> {
    HashMap::from([
        (OWNER_LABEL.to_owned(), owner.to_owned()),
        (SANDBOX_LABEL.to_owned(), id.as_str().to_owned()),
        (RUN_LABEL.to_owned(), run.to_owned()),
    ])
}

fn host_config(spec: &SandboxSpec, folder: &HostFolder, needs_help: bool) -> HostConfig {
    let memory = i64::try_from(spec.limits.memory_bytes).unwrap_or(i64::MAX);
    let output = folder.root().join("out");
    let mut mounts: Vec<Mount> = folder
        .binds()
        .iter()
        .map(|(host, inside, writable)| bind(host, inside, *writable))
        .collect();
    mounts.push(bind(&output, OUTPUT_ROOT, true));
    if spec.network != NetworkMode::Open {
        let no_names = folder.root().join("launch").join(RESOLV_CONF);
        mounts.push(bind(&no_names, "/etc/resolv.conf", false));
    }
    mounts.extend(spec.mounts.iter().map(|mount| bind(&mount.host, &mount.inside, false)));
    let mut capabilities: Vec<String> = LAUNCHER_CAPABILITIES.map(str::to_owned).to_vec();
    if needs_help {
        // The folder with the output belongs to the daemon's user then, not to root.
        capabilities.push("DAC_OVERRIDE".to_owned());
    }
    HostConfig {
        init: Some(true),
        readonly_rootfs: Some(true),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(capabilities),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        mounts: Some(mounts),
        network_mode: Some(network_mode(spec.network).to_owned()),
        ipc_mode: Some("private".to_owned()),
        shm_size: Some(SHM_BYTES),
        memory: Some(memory),
        memory_swap: Some(memory),
        nano_cpus: Some(nano_cpus(spec.limits.n_cpus)),
        pids_limit: Some(i64::from(spec.limits.n_pids) + ENGINE_PIDS),
        ulimits: Some(vec![ResourcesUlimits {
            name: Some("core".to_owned()),
            soft: Some(0),
            hard: Some(0),
        }]),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), LOG_SIZE.to_owned()),
                ("max-file".to_owned(), "1".to_owned()),
            ])),
        }),
        ..HostConfig::default()
    }
}

fn network_mode(network: NetworkMode) -> &'static str {
    match network {
        NetworkMode::None | NetworkMode::Allowlist | NetworkMode::Public => "none",
        NetworkMode::Open => "bridge",
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the specification keeps it below 4096")]
fn nano_cpus(n_cpus: f64) -> i64 {
    (n_cpus * 1e9).round() as i64
}

fn bind(host: &Path, inside: &str, writable: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        // The state folder is checked to be text when the engine is connected; a mount that is not
        // is refused by the daemon as missing.
        source: Some(host.to_string_lossy().into_owned()),
        target: Some(inside.to_owned()),
        read_only: Some(!writable),
        ..Mount::default()
    }
}

fn reclaim_with(docker: &Docker, id: &SandboxId, image: Option<String>) -> Option<Reclaim> {
    Some(Reclaim {
        image: image?,
        name: format!("{}-reclaim", docker.container_name(id)),
        owner: docker.owner.clone(),
        to: docker.reclaim_to.clone()?,
    })
}

/// Takes back the files of a sandbox whose container is gone.
pub(super) async fn reclaim(
    docker: &Docker,
    id: &SandboxId,
    image: Option<String>,
    folder: &HostFolder,
) -> Result<(), SandboxError> {
    match reclaim_with(docker, id, image) {
        Some(reclaim) => reclaim
            .run(&docker.client, id, folder)
            .await
            .map_err(|source| SandboxError::Remove { id: id.clone(), source }),
        None => Ok(()),
    }
}

impl Reclaim {
    /// A throw-away container, which is root where we are not, gives the files back.
    async fn run(
        &self,
        client: &Client,
        id: &SandboxId,
        folder: &HostFolder,
    ) -> Result<(), EngineFault> {
        super::remove(client, &self.name).await?;
        let options = CreateContainerOptionsBuilder::new().name(&self.name).build();
        client.create_container(Some(options), self.body(id, folder)).await?;
        client.start_container(&self.name, None).await?;
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        let mut ended = client.wait_container(&self.name, Some(options));
        let ended = timeout(RECLAIM_LIMIT, ended.next())
            .await
            .map_err(|_| EngineFault::Slow { limit: RECLAIM_LIMIT })?;
        super::remove(client, &self.name).await?;
        match ended {
            Some(Ok(_)) | None => Ok(()),
            Some(Err(error)) => Err(error.into()),
        }
    }

    fn body(&self, id: &SandboxId, folder: &HostFolder) -> ContainerCreateBody {
        let command = ["chown", "-R", "-h", &self.to, "/rw"];
        ContainerCreateBody {
            image: Some(self.image.clone()),
            user: Some("0:0".to_owned()),
            entrypoint: Some(command.map(str::to_owned).to_vec()),
            cmd: Some(vec![]),
            labels: Some(labels(&self.owner, id, "reclaim")),
            host_config: Some(HostConfig {
                readonly_rootfs: Some(true),
                cap_drop: Some(vec!["ALL".to_owned()]),
                cap_add: Some(vec!["CHOWN".to_owned(), "DAC_OVERRIDE".to_owned()]),
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                network_mode: Some("none".to_owned()),
                mounts: Some(vec![bind(&folder.root().join("rw"), "/rw", true)]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }
}
