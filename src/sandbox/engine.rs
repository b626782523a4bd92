//! The choice between the engines, and what both do with what is left from before.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::bubblewrap::{self, Bubblewrap};
use super::cgroup::Cgroups;
use super::docker::Docker;
use super::error::{EngineFault, SandboxError};
use super::host_folder::{self, EngineKind, HostFolder, Staging};
use super::images::{ImageFacts, ImagesHold, OnBuild, PrunedImage};
use super::live::{Live, Sandbox};
use super::lock;
use super::relay::{self, Call, RELAY_PIDS, RELAY_ROOT};
use super::relay_builds;
use super::settings::{EngineChoice, EngineSettings, check, state_mark};
use super::spec::{InvalidSpec, Mount, SandboxId, SandboxSpec};
use crate::host;
use crate::run::ImageRecipe;

/// The file that whoever prunes images locks, and whoever uses one shares.
const PRUNE_LOCK: &str = "images.lock";

/// The folder that remembers what is in images.
const LOOKS: &str = "looks";

/// How long pruning waits for runs that prepare their sandboxes, and they for it. A build may run
/// longer; then it is said.
const PRUNE_WAIT: Duration = Duration::from_secs(60);

/// What was chosen, why, and what it cannot do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineReport {
    /// The engine.
    pub kind: EngineKind,
    /// Its version.
    pub version: String,
    /// Why it was chosen: one sentence.
    pub why: String,
    /// What this engine does not enforce here: whole sentences.
    pub unenforced: Vec<String>,
}

/// What hosts sandboxes.
#[derive(Debug, Clone)]
pub struct Engine {
    host: Host,
    settings: Arc<EngineSettings>,
    why: String,
}

#[derive(Debug, Clone)]
enum Host {
    Docker(Arc<Docker>),
    Bubblewrap(Arc<Bubblewrap>),
}

impl Engine {
    /// Finds the engine that was chosen and tries it.
    ///
    /// # Errors
    /// [`SandboxError::NoEngine`] with a reason for each engine that was looked for; a setting or
    /// the state folder that cannot be used.
    pub async fn connect(
        choice: EngineChoice,
        settings: EngineSettings,
    ) -> Result<Self, SandboxError> {
        check(&settings)?;
        host_folder::prepare(&settings.state_dir).map_err(|source| SandboxError::StateFolder {
            path: settings.state_dir.clone(),
            source,
        })?;
        let settings = Arc::new(settings);
        let engine = |host, why: String| Self { host, settings: Arc::clone(&settings), why };
        let asked = "It was asked for by name.".to_owned();
        match choice {
            EngineChoice::Docker => match docker(&settings).await {
                Ok(host) => Ok(engine(host, asked)),
                Err(reason) => Err(SandboxError::NoEngine { reasons: vec![reason] }),
            },
            EngineChoice::Bubblewrap => match bubblewrap(&settings).await {
                Ok(host) => Ok(engine(host, asked)),
                Err(reason) => Err(SandboxError::NoEngine { reasons: vec![reason] }),
            },
            EngineChoice::Auto => match docker(&settings).await {
                Ok(host) => Ok(engine(host, "Docker answers.".to_owned())),
                Err(no_docker) => match bubblewrap(&settings).await {
                    Ok(host) => Ok(engine(host, format!("{no_docker}."))),
                    Err(no_bubblewrap) => {
                        Err(SandboxError::NoEngine { reasons: vec![no_docker, no_bubblewrap] })
                    }
                },
            },
        }
    }

    /// What was chosen, why, and what it cannot do.
    #[must_use]
    pub fn report(&self) -> EngineReport {
        let (kind, version, unenforced) = match &self.host {
            Host::Docker(docker) => (EngineKind::Docker, docker.version(), docker.unenforced()),
            Host::Bubblewrap(bubblewrap) => {
                (EngineKind::Bubblewrap, bubblewrap.version(), bubblewrap.unenforced())
            }
        };
        EngineReport {
            kind,
            version: version.to_owned(),
            why: self.why.clone(),
            unenforced: unenforced_by(kind, unenforced),
        }
    }

