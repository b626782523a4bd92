//! The proxy of one run: it listens on the run's socket, and ends with the run.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ledger::{EgressRecord, MAX_RECORDS};
use super::policy::Policy;
use super::request;
use super::resolver::Resolver;
use crate::host::Doorway;

/// A package manager opens a few dozen connections; what is more waits in the kernel's queue.
const DOORWAY: Doorway =
    Doorway { name: "a proxy", max_connections: 256, stop_limit: Duration::from_secs(2) };

/// What a proxy is made of.
pub struct ProxyParts {
    /// Where it listens.
    pub listener: UnixListener,
    /// What may be reached.
    pub policy: Policy,
    /// How names are resolved.
    pub resolver: Resolver,
    /// The number of the run's last attempt so far.
    pub last_seq: u64,
    /// Is told of every attempt, twice of those that are let through. It must not block for long.
    pub note: Box<dyn Fn(&EgressRecord) + Send + Sync>,
    /// The time.
    pub clock: fn() -> Timestamp,
}

/// The running proxy of one run. Dropped without [`Proxy::stop`], it ends at once.
#[derive(Debug)]
pub struct Proxy {
    stop: CancellationToken,
    /// One task, which owns those of the connections: dropped, it ends them all.
    serving: JoinSet<()>,
}

/// What the attempts of one run share.
pub(super) struct Gate {
    pub(super) policy: Policy,
    pub(super) resolver: Resolver,
    pub(super) clock: fn() -> Timestamp,
    note: Box<dyn Fn(&EgressRecord) + Send + Sync>,
    last_seq: AtomicU64,
    n_bytes: AtomicU64,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Gate {
    /// The number of the next attempt; `None` when there were too many.
    pub(super) fn next_seq(&self) -> Option<u64> {
        let seq = self.last_seq.fetch_add(1, Ordering::Relaxed) + 1;
        (seq <= MAX_RECORDS).then_some(seq)
    }

    /// Tells the ledger.
    pub(super) fn note(&self, record: &EgressRecord) {
        (self.note)(record);
    }

    /// Counts bytes of the run, and says how many there are by now.
    pub(super) fn count_bytes(&self, n: u64) -> u64 {
        self.n_bytes.fetch_add(n, Ordering::Relaxed).saturating_add(n)
    }
}

impl Proxy {
    /// Serves what connects to the listener.
    #[must_use]
    pub fn start(parts: ProxyParts) -> Self {
        let ProxyParts { listener, policy, resolver, last_seq, note, clock } = parts;
        let last_seq = AtomicU64::new(last_seq);
        let gate = Gate { policy, resolver, clock, note, last_seq, n_bytes: AtomicU64::new(0) };
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        let (gate, stopped) = (Arc::new(gate), stop.clone());
        let each =
            move |stream| request::serve(TokioIo::new(stream), Arc::clone(&gate), stopped.clone());
        serving.spawn(DOORWAY.serve(listener, stop.clone(), each));
        Self { stop, serving }
    }

    /// Takes no more attempts, gives answers 2 seconds and cuts the rest. Then every attempt has its
    /// last line.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // The task ends by itself: each of its waits has a limit once the token is cancelled.
        while let Some(ended) = self.serving.join_next().await {
            if let Err(e) = ended {
                tracing::error!(error = %e, "a proxy broke down");
            }
        }
    }
}
