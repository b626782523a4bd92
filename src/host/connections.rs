//! Connections to a socket of this machine: so many at once, and ended in order.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// After a failed `accept` (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections a socket serves, and how they end.
#[derive(Debug, Clone, Copy)]
pub struct Doorway {
    /// Who serves, for the log: `a gateway`.
    pub name: &'static str,
    /// Most connections at the same time, those that are kept for the next request among them.
    pub max_connections: usize,
    /// From the wish to stop to the end of the last answer. What is left is cut.
    pub stop_limit: Duration,
}

impl Doorway {
    /// Serves what connects until `stop`; then takes nothing more and lets what goes on end in time.
    /// Dropped, it ends every connection at once.
    pub async fn serve<F>(
        self,
        listener: UnixListener,
        stop: CancellationToken,
        serve: impl Fn(UnixStream) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(self.max_connections));
        let mut connections = JoinSet::new();
        loop {
            // A place first: what cannot be served waits in the kernel's queue, which is bounded.
            let place = tokio::select! {
                () = stop.cancelled() => break,
                place = Arc::clone(&places).acquire_owned() => place.expect("it is never closed"),
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let served = serve(stream);
                    connections.spawn(async move {
                        served.await;
                        drop(place);
                    });
                }
                Err(e) => {
                    tracing::warn!(error = %e, "{} takes no connection", self.name);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
        drop(listener);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.stop_limit, all_ended).await.is_err() {
            connections.shutdown().await;
        }
    }
}