    /// Sees to it that the image `named`, or the default one, is there. Bubblewrap needs none.
    ///
    /// # Errors
    /// [`SandboxError::Image`] when it is not here and cannot be pulled.
    pub async fn prepare(&self, named: Option<&str>) -> Result<(), SandboxError> {
        match &self.host {
            Host::Docker(docker) => docker.image(named).await.map(drop),
            Host::Bubblewrap(_) => Ok(()),
        }
    }

    /// The image of a sandbox that names none, where the operator set one.
    #[must_use]
    pub fn default_image(&self) -> Option<&str> {
        self.settings.default_image.as_deref()
    }

    /// Builds the image of a recipe unless it is there. Bubblewrap has no images.
    ///
    /// # Errors
    /// [`SandboxError::Build`] with the last lines of the build; [`SandboxError::Image`] when what it
    /// stands on cannot be had.
    pub async fn build(
        &self,
        recipe: &ImageRecipe,
        heard: OnBuild<'_>,
    ) -> Result<(), SandboxError> {
        match &self.host {
            Host::Docker(docker) => docker.build(recipe, &self.locks(), heard).await,
            Host::Bubblewrap(_) => Err(no_images(&recipe.tag)),
        }
    }

    /// Whether an image is here.
    ///
    /// # Errors
    /// [`SandboxError::LookInto`] when the engine does not answer.
    pub async fn has_image(&self, image: &str) -> Result<bool, SandboxError> {
        match &self.host {
            Host::Docker(docker) => docker
                .has(image)
                .await
                .map_err(|source| SandboxError::LookInto { image: image.to_owned(), source }),
            Host::Bubblewrap(_) => Ok(false),
        }
    }

    /// What is in the image, or on this machine where the engine has no images.
    ///
    /// # Errors
    /// [`SandboxError::LookInto`] when the image is not here or cannot be looked into.
    pub async fn look_into(&self, image: Option<&str>) -> Result<ImageFacts, SandboxError> {
        match (&self.host, image) {
            (Host::Docker(docker), image) => {
                let image = docker.image(image).await?;
                docker.look_into(&image, &self.locks().join(LOOKS)).await
            }
            (Host::Bubblewrap(_), None) => Ok(bubblewrap::host_facts()),
            (Host::Bubblewrap(_), Some(image)) => Err(no_images(image)),
        }
    }

    /// Which of these programs a sandbox of Bubblewrap would not find. Docker's are in an image.
    #[must_use]
    pub fn missing_on_host(&self, programs: &[String]) -> Vec<String> {
        match &self.host {
            Host::Docker(_) => Vec::new(),
            Host::Bubblewrap(_) => bubblewrap::missing(programs),
        }
    }

    /// Keeps images from being pruned until the hold is dropped.
    ///
    /// # Errors
    /// When somebody prunes for longer than that takes, or the state folder cannot be used.
    pub async fn hold_images(&self) -> Result<ImagesHold, SandboxError> {
        match &self.host {
            Host::Docker(_) => {
                let lock = lock::shared(&self.locks().join(PRUNE_LOCK), PRUNE_WAIT).await;
                let lock = lock.map_err(|error| SandboxError::Prune(error.into()))?;
                Ok(ImagesHold::new(Some(lock)))
            }
            Host::Bubblewrap(_) => Ok(ImagesHold::new(None)),
        }
    }

