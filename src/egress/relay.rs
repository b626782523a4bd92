//! The sandbox's end of the way out: what connects to a port of its loopback is joined to the
//! proxy's socket. It knows nothing and decides nothing.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Most connections at the same time, as many as the proxy serves. What is more waits in the kernel's
/// queue.
const MAX_CONNECTIONS: usize = 256;

/// After a failed `accept` (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What it says on its standard output when it listens.
pub const READY: &str = "ready";

/// There is no relay.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// It could not listen.
    #[error("the relay could not listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// It could not say so.
    #[error("the relay could not say that it listens")]
    Tell(#[source] io::Error),
}

/// Joins what connects to `listen` to the socket. It says when it listens, lets go of its standard
/// output and error, and ends with the sandbox.
///
/// # Errors
/// [`RelayError`] when it cannot listen or nobody can be told.
pub async fn relay(listen: SocketAddr, socket: &Path) -> Result<(), RelayError> {
    let listener = TcpListener::bind(listen).await;
    let listener = listener.map_err(|source| RelayError::Listen { address: listen, source })?;
    say_ready().map_err(RelayError::Tell)?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let socket: Arc<Path> = socket.into();
    let mut joined = JoinSet::new();
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("it is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let socket = Arc::clone(&socket);
                joined.spawn(async move {
                    join(stream, &socket).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
        while joined.try_join_next().is_some() {}
    }
}

/// Whoever waits reads to the end of the pipe, so it must be let go.
fn say_ready() -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{READY}")?;
    out.flush()?;
    let nowhere = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&nowhere)?;
    rustix::stdio::dup2_stderr(&nowhere)?;
    Ok(())
}

/// Joins one connection. The proxy limits how long and how much; where it is gone, the client sees an
/// end.
async fn join(mut stream: TcpStream, socket: &Path) {
    if let Ok(mut proxy) = UnixStream::connect(socket).await {
        let _ = stream.set_nodelay(true);
        let _ = copy_bidirectional(&mut stream, &mut proxy).await;
    }
}
