//! Fetching an agent CLI: at once from the cache, else once from the registry.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::info;
use url::Url;

use super::cache::{Prepared, Slot, Workspace};
use super::client::build_client;
use super::download::Download;
use super::error::ToolchainError;
use super::lock::CacheLock;
use super::pins::{AgentCli, Pin};
use super::target::Target;
use crate::secret::Secret;

/// Where agent CLIs come from and where they are kept.
#[derive(Debug, Clone)]
pub struct ToolchainSettings {
    /// The folder of the cache, made when it is needed. A relative path stays relative in what
    /// [`Toolchain::fetch`] returns.
    pub cache_dir: PathBuf,
    /// The npm registry's base URL, with or without a path and a final slash.
    pub registry: Url,
    /// The registry's token (npm's `_authToken`). It is sent to the registry's host only.
    pub registry_token: Option<Secret>,
    /// A PEM file with certificates that are trusted besides the system's.
    pub extra_ca: Option<PathBuf>,
}

/// The pinned agent CLIs and their cache. Many tasks and processes may share a cache.
#[derive(Debug)]
pub struct Toolchain {
    pub(super) settings: ToolchainSettings,
    pub(super) limits: Limits,
}

/// An agent CLI that lies ready in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledCli {
    /// The executable: one file, read-only, that needs nothing beside it.
    pub path: PathBuf,
    /// The pinned version, as the CLI reports it.
    pub version: &'static str,
}

/// How far a fetch is. A warm cache reports nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchProgress {
    /// Another process or task is fetching the same CLI; this one waits for it.
    WaitingForOther,
    /// Bytes are coming in. A new try starts again at zero.
    Downloading {
        /// What has come.
        received_bytes: u64,
        /// What will.
        total_bytes: u64,
    },
    /// The package is here and intact; the executable is being unpacked.
    Unpacking,
}

/// Who hears how far a fetch is. It is called for every piece received, so it must be quick.
pub type OnProgress<'a> = &'a (dyn Fn(FetchProgress) + Send + Sync);

/// How long the toolchain waits, and for what.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// For a connection to the registry or the proxy, name lookup and TLS included.
    pub(super) connect: Duration,
    /// For the first and the next byte of an answer.
    pub(super) stall: Duration,
    /// For a whole answer.
    pub(super) attempt: Duration,
    /// For the lock.
    pub(super) lock: Duration,
    /// Before each new try, so there is one try more than pauses.
    pub(super) pauses: &'static [Duration],
}

impl Limits {
    /// Slow satellite links and busy proxies connect in a few seconds.
    const CONNECT: Duration = Duration::from_secs(15);
    /// A line that says nothing for this long is dead; a proxy that scans a file before it passes
    /// it on needs about this long for 75 MB.
    const STALL: Duration = Duration::from_secs(60);
    /// 75 MB over a line of 64 KB/s.
    const ATTEMPT: Duration = Duration::from_mins(20);
    /// A little longer than one try of whoever holds the lock.
    const LOCK: Duration = Duration::from_mins(25);
    /// Long enough for a connection that hiccups, short enough for a person who waits.
    const PAUSES: &[Duration] =
        &[Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];

    const PRODUCT: Self = Self {
        connect: Self::CONNECT,
        stall: Self::STALL,
        attempt: Self::ATTEMPT,
        lock: Self::LOCK,
        pauses: Self::PAUSES,
    };
}

impl Toolchain {
    /// Checks the settings. Nothing is read or connected before it is needed, so that a warm
    /// cache works without a network or a valid certificate bundle.
    ///
    /// # Errors
    /// [`ToolchainError::Registry`] and [`ToolchainError::RegistryToken`].
    pub fn new(settings: ToolchainSettings) -> Result<Self, ToolchainError> {
        let registry = &settings.registry;
        if !matches!(registry.scheme(), "http" | "https") {
            return Err(ToolchainError::Registry { problem: "is neither http nor https" });
        }
        if !registry.username().is_empty() || registry.password().is_some() {
            return Err(ToolchainError::Registry { problem: "holds a user name or a password" });
        }
        if registry.query().is_some() || registry.fragment().is_some() {
            return Err(ToolchainError::Registry { problem: "holds a `?` or a `#`" });
        }
        let sendable = |token: &Secret| token.expose().bytes().all(|byte| byte.is_ascii_graphic());
        if !settings.registry_token.as_ref().is_none_or(sendable) {
            return Err(ToolchainError::RegistryToken);
        }
        Ok(Self { settings, limits: Limits::PRODUCT })
    }

