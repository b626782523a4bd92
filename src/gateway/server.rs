//! The gateway of one run: it listens on the run's socket, and ends with the run.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::forward::answer;
use super::google::{BadKey, Mint};
use super::ledger::{GatewayRecord, MAX_RECORDS};
use super::refusal::Refusal;
use super::room::Room;
use super::upstream::{Inadmissible, Upstream, admit};
use crate::guard::Guard;
use crate::host::Doorway;
use crate::provider::{Credential, Route};
use crate::run::ProviderTools;
use crate::secret::{Redactor, Secret};
use crate::spend::Purse;

/// An agent with sub-agents has a dozen connections; whatever else the sandbox opens waits in the
/// kernel's queue.
const DOORWAY: Doorway =
    Doorway { name: "a gateway", max_connections: 256, stop_limit: STOP_LIMIT };

/// From a connection's start, or its last answer, to the end of the next request's head. Longer than
/// the agent CLI's longest tool call, so that it does not meet a connection that was closed a moment
/// ago.
const HEAD_LIMIT: Duration = Duration::from_secs(30 * 60);

/// What a connection reads at once, and the longest head of a request, in bytes. The agent CLI's has
/// about two thousand.
const MAX_BUFFER_BYTES: usize = 64 << 10;

/// From the wish to stop to the end of the last answer. What is left is cut.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(2);

/// There is no gateway.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// It could not listen.
    #[error("the gateway could not listen on the socket `{path}`", path = path.display())]
    Listen {
        /// The socket file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It must not ask its model service.
    #[error(transparent)]
    Inadmissible(#[from] Inadmissible),
    /// It cannot show who asks.
    #[error(transparent)]
    Key(#[from] BadKey),
}

/// What a gateway is made of.
pub struct GatewayParts {
    /// Whose it is.
    pub run: String,
    /// The socket file. It must not be there yet.
    pub socket: PathBuf,
    /// Where requests go, and as whom.
    pub route: Route,
    /// What the sandbox must show.
    pub token: Secret,
    /// What the service may do itself, on a network of its own.
    pub provider_tools: ProviderTools,
    /// Asks the service.
    pub upstream: Upstream,
    /// Looks through prompts, where guardrails are set.
    pub guard: Option<Guard>,
    /// What its requests may take; `None` lets everything pass uncounted.
    pub purse: Option<Purse>,
    /// The number of the run's last request so far.
    pub last_seq: u64,
    /// Is told of every request, twice of those that go on. It must not block for long.
    pub note: Box<dyn Fn(&GatewayRecord) + Send + Sync>,
    /// The time.
    pub clock: fn() -> Timestamp,
}

/// The running gateway of one run. Dropped without [`Gateway::stop`], it ends at once.
#[derive(Debug)]
pub struct Gateway {
    stop: CancellationToken,
    /// One task, which owns those of the connections: dropped, it ends them all.
    serving: JoinSet<()>,
    purse: Option<Purse>,
}

/// What the requests of one run share.
pub(super) struct Gate {
    pub(super) run: String,
    pub(super) route: Route,
    pub(super) token: Secret,
    pub(super) provider_tools: ProviderTools,
    pub(super) upstream: Upstream,
    pub(super) purse: Option<Purse>,
    pub(super) redactor: Redactor,
    pub(super) room: Room,
    pub(super) guard: Option<Guard>,
    mint: Option<Mint>,
    pub(super) clock: fn() -> Timestamp,
    note: Box<dyn Fn(&GatewayRecord) + Send + Sync>,
    last_seq: AtomicU64,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("run", &self.run).finish_non_exhaustive()
    }
}

impl Gate {
    /// The number of the next request; `None` when there were too many.
    pub(super) fn next_seq(&self) -> Option<u64> {
        let seq = self.last_seq.fetch_add(1, Ordering::Relaxed) + 1;
        (seq <= MAX_RECORDS).then_some(seq)
    }

    /// As whom the service is asked now.
    pub(super) async fn credential(&self) -> Result<Credential, Refusal> {
        match &self.mint {
            None => Ok(self.route.credential.clone()),
            Some(mint) => {
                self.upstream.look_at(mint.place()).await?;
                let token = mint.token(&self.upstream.client, (self.clock)()).await?;
                Ok(Credential::Bearer(token))
            }
        }
    }

    /// Tells the ledger.
    pub(super) fn note(&self, record: &GatewayRecord) {
        (self.note)(record);
    }
}

impl Gateway {
    /// Listens, and passes on what may pass.
    ///
    /// # Errors
    /// [`GatewayError`] when the socket cannot be made.
    pub fn start(parts: GatewayParts) -> Result<Self, GatewayError> {
        parts.route.places().try_for_each(|place| admit(place, parts.upstream.reach))?;
        let mint = mint(&parts.route.credential)?;
        let GatewayParts { run, socket, route, token, provider_tools, .. } = parts;
        let GatewayParts { upstream, guard, purse, last_seq, note, clock, .. } = parts;
        let listener = UnixListener::bind(&socket)
            .map_err(|source| GatewayError::Listen { path: socket, source })?;
        let credential = &route.credential;
        let redactor = Redactor::new(credential.secret().into_iter().chain(credential.session()));
        let last_seq = AtomicU64::new(last_seq);
        let kept = purse.clone();
        let gate = Gate {
            run,
            route,
            token,
            provider_tools,
            upstream,
            purse,
            redactor,
            room: Room::default(),
            guard,
            mint,
            clock,
            note,
            last_seq,
        };
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        let (gate, stopped) = (Arc::new(gate), stop.clone());
        let each = move |stream| connection(stream, Arc::clone(&gate), stopped.clone());
        serving.spawn(DOORWAY.serve(listener, stop.clone(), each));
        Ok(Self { stop, serving, purse: kept })
    }

    /// Takes no more requests, lets answers end for 2 seconds and cuts the rest. Then every request
    /// has its last line.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // The task ends by itself: each of its waits has a limit once the token is cancelled.
        while let Some(ended) = self.serving.join_next().await {
            if let Err(e) = ended {
                tracing::error!(error = %e, "a gateway broke down");
            }
        }
        self.settle().await;
    }

    /// Ends at once. What was on its way is cut.
    pub async fn cut(mut self) {
        self.serving.shutdown().await;
        self.settle().await;
    }

    /// Waits until what has ended is settled.
    async fn settle(&self) {
        if let Some(purse) = &self.purse {
            purse.close().await;
        }
    }
}

fn mint(credential: &Credential) -> Result<Option<Mint>, BadKey> {
    match credential {
        Credential::ServiceAccount { key_file, token_uri } => {
            Mint::new(key_file, token_uri.clone()).map(Some)
        }
        Credential::ApiKey(_) | Credential::Bearer(_) | Credential::Aws(_) | Credential::None => {
            Ok(None)
        }
    }
}

async fn connection(stream: UnixStream, gate: Arc<Gate>, stop: CancellationToken) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let gate = Arc::clone(&gate);
        async move { Ok::<_, Infallible>(answer(gate, request.map(Body::new)).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        // The agent went away, or somebody in the sandbox does not speak HTTP. Nobody has to act.
        tracing::debug!(error = %e, "a connection of a gateway broke");
    }
}
