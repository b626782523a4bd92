//! The model service of one run: nothing to do for a remote one, a server for the scripted one.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::provider::SCRIPTED_SOCKET;
use crate::provider::scripted::{LedgerEntry, Listen, Script, ScriptedProvider};
use crate::run::{RunFailure, RunPlan};
use crate::sandbox::Mount;

/// The model service while a run lasts.
pub(super) enum Model {
    /// Somewhere else.
    Remote,
    /// In this process.
    Scripted {
        server: ScriptedProvider,
        /// Holds the socket; removed with it.
        folder: tempfile::TempDir,
    },
}

impl Model {
    /// Starts what the plan needs.
    pub(super) async fn start(plan: &RunPlan) -> Result<Self, RunFailure> {
        let Some(script) = &plan.script else { return Ok(Self::Remote) };
        let refused = |problem: String| RunFailure::Refused { problems: vec![problem] };
        let script = Script::parse(script).map_err(|e| refused(crate::run::error_chain(&e)))?;
        let failed = |detail: String| RunFailure::SandboxFailed { detail };
        // A socket's path has at most 107 bytes, so it cannot lie below the results.
        let folder = tempfile::Builder::new()
            .prefix("runbookd-")
            .tempdir()
            .map_err(|e| failed(format!("no folder for the scripted provider's socket: {e}")))?;
        let socket = socket(folder.path());
        let server = ScriptedProvider::start(script, Listen::Unix(socket.clone()))
            .await
            .map_err(|e| failed(format!("the scripted provider did not start: {e}")))?;
        // The agent has a user of its own; the folder, which is ours alone, keeps others away.
        std::fs::set_permissions(&socket, Permissions::from_mode(0o666))
            .map_err(|e| failed(format!("the scripted provider's socket stays closed: {e}")))?;
        Ok(Self::Scripted { server, folder })
    }

    /// What the sandbox must see of it.
    pub(super) fn mounts(&self) -> Vec<Mount> {
        match self {
            Self::Remote => Vec::new(),
            Self::Scripted { folder, .. } => {
                vec![Mount { host: socket(folder.path()), inside: SCRIPTED_SOCKET.to_owned() }]
            }
        }
    }

    /// Ends it, and gives what it answered.
    pub(super) async fn stop(self) -> Vec<LedgerEntry> {
        match self {
            Self::Remote => Vec::new(),
            Self::Scripted { server, folder } => {
                let ledger = server.ledger();
                server.stop().await;
                if let Err(e) = folder.close() {
                    tracing::warn!(error = %e, "the socket's folder was not removed");
                }
                ledger
            }
        }
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("model.sock")
}
