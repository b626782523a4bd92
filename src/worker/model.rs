//! The model service of one run: a gateway to a remote one, or a server for the scripted one.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::door;
use super::execute::Run;
use super::way_out;
use crate::egress::Proxy;
use crate::gateway::{Gateway, GatewayError};
use crate::provider::scripted::{LedgerEntry, Listen, Script, ScriptedProvider};
use crate::provider::{Access, SCRIPTED_SOCKET};
use crate::run::{Credentials, RunFailure, error_chain};
use crate::sandbox::{EGRESS_SOCKET, Mount, SandboxId};

/// The model service while a run lasts.
pub(super) struct Model {
    service: Service,
    /// The way out of the sandbox, where that is a proxy.
    proxy: Option<Proxy>,
    /// `None` where there is neither.
    socket: Option<Socket>,
}

enum Service {
    /// Somewhere else.
    Remote,
    /// Somewhere else, behind a gateway in this process.
    Gateway(Gateway),
    /// In this process.
    Scripted(ScriptedProvider),
}

/// The folder with the sockets. A sandbox that outlives this process sees the next one's sockets in
/// it.
struct Socket {
    folder: PathBuf,
    opened: File,
}

impl Model {
    /// Starts what the plan needs, and says how the sandbox reaches it.
    pub(super) async fn start(
        run: &Run<'_>,
        id: &SandboxId,
        access: Access,
    ) -> Result<(Self, Access), RunFailure> {
        let plan = run.plan;
        let has_service = plan.script.is_some() || plan.credentials == Credentials::Gateway;
        if !has_service && !plan.network.mode().has_proxy() {
            let nothing = Self { service: Service::Remote, proxy: None, socket: None };
            return Ok((nothing, access));
        }
        let socket = Socket::open(&run.parts.sockets, id)?;
        let proxy = way_out::proxy(run, &socket.beside(egress_file()), &access)?;
        if proxy.is_some() {
            socket.admit_the_agent(egress_file())?;
        }
        let (service, access) = match (&plan.script, plan.credentials) {
            (Some(script), _) => (scripted(script, &socket).await?, access),
            (None, Credentials::Direct) => (Service::Remote, access),
            (None, Credentials::Gateway) => behind_gateway(run, &socket, access)?,
        };
        Ok((Self { service, proxy, socket: Some(socket) }, access))
    }

    /// What the sandbox must see of it.
    pub(super) fn mounts(&self) -> Option<Mount> {
        let inside = Path::new(SCRIPTED_SOCKET).parent().unwrap_or(Path::new("/"));
        self.socket.as_ref().map(|socket| Mount {
            host: socket.folder.clone(),
            inside: inside.display().to_string(),
        })
    }

    /// Ends it, and gives what the scripted provider answered.
    pub(super) async fn stop(self) -> Vec<LedgerEntry> {
        let ledger = self.service.end().await;
        if let Some(proxy) = self.proxy {
            proxy.stop().await;
        }
        if let Some(socket) = self.socket
            && let Err(e) = std::fs::remove_dir_all(&socket.folder)
        {
            tracing::warn!(error = %e, "the socket's folder was not removed");
        }
        ledger
    }

    /// Ends it for this process alone: its sandbox stays, and the next process serves it.
    pub(super) async fn leave(self) -> Vec<LedgerEntry> {
        if let Some(proxy) = self.proxy {
            proxy.stop().await;
        }
        self.service.end().await
    }
}

async fn scripted(script: &str, socket: &Socket) -> Result<Service, RunFailure> {
    let refused = |problem: String| RunFailure::Refused { problems: vec![problem] };
    let script = Script::parse(script).map_err(|e| refused(error_chain(&e)))?;
    let place = Listen::Unix(socket.beside(file_name()));
    let server = ScriptedProvider::start(script, place).await;
    let server = server
        .map_err(|e| failed(format!("the scripted provider did not start: {}", error_chain(&e))))?;
    socket.admit_the_agent(file_name())?;
    Ok(Service::Scripted(server))
}

fn behind_gateway(
    run: &Run<'_>,
    socket: &Socket,
    access: Access,
) -> Result<(Service, Access), RunFailure> {
    let brokered = door::brokered(access, &socket.folder)?;
    let access = brokered.access.clone();
    let parts = door::gateway_parts(run, brokered, &socket.beside(file_name()))
        .map_err(|e| RunFailure::StoreFailed { detail: error_chain(&e) })?;
    let gateway = Gateway::start(parts).map_err(|e| match e {
        GatewayError::Inadmissible(e) => RunFailure::Refused { problems: vec![e.to_string()] },
        e @ GatewayError::Listen { .. } => failed(error_chain(&e)),
    })?;
    socket.admit_the_agent(file_name())?;
    Ok((Service::Gateway(gateway), access))
}

impl Service {
    async fn end(self) -> Vec<LedgerEntry> {
        match self {
            Self::Remote => Vec::new(),
            Self::Gateway(gateway) => {
                gateway.stop().await;
                Vec::new()
            }
            Self::Scripted(server) => {
                let ledger = server.ledger();
                server.stop().await;
                ledger
            }
        }
    }
}

impl Socket {
    fn open(sockets: &Path, id: &SandboxId) -> Result<Self, RunFailure> {
        let folder = sockets.join(id.as_str());
        let opened = open(sockets, &folder)
            .map_err(|e| failed(format!("no folder for the model service's socket: {e}")))?;
        Ok(Self { folder, opened })
    }

    /// The path of a socket in the folder. It has at most 107 bytes, and a state folder may be deep:
    /// this one is short, as long as the folder is open.
    fn beside(&self, name: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.opened.as_raw_fd())).join(name)
    }

    /// The agent has a user of its own; the folder's parent, which is ours alone, keeps others away.
    fn admit_the_agent(&self, name: &Path) -> Result<(), RunFailure> {
        std::fs::set_permissions(self.beside(name), Permissions::from_mode(0o666))
            .map_err(|e| failed(format!("the socket {} stays closed: {e}", name.display())))
    }
}

fn failed(detail: String) -> RunFailure {
    RunFailure::SandboxFailed { detail }
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

/// The folder, made where it is missing, without the sockets of an earlier process.
fn open(sockets: &Path, folder: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(sockets)?;
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    // The agent has a user of its own, whatever the umask of this process.
    std::fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    for name in [file_name(), egress_file()] {
        match std::fs::remove_file(folder.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
    }
    File::open(folder)
}

fn egress_file() -> &'static Path {
    Path::new(EGRESS_SOCKET).file_name().map_or(Path::new("egress.sock"), Path::new)
}

fn file_name() -> &'static Path {
    Path::new(SCRIPTED_SOCKET).file_name().map_or(Path::new("model.sock"), Path::new)
}
