//! The two doors of the API: the address for clients, and the operator's socket.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use super::foundation::Foundation;
use super::parts::Parts;
use crate::api::{ConnectionLimits, operator_router, router, serve, without_delay};
use crate::telemetry::meters;

/// Connections of the operator at the same time: a person at a terminal, and scripts.
const MAX_OPERATOR_CONNECTIONS: usize = 16;

/// How often samples are folded into the figures, so that they do not pile up between scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// A door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The address is in use, or not of this machine.
    #[error("could not listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The operator's socket could not be made.
    #[error("could not make the operator's socket `{}`", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Both doors, open: clients can connect, and are served once the parts run.
#[derive(Debug)]
pub struct Doors {
    clients: TcpListener,
    operator: UnixListener,
    address: SocketAddr,
}

impl Doors {
    /// Opens both doors.
    ///
    /// # Errors
    /// [`DoorError`].
    pub async fn open(address: SocketAddr, socket: &Path) -> Result<Self, DoorError> {
        let listen = |source| DoorError::Listen { address, source };
        let clients = TcpListener::bind(address).await.map_err(listen)?;
        let address = clients.local_addr().map_err(listen)?;
        Ok(Self { clients, operator: operator_listener(socket)?, address })
    }

    /// The address, with the port that was given where none was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds what answers to the parts.
    pub fn serve(self, foundation: &Foundation, limits: ConnectionLimits, parts: &mut Parts) {
        meters::start();
        let api = Arc::clone(&foundation.api);
        parts.surface("server", |stop| {
            serve(without_delay(self.clients), router(api), limits, stop)
        });
        let api = Arc::clone(&foundation.api);
        parts.surface("operator's door", |stop| {
            let max = MAX_OPERATOR_CONNECTIONS;
            let limits = ConnectionLimits { max, max_per_address: max };
            serve(self.operator, operator_router(api), limits, stop)
        });
        let api = Arc::clone(&foundation.api);
        parts.surface("streams", |stop| async move {
            stop.cancelled().await;
            tokio::join!(api.runs.followers.end(), api.chats.end());
        });
        let api = Arc::clone(&foundation.api);
        parts.surface("intake", |stop| async move {
            stop.cancelled().await;
            api.runs.intake.end().await;
        });
        parts.surface("upkeep of the figures", upkeep);
    }
}

/// The socket lies in a folder that only its owner can open. Whatever has its name is from a process
/// that is gone: the database's lock says that there is no other.
fn operator_listener(path: &Path) -> Result<UnixListener, DoorError> {
    let failed = |source| DoorError::Socket { path: path.to_owned(), source };
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    UnixListener::bind(path).map_err(failed)
}

async fn upkeep(stop: CancellationToken) {
    let mut tick = tokio::time::interval(UPKEEP_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => meters::upkeep(),
        }
    }
}