    /// Removes the images that were built for this state folder, are not in `current`, stand on
    /// nothing that is, and that no container uses.
    ///
    /// # Errors
    /// When a run prepares its sandbox for longer than is waited, or the engine refuses.
    pub async fn prune(
        &self,
        current: &BTreeSet<String>,
    ) -> Result<Vec<PrunedImage>, SandboxError> {
        match &self.host {
            Host::Docker(docker) => {
                let path = self.locks().join(PRUNE_LOCK);
                let lock = lock::exclusive(&path, PRUNE_WAIT, || {}).await;
                let _lock = lock.map_err(|error| SandboxError::Prune(error.into()))?;
                // Some of the images it knows will be gone; the others are looked into once more.
                let looks = self.locks().join(LOOKS);
                if let Err(error) = blocking(move || super::remove::remove_tree(&looks)).await {
                    warn!(%error, "what is remembered of images stays");
                }
                docker.prune(current).await
            }
            Host::Bubblewrap(_) => Ok(Vec::new()),
        }
    }

    /// Where the locks on images lie.
    fn locks(&self) -> PathBuf {
        self.settings.state_dir.join("snapshots")
    }

    /// Makes a sandbox with everything in place, and does not start it.
    ///
    /// # Errors
    /// When the specification cannot be met or the host refuses. Nothing is left behind then.
    pub async fn provision(&self, mut spec: SandboxSpec) -> Result<Sandbox, SandboxError> {
        spec.check()?;
        let folder = HostFolder::at(&self.settings.state_dir, &spec.id);
        let id = spec.id.clone();
        // Until the record of the sandbox says which build of the relay it has.
        let _held = self.hold_relays(&spec).await?;
        let relay = self.relay(&mut spec).await?;
        let live = match &self.host {
            Host::Docker(docker) => {
                spec.image = Some(docker.image(spec.image.as_deref()).await?);
                let staging = Staging { relay, ..docker.staging() };
                let spec = self.fill(&folder, spec, staging).await?;
                docker.provision(&spec, folder.clone()).await.map(Live::Docker)
            }
            Host::Bubblewrap(bubblewrap) => {
                bubblewrap.check(&spec)?;
                let staging = Staging { relay, ..bubblewrap.staging() };
                let spec = self.fill(&folder, spec, staging).await?;
                bubblewrap.provision(&spec, folder.clone()).map(Live::Bubblewrap)
            }
        };
        match live {
            Ok(live) => Ok(Sandbox::new(id, live, folder)),
            Err(error) => {
                // The error at hand is the one to tell; what stays behind is the reaper's.
                let _ = blocking(move || folder.remove()).await;
                Err(error)
            }
        }
    }

    /// Takes over a sandbox that an earlier daemon of the same owner started, also one whose agent has
    /// ended or whose container somebody removed: its files are still there. `None` where there is
    /// none, or it never started: then the reaper removes what is there.
    ///
    /// # Errors
    /// When its record cannot be read or the engine does not answer.
    pub async fn adopt(&self, id: &SandboxId) -> Result<Option<Sandbox>, SandboxError> {
        let folder = HostFolder::at(&self.settings.state_dir, id);
        let Some(record) = folder.read_record()? else { return Ok(None) };
        if record.engine != self.report().kind {
            return Ok(None);
        }
        let live = match &self.host {
            Host::Docker(docker) => {
                docker.adopt(id.clone(), record.image, folder.clone()).await?.map(Live::Docker)
            }
            Host::Bubblewrap(bubblewrap) => {
                bubblewrap.adopt(id.clone(), folder.clone())?.map(Live::Bubblewrap)
            }
        };
        Ok(live.map(|live| Sandbox::new(id.clone(), live, folder)))
    }

    /// Removes everything that carries our label and is not to be kept: containers, processes,
    /// control groups, host folders; and the builds of the relay that no sandbox has. Gives the ids of
    /// what was removed. One that cannot be removed is logged and does not save the others.
    ///
    /// `keep` is asked after the sandboxes were listed: one that is claimed before it is made, as it
    /// should be, is then either not listed or claimed.
    ///
    /// # Errors
    /// When what is there cannot be listed.
    pub async fn reap(
        &self,
        keep: impl Fn(&SandboxId) -> bool,
    ) -> Result<Vec<SandboxId>, SandboxError> {
        let mut reaped = Vec::new();
        for id in self.ids().await? {
            if keep(&id) {
                continue;
            }
            match self.reap_one(&id).await {
                Ok(true) => reaped.push(id),
                Ok(false) => {}
                Err(error) => {
                    warn!(sandbox.id = %id, error = &error as &dyn std::error::Error, "sandbox `{id}` could not be reaped");
                }
            }
        }
        self.sweep_relays().await;
        Ok(reaped)
    }