    /// The pinned `cli` for `target`, from the cache or else from the registry.
    ///
    /// An installed CLI is known by its size and mode; [`Self::verify`] reads its content.
    /// Several callers at once, in one process or many, download once. A caller who stops waiting
    /// leaves the cache in order.
    ///
    /// # Errors
    /// See [`ToolchainError`]; nothing of a package that could not be installed is kept.
    pub async fn fetch(
        &self,
        cli: AgentCli,
        target: Target,
        progress: OnProgress<'_>,
    ) -> Result<InstalledCli, ToolchainError> {
        self.fetch_pin(Pin::of(cli, target), progress).await
    }

    /// Reads the installed `cli` for `target` to the last byte and compares it with its pin.
    ///
    /// # Errors
    /// [`ToolchainError::NotInstalled`], [`ToolchainError::Altered`], [`ToolchainError::Cache`].
    pub async fn verify(
        &self,
        cli: AgentCli,
        target: Target,
    ) -> Result<InstalledCli, ToolchainError> {
        self.verify_pin(Pin::of(cli, target)).await
    }

    pub(super) async fn fetch_pin(
        &self,
        pin: Pin,
        progress: OnProgress<'_>,
    ) -> Result<InstalledCli, ToolchainError> {
        let slot = Arc::new(Slot::new(&self.settings.cache_dir, pin));
        let looked_at = Arc::clone(&slot);
        if !blocking(move || looked_at.is_installed()).await? {
            self.install(&slot, progress).await?;
        }
        Ok(installed(&slot))
    }

    pub(super) async fn verify_pin(&self, pin: Pin) -> Result<InstalledCli, ToolchainError> {
        let slot = Arc::new(Slot::new(&self.settings.cache_dir, pin));
        let looked_at = Arc::clone(&slot);
        blocking(move || looked_at.verify()).await?;
        Ok(installed(&slot))
    }

    async fn install(
        &self,
        slot: &Arc<Slot>,
        progress: OnProgress<'_>,
    ) -> Result<(), ToolchainError> {
        let lock = CacheLock::acquire(&slot.lock, self.limits.lock, progress).await?;
        let locked = Arc::clone(slot);
        let workspace = match blocking(move || Workspace::prepare(locked, lock)).await? {
            Prepared::Installed => return Ok(()),
            Prepared::Empty(workspace) => workspace,
        };
        self.download(slot, &workspace.tarball, progress).await?;
        progress(FetchProgress::Unpacking);
        blocking(move || workspace.install()).await?;
        info!(
            runtime = slot.pin.cli,
            "installed {} {} for {}", slot.pin.cli, slot.pin.version, slot.pin.target
        );
        Ok(())
    }

    async fn download(
        &self,
        slot: &Slot,
        tarball: &Path,
        progress: OnProgress<'_>,
    ) -> Result<(), ToolchainError> {
        let extra_ca = self.settings.extra_ca.clone();
        let limits = self.limits.clone();
        let client = blocking(move || build_client(extra_ca.as_deref(), &limits)).await?;
        let download = Download {
            client,
            registry: &self.settings.registry,
            token: self.settings.registry_token.as_ref(),
            slot,
            limits: &self.limits,
        };
        download.run(tarball, progress).await
    }
}

fn installed(slot: &Slot) -> InstalledCli {
    InstalledCli { path: slot.executable.clone(), version: slot.pin.version }
}

/// Does work that blocks on a thread that may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ToolchainError> + Send + 'static,
) -> Result<T, ToolchainError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(ToolchainError::Interrupted(error)),
        },
    }
}
