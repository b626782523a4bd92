//! The model service of one run: nothing to do for a remote one, a server for the scripted one.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::provider::SCRIPTED_SOCKET;
use crate::provider::scripted::{LedgerEntry, Listen, Script, ScriptedProvider};
use crate::run::{RunFailure, RunPlan, error_chain};
use crate::sandbox::{Mount, SandboxId};

/// The model service while a run lasts.
pub(super) enum Model {
    /// Somewhere else.
    Remote,
    /// In this process.
    Scripted {
        server: ScriptedProvider,
        /// Holds the socket. A sandbox that outlives this process sees the next one's socket in it.
        folder: PathBuf,
        /// Keeps the socket's short path true.
        _opened: File,
    },
}

impl Model {
    /// Starts what the plan needs. `sockets` holds one folder for each sandbox.
    pub(super) async fn start(
        plan: &RunPlan,
        sockets: &Path,
        id: &SandboxId,
    ) -> Result<Self, RunFailure> {
        let Some(script) = &plan.script else { return Ok(Self::Remote) };
        let refused = |problem: String| RunFailure::Refused { problems: vec![problem] };
        let script = Script::parse(script).map_err(|e| refused(error_chain(&e)))?;
        let failed = |detail: String| RunFailure::SandboxFailed { detail };
        let folder = sockets.join(id.as_str());
        let opened = open(sockets, &folder)
            .map_err(|e| failed(format!("no folder for the scripted provider's socket: {e}")))?;
        // A socket's path has at most 107 bytes, and a state folder may be deep.
        let socket =
            PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd())).join(file_name());
        let server =
            ScriptedProvider::start(script, Listen::Unix(socket.clone())).await.map_err(|e| {
                failed(format!("the scripted provider did not start: {}", error_chain(&e)))
            })?;
        // The agent has a user of its own; the folder's parent, which is ours alone, keeps others
        // away.
        std::fs::set_permissions(&socket, Permissions::from_mode(0o666))
            .map_err(|e| failed(format!("the scripted provider's socket stays closed: {e}")))?;
        Ok(Self::Scripted { server, folder, _opened: opened })
    }

    /// What the sandbox must see of it.
    pub(super) fn mounts(&self) -> Vec<Mount> {
        match self {
            Self::Remote => Vec::new(),
            Self::Scripted { folder, .. } => {
                let inside = Path::new(SCRIPTED_SOCKET).parent().unwrap_or(Path::new("/"));
                vec![Mount { host: folder.clone(), inside: inside.display().to_string() }]
            }
        }
    }

    /// Ends it, and gives what it answered.
    pub(super) async fn stop(self) -> Vec<LedgerEntry> {
        match self {
            Self::Remote => Vec::new(),
            Self::Scripted { server, folder, _opened } => {
                let ledger = server.ledger();
                server.stop().await;
                if let Err(e) = std::fs::remove_dir_all(&folder) {
                    tracing::warn!(error = %e, "the socket's folder was not removed");
                }
                ledger
            }
        }
    }

    /// Ends it for this process alone: its sandbox stays, and the next process serves it.
    pub(super) async fn leave(self) -> Vec<LedgerEntry> {
        match self {
            Self::Remote => Vec::new(),
            Self::Scripted { server, .. } => {
                let ledger = server.ledger();
                server.stop().await;
                ledger
            }
        }
    }
}

/// Removes the folders in `sockets` of sandboxes that are not to be kept.
///
/// # Errors
/// When they cannot be listed or removed.
pub fn sweep(sockets: &Path, keep: impl Fn(&SandboxId) -> bool) -> io::Result<()> {
    let entries = match std::fs::read_dir(sockets) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let id = entry.file_name().to_str().and_then(|name| SandboxId::new(name).ok());
        if id.is_some_and(|id| !keep(&id)) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// The folder, made where it is missing, without the socket of an earlier process.
fn open(sockets: &Path, folder: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(sockets)?;
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    // The agent has a user of its own, whatever the umask of this process.
    std::fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    match std::fs::remove_file(folder.join(file_name())) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    File::open(folder)
}

fn file_name() -> &'static Path {
    Path::new(SCRIPTED_SOCKET).file_name().map_or(Path::new("model.sock"), Path::new)
}