    /// Removes the builds of the relay that no sandbox has.
    async fn sweep_relays(&self) {
        match relay_builds::sweep(&self.settings).await {
            Ok(builds) if builds.is_empty() => {}
            Ok(builds) => info!(n_builds = builds.len(), "removed old builds of the relay"),
            Err(error) => warn!(%error, "old builds of the relay stay for now"),
        }
    }

    /// Removes what there is of one sandbox, whoever made it. Where nothing is there, nothing happens.
    ///
    /// # Errors
    /// When something stays behind, or it was made by an engine that is not connected.
    pub async fn discard(&self, id: &SandboxId) -> Result<(), SandboxError> {
        match self.reap_one(id).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(SandboxError::Exists { id: id.clone() }),
            Err(error) => Err(error),
        }
    }

    /// What carries our label now, one sentence for each thing. Empty when nothing leaked.
    ///
    /// # Errors
    /// When what is there cannot be listed.
    pub async fn leftovers(&self) -> Result<Vec<String>, SandboxError> {
        let mut found = Vec::new();
        for id in self.folders()? {
            found.push(format!("the host folder of sandbox `{id}`"));
        }
        match &self.host {
            Host::Docker(docker) => {
                let containers = docker.containers().await?;
                found.extend(
                    containers.into_iter().map(|(id, _)| format!("a container of sandbox `{id}`")),
                );
            }
            Host::Bubblewrap(bubblewrap) => {
                let groups = bubblewrap.cgroups().list();
                found.extend(
                    groups.into_iter().map(|id| format!("a control group of sandbox `{id}`")),
                );
            }
        }
        let processes =
            bubblewrap::processes_below(&host_folder::sandboxes(&self.settings.state_dir));
        found.extend(processes.into_iter().map(|pid| format!("the process {pid} of bwrap")));
        Ok(found)
    }

    async fn hold_relays(&self, spec: &SandboxSpec) -> Result<Option<File>, SandboxError> {
        if !spec.network.has_proxy() {
            return Ok(None);
        }
        let held = relay_builds::hold(&self.settings.state_dir).await;
        held.map(Some).map_err(|source| SandboxError::Relay { source })
    }

    /// Brings the relay into a sandbox whose way out is a proxy, and says how it is called.
    async fn relay(&self, spec: &mut SandboxSpec) -> Result<Option<Call>, SandboxError> {
        if !spec.network.has_proxy() {
            return Ok(None);
        }
        let settings = Arc::clone(&self.settings);
        let prepared = blocking(move || relay::prepare(&settings.state_dir, &settings.program));
        let prepared = prepared.await.map_err(|source| SandboxError::Relay { source })?;
        spec.mounts.push(Mount { host: prepared.folder, inside: RELAY_ROOT.to_owned() });
        spec.limits.n_pids = spec.limits.n_pids.saturating_add(RELAY_PIDS);
        Ok(Some(prepared.call))
    }

    async fn fill(
        &self,
        folder: &HostFolder,
        spec: SandboxSpec,
        staging: Staging,
    ) -> Result<SandboxSpec, SandboxError> {
        let folder = folder.clone();
        let owner = self.settings.owner.clone();
        blocking(move || folder.fill(&spec, &owner, staging).map(|()| spec)).await
    }

    fn folders(&self) -> Result<Vec<SandboxId>, SandboxError> {
        host_folder::list(&self.settings.state_dir)
            .map_err(|error| SandboxError::List(EngineFault::Host(error)))
    }

    /// Every sandbox of which anything is there.
    async fn ids(&self) -> Result<BTreeSet<SandboxId>, SandboxError> {
        let mut ids: BTreeSet<SandboxId> = self.folders()?.into_iter().collect();
        match &self.host {
            Host::Docker(docker) => {
                ids.extend(docker.containers().await?.into_iter().map(|(id, _)| id));
            }
            Host::Bubblewrap(bubblewrap) => ids.extend(bubblewrap.cgroups().list()),
        }
        Ok(ids)
    }

    /// Says whether the sandbox is gone: one of an engine that is not connected is left alone.
    async fn reap_one(&self, id: &SandboxId) -> Result<bool, SandboxError> {
        let folder = HostFolder::at(&self.settings.state_dir, id);
        // A record that cannot be read belongs to a sandbox that nobody can adopt any more.
        let record = folder.read_record().ok().flatten();
        let (engine, image) = record.map(|record| (record.engine, record.image)).unzip();
        match (&self.host, engine) {
            (Host::Bubblewrap(_), Some(EngineKind::Docker)) => {
                warn!(sandbox.id = %id, "sandbox `{id}` was made by Docker, which is not connected: it stays");
                return Ok(false);
            }
            (Host::Bubblewrap(bubblewrap), Some(EngineKind::Bubblewrap) | None) => {
                bubblewrap::reap(id.clone(), folder.clone(), bubblewrap.cgroups().group(id))
                    .await?;
            }
            (Host::Docker(docker), Some(EngineKind::Docker) | None) => {
                for (_, name) in docker.containers().await?.iter().filter(|(of, _)| of == id) {
                    docker.remove(id, name).await?;
                }
                // Docker refuses to mount what is not there, and nothing of an agent is in it then.
                if folder.root().join("rw").is_dir() {
                    docker.reclaim(id, image.flatten(), &folder).await?;
                }
            }
            (Host::Docker(_), Some(EngineKind::Bubblewrap)) => {
                let cgroups = Cgroups::probe(&self.settings.cgroup_root, &self.settings.owner);
                bubblewrap::reap(id.clone(), folder.clone(), cgroups.group(id)).await?;
            }
        }
        let removed = blocking(move || folder.remove()).await;
        removed.map_err(|source| SandboxError::Remove { id: id.clone(), source: source.into() })?;
        Ok(true)
    }
}

