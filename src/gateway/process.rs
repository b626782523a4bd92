//! The process of one run's gateway, from its order to its end. It outlives the server as the sandbox
//! does, and ends by itself where nobody ends it.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior, setsid};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixListener;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::book::Book;
use super::control::{CONTROL_VERSION, Control, Parting, Who};
use super::launch::FirstWord;
use super::ledger::GatewayRecord;
use super::order::{GatewayOrder, MAX_ORDER_BYTES, PurseOrder};
use super::place::{Identity, Place};
use super::server::{Gateway, GatewayError, GatewayParts};
use super::upstream::{Upstream, UpstreamError};
use super::way_out::WayOut;
use crate::guard::Guard;
use crate::run::{Slug, error_chain};
use crate::secret::Redactor;
use crate::spend::{Purse, Spend, SpendError};

/// How long the order may take to come. The server is on this machine.
const ORDER_LIMIT: Duration = Duration::from_secs(30);

/// How often it is looked whether the run's folder is there.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// A gateway's process that does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// What keeps others from reading its memory could not be had.
    #[error("the process cannot be closed to others")]
    Close(#[source] Errno),
    /// No order came.
    #[error("there is no order on standard input: the server starts gateways, nobody else")]
    NoOrder(#[source] io::Error),
    /// The order cannot be read.
    #[error("the order cannot be read")]
    Order(#[source] serde_json::Error),
    /// Another gateway serves the place.
    #[error("another gateway serves the run")]
    Busy,
    /// A file or a socket of the place cannot be had.
    #[error("the run's folder for its model service cannot be used")]
    Place(#[source] io::Error),
    /// The ledger cannot be written.
    #[error("the ledger cannot be opened")]
    Ledger(#[source] io::Error),
    /// There is no client for model services.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// Nobody knows what is spent.
    #[error(transparent)]
    Spend(#[from] SpendError),
    /// It cannot serve.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
}

/// Closes this process to others of the same user, and takes it out of its starter's session: neither
/// a debugger nor a terminal's Ctrl-C is for it.
///
/// # Errors
/// [`ProcessError::Close`].
pub fn withdraw() -> Result<(), ProcessError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(ProcessError::Close)?;
    // Where it leads a group already there is no terminal to leave.
    let _ = setsid();
    Ok(())
}

/// Reads the order from standard input, to its end.
///
/// # Errors
/// [`ProcessError`] when there is none.
pub async fn receive() -> Result<GatewayOrder, ProcessError> {
    let read = async {
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        let mut order = Vec::new();
        let pipe = pipe::Receiver::from_owned_fd(stdin)?;
        pipe.take(MAX_ORDER_BYTES).read_to_end(&mut order).await?;
        Ok(order)
    };
    let read = timeout(ORDER_LIMIT, read).await.unwrap_or_else(|e| Err(e.into()));
    serde_json::from_slice(&read.map_err(ProcessError::NoOrder)?).map_err(ProcessError::Order)
}

/// Says on standard output what became of the order, and lets go of it.
pub fn answer(served: &Result<Serving, ProcessError>) {
    let word = match served {
        Ok(_) => FirstWord::Ready,
        Err(ProcessError::Busy) => FirstWord::Busy,
        Err(ProcessError::Gateway(e @ (GatewayError::Inadmissible(_) | GatewayError::Key(_)))) => {
            FirstWord::Refused(error_chain(e))
        }
        Err(e) => FirstWord::Failed(error_chain(e)),
    };
    // A server that does not listen any more finds the gateway by its socket, or never.
    let _ = serde_json::to_writer(io::stdout(), &word).map(|()| io::stdout().flush());
    let nothing = OpenOptions::new().read(true).write(true).open("/dev/null");
    if let Ok(nothing) = nothing {
        let _ = rustix::stdio::dup2_stdin(&nothing);
        let _ = rustix::stdio::dup2_stdout(&nothing);
    }
}

/// A gateway that serves.
#[derive(Debug)]
pub struct Serving {
    gateway: Gateway,
    /// Where the way out of the sandbox is a proxy.
    way_out: Option<WayOut>,
    control: Control,
    book: Arc<Mutex<Book>>,
    place: Place,
    identity: Option<Identity>,
    deadline: Instant,
    /// Held for life, so that the place has one gateway.
    _lock: File,
}

impl Serving {
    /// Begins to serve a place.
    ///
    /// # Errors
    /// [`ProcessError`] when it cannot, or another one does.
    pub async fn begin(
        mut order: GatewayOrder,
        place: Place,
        clock: fn() -> Timestamp,
    ) -> Result<Self, ProcessError> {
        let lock = lock(&place)?;
        let identity = place.identity().map_err(ProcessError::Place)?;
        let credential = order.route.credential.secret().into_iter().chain([&order.token]);
        let redactor = Redactor::new(credential.chain(&order.secrets));
        let book = Book::open(&order.ledger, redactor.clone()).map_err(ProcessError::Ledger)?;
        let book = Arc::new(Mutex::new(book));
        let until_deadline = Duration::try_from(order.deadline.duration_since(clock()));
        let deadline = Instant::now() + until_deadline.unwrap_or_default();
        let who = Who {
            control: CONTROL_VERSION,
            run: order.run.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let guard = Guard::new(order.guard, redactor);
        let purse = purse(&order, clock).await?;
        let checks = Checks { guard, purse };
        let way_out = order.egress.take();
        let way_out = way_out.map(|order| WayOut::open(order, &place, clock));
        let way_out = way_out.transpose().map_err(ProcessError::Place)?;
        let gateway = open_model(order, checks, &place, Arc::clone(&book), clock)?;
        let control = listen(&place).map_err(ProcessError::Place)?;
        let control = Control::start(control, who);
        Ok(Self { gateway, way_out, control, book, place, identity, deadline, _lock: lock })
    }

    /// Serves until it is to end, and sees to it that every request has its last line.
    ///
    /// # Errors
    /// When the system does not tell of signals.
    pub async fn to_its_end(self) -> io::Result<()> {
        let Self { gateway, way_out, mut control, book, place, identity, deadline, .. } = self;
        let mut stop = signal(SignalKind::terminate())?;
        let parting = tokio::select! {
            parting = control.parting() => parting,
            _ = stop.recv() => Parting::Finish,
            () = sleep_until(deadline) => {
                tracing::warn!("the run's gateway has reached its deadline, and ends");
                Parting::Finish
            }
            () = gone(&place, identity) => Parting::Cut,
        };
        if let Some(way_out) = way_out {
            way_out.stop().await;
        }
        match parting {
            Parting::Finish => gateway.stop().await,
            Parting::Cut => gateway.cut().await,
        }
        let synced = book.lock().unwrap_or_else(PoisonError::into_inner).sync();
        if let Err(e) = synced {
            tracing::error!(error = %e, "the ledger may not be on the disk");
        }
        control.finish().await;
        Ok(())
    }
}

fn lock(place: &Place) -> Result<File, ProcessError> {
    let mut options = OpenOptions::new();
    let opened = options.create(true).append(true).mode(0o600).open(place.lock());
    let file = opened.map_err(ProcessError::Place)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(ProcessError::Busy),
        Err(e) => Err(ProcessError::Place(e.into())),
    }
}

/// What the run's requests may take. Where nothing is limited, nothing is refused because nobody can
/// count.
async fn purse(
    order: &GatewayOrder,
    clock: fn() -> Timestamp,
) -> Result<Option<Purse>, ProcessError> {
    let Some(PurseOrder { file, collection, allowance }) = &order.purse else { return Ok(None) };
    let collection = Slug::new(collection).map_err(|e| ProcessError::Place(io::Error::other(e)))?;
    let opened = async {
        let spend = Spend::open(file).await?;
        Purse::of_run(spend, (collection, order.run.clone()), *allowance, clock).await
    };
    match opened.await {
        Ok(purse) => Ok(Some(purse)),
        Err(e) if allowance.is_none() => {
            tracing::warn!(error = %error_chain(&e), "the requests of a run are not counted");
            Ok(None)
        }
        Err(e) => Err(e.into()),
    }
}

/// What stands between a request and the service, where its run has it.
struct Checks {
    guard: Option<Guard>,
    purse: Option<Purse>,
}

/// Serves the agent. Its socket takes the place of the one before it in one step, open to everybody:
/// the agent has a user of its own, and the folder above is ours alone.
fn open_model(
    order: GatewayOrder,
    Checks { guard, purse }: Checks,
    place: &Place,
    book: Arc<Mutex<Book>>,
    clock: fn() -> Timestamp,
) -> Result<Gateway, ProcessError> {
    let GatewayOrder { run, route, token, reach, provider_tools, last_seq, .. } = order;
    let socket = place.model().map_err(ProcessError::Place)?;
    let fresh = socket.beside("model.new");
    remove(&fresh).map_err(ProcessError::Place)?;
    let gateway = Gateway::start(GatewayParts {
        run,
        socket: fresh.clone(),
        route,
        token,
        provider_tools,
        purse,
        upstream: Upstream::new(reach)?,
        guard,
        last_seq,
        note: Box::new(move |record| note(&book, record)),
        clock,
    })?;
    let shown = std::fs::set_permissions(&fresh, Permissions::from_mode(0o666))
        .and_then(|()| std::fs::rename(&fresh, socket.as_path()));
    shown.map_err(ProcessError::Place)?;
    Ok(gateway)
}

fn note(book: &Mutex<Book>, record: &GatewayRecord) {
    let written = book.lock().unwrap_or_else(PoisonError::into_inner).write(record);
    if let Err(e) = written {
        tracing::error!(error = %e, "a request of an agent is not in its ledger");
    }
}

fn listen(place: &Place) -> io::Result<UnixListener> {
    let control = place.control()?;
    remove(control.as_path())?;
    UnixListener::bind(control.as_path())
}

fn remove(path: &std::path::Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Waits until the run's folder is gone, or another one has its path.
async fn gone(place: &Place, identity: Option<Identity>) {
    loop {
        sleep(LOOK_EVERY).await;
        match place.identity() {
            Ok(found) if found == identity => {}
            Ok(_) => return,
            Err(e) => tracing::warn!(error = %e, "the run's folder cannot be looked at"),
        }
    }
}
