//! The server: one listener, a bounded set of connections, and an orderly end.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::connection;
use super::ledger::{Ledger, LedgerEntry, SentUsage};
use super::script::Script;

/// Most connections at once. An agent CLI with sub-agents holds a handful.
const MAX_CONNECTIONS: usize = 256;

/// Longest life of a connection, and so of a request that hangs. Longer than any run.
const CONNECTION_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest silence between two requests of a connection. Longer than the agent CLI's longest tool
/// call (10 minutes), so that it does not meet a connection that was closed a moment ago.
const IDLE_LIMIT: Duration = Duration::from_secs(30 * 60);

/// From the wish to stop to the end of the last reply. What is left is cut.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// After a failed `accept` (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a provider listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A socket file. It must not be there yet, and is removed at the end.
    Unix(PathBuf),
    /// An address; port 0 takes a free one.
    Tcp(SocketAddr),
}

/// The provider could not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The socket file could not be made.
    #[error("the scripted provider could not listen on the socket `{path}`", path = path.display())]
    Unix {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The address could not be taken.
    #[error("the scripted provider could not listen on {address}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// A running scripted provider. Dropped without [`ScriptedProvider::stop`], it ends at once.
#[derive(Debug)]
pub struct ScriptedProvider {
    address: Listen,
    shared: Arc<Shared>,
    stop: CancellationToken,
    /// One task, which owns the tasks of the connections: dropped, it ends them all.
    serving: JoinSet<()>,
    /// Removes the socket file, whatever way the provider ends.
    _socket_file: Option<SocketFile>,
}

impl ScriptedProvider {
    /// Starts to answer by `script`.
    ///
    /// # Errors
    /// [`ListenError`] when the address or the file cannot be taken.
    pub async fn start(script: Script, listen: Listen) -> Result<Self, ListenError> {
        let (listener, address) = bind(listen).await?;
        let shared = Arc::new(Shared { script, ledger: Mutex::default() });
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&shared), stop.clone()));
        let socket_file = match &address {
            Listen::Unix(path) => Some(SocketFile(path.clone())),
            Listen::Tcp(_) => None,
        };
        Ok(Self { address, shared, stop, serving, _socket_file: socket_file })
    }

    /// Where it listens, with the port that was taken.
    #[must_use]
    pub fn address(&self) -> &Listen {
        &self.address
    }

    /// All requests so far, in the order in which they were read.
    #[must_use]
    pub fn ledger(&self) -> Vec<LedgerEntry> {
        self.shared.ledger().entries().to_vec()
    }

    /// The sum of what the replies said about usage, by the model that was asked for. A reply
    /// counts ([`LedgerEntry::counted_usage`]) when it is a message that was handed over whole;
    /// failures, `raw` replies, streams that were cut or ended with an error, and replies that
    /// were abandoned do not.
    #[must_use]
    pub fn usage_by_model(&self) -> BTreeMap<String, SentUsage> {
        self.shared.ledger().usage_by_model()
    }

    /// Takes no more requests, lets running replies end for 2 seconds, cuts the rest, and gives
    /// the ledger as it is then.
    pub async fn stop(mut self) -> Vec<LedgerEntry> {
        self.stop.cancel();
        // The task ends by itself: each of its waits has a limit once the token is cancelled.
        while let Some(ended) = self.serving.join_next().await {
            report(ended);
        }
        self.ledger()
    }
}

/// What the connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) script: Script,
    /// Shared because each request writes into it and the owner reads it meanwhile.
    ledger: Mutex<Ledger>,
}

impl Shared {
    /// The ledger, also after a panic in another request: its entries stay true.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            debug!(error = %error, "the scripted provider's socket was already gone");
        }
    }
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Without it, small deltas wait for each other and live output stutters.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

async fn bind(listen: Listen) -> Result<(Listener, Listen), ListenError> {
    match listen {
        Listen::Unix(path) => match UnixListener::bind(&path) {
            Ok(listener) => Ok((Listener::Unix(listener), Listen::Unix(path))),
            Err(source) => Err(ListenError::Unix { path, source }),
        },
        Listen::Tcp(address) => {
            let failed = |source| ListenError::Tcp { address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            let taken = listener.local_addr().map_err(failed)?;
            Ok((Listener::Tcp(listener), Listen::Tcp(taken)))
        }
    }
}

/// Accepts connections until `stop`, then waits for them, but not for long.
async fn serve(listener: Listener, shared: Arc<Shared>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let has_room = connections.len() < MAX_CONNECTIONS;
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                report(ended);
                continue;
            }
            accepted = listener.accept(), if has_room => accepted,
        };
        match accepted {
            Ok(Stream::Unix(stream)) => {
                connections.spawn(converse(stream, Arc::clone(&shared), stop.clone()));
            }
            Ok(Stream::Tcp(stream)) => {
                connections.spawn(converse(stream, Arc::clone(&shared), stop.clone()));
            }
            Err(error) => {
                warn!(error = %error, "the scripted provider could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if timeout(STOP_LIMIT, all_ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// A task of ours ends by itself or in a panic, which must not pass unseen.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        warn!(error = %error, "a task of the scripted provider ended in a panic");
    }
}

/// Answers the requests of one connection until it ends.
async fn converse<S>(stream: S, shared: Arc<Shared>, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request| connection::answer(Arc::clone(&shared), request));
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    let mut conversation = pin!(conversation);
    let to_its_end = async {
        tokio::select! {
            ended = conversation.as_mut() => return ended,
            () = stop.cancelled() => conversation.as_mut().graceful_shutdown(),
        }
        conversation.await
    };
    match timeout(CONNECTION_LIMIT, to_its_end).await {
        Ok(Ok(())) => {}
        // Cut by the script or by the client: the ledger has it.
        Ok(Err(error)) => debug!(error = %error, "a connection of the scripted provider broke"),
        Err(_) => warn!("a connection of the scripted provider was open for a day and is closed"),
    }
}