/// What an engine enforces nowhere, behind what it does not enforce here.
pub(super) fn unenforced_by(kind: EngineKind, here: &[String]) -> Vec<String> {
    let open_network = match kind {
        EngineKind::Docker => {
            "A sandbox with an open network reaches what listens on this machine's bridge, and other containers on it."
        }
        EngineKind::Bubblewrap => {
            "A sandbox with an open network shares this machine's: it reaches what listens on its loopback."
        }
    };
    let hidden = "Without root not all of what a sandbox holds of the disk is seen: folders that the agent closes, files without a name.";
    let closed = (!rustix::process::geteuid().is_root()).then_some(hidden);
    let everywhere = closed.into_iter().chain([open_network]).map(str::to_owned);
    here.iter().cloned().chain(everywhere).collect()
}

fn no_images(image: &str) -> SandboxError {
    SandboxError::Spec(InvalidSpec::ImageWithoutDocker { image: image.to_owned() })
}

/// Runs what waits for the disk where it holds nobody up.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match host::blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

async fn docker(settings: &EngineSettings) -> Result<Host, String> {
    let host = settings.docker_host.as_deref();
    let image = settings.default_image.clone();
    let docker = Docker::connect(host, &settings.owner, state_mark(settings), image).await?;
    Ok(Host::Docker(Arc::new(docker)))
}

async fn bubblewrap(settings: &EngineSettings) -> Result<Host, String> {
    let bubblewrap =
        Bubblewrap::connect(&settings.path, &settings.cgroup_root, &settings.owner).await?;
    Ok(Host::Bubblewrap(Arc::new(bubblewrap)))
}
