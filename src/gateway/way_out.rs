//! The proxy of a run whose sandbox has no other way out, beside the run's gateway or, where a run
//! has none, in the server.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::net::UnixListener;

use super::book::Book;
use super::place::Place;
use crate::egress::{EgressRecord, Policy, Proxy, ProxyParts, Resolver};
use crate::secret::{Redactor, Secret};

/// What a proxy is to do. Part of a gateway's order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EgressOrder {
    /// What may be reached.
    pub policy: Policy,
    /// How names are resolved.
    pub resolver: Resolver,
    /// The file with a line for each attempt.
    pub ledger: PathBuf,
    /// The number of the run's last attempt so far.
    pub last_seq: u64,
    /// What no line may hold: a host can be made of a secret.
    #[serde(serialize_with = "exposed", deserialize_with = "hidden")]
    pub masked: Vec<Secret>,
}

/// A proxy that serves.
#[derive(Debug)]
pub struct WayOut {
    proxy: Proxy,
    book: Arc<Mutex<Book>>,
}

impl WayOut {
    /// Serves a place. Its socket takes the place of the one before it in one step, open to
    /// everybody: the agent and the relay have users of their own, and the folder above is ours
    /// alone.
    ///
    /// # Errors
    /// When the socket or the ledger cannot be had.
    pub fn open(order: EgressOrder, place: &Place, clock: fn() -> Timestamp) -> io::Result<Self> {
        let EgressOrder { policy, resolver, ledger, last_seq, masked } = order;
        let book = Arc::new(Mutex::new(Book::open(&ledger, Redactor::new(&masked))?));
        let socket = place.egress()?;
        let fresh = socket.beside("egress.new");
        match std::fs::remove_file(&fresh) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&fresh)?;
        std::fs::set_permissions(&fresh, Permissions::from_mode(0o666))?;
        std::fs::rename(&fresh, socket.as_path())?;
        let told = Arc::clone(&book);
        let note = Box::new(move |record: &EgressRecord| note(&told, record));
        let parts = ProxyParts { listener, policy, resolver, last_seq, note, clock };
        Ok(Self { proxy: Proxy::start(parts), book })
    }

    /// Ends it, and sees to it that every attempt has its last line.
    pub async fn stop(self) {
        self.proxy.stop().await;
        if let Err(e) = self.book.lock().unwrap_or_else(PoisonError::into_inner).sync() {
            tracing::error!(error = %e, "the ledger of a proxy may not be on the disk");
        }
    }
}

fn note(book: &Mutex<Book>, record: &EgressRecord) {
    let written = book.lock().unwrap_or_else(PoisonError::into_inner).write(record);
    if let Err(e) = written {
        tracing::error!(error = %e, "an attempt of an agent is not in its ledger");
    }
}

fn exposed<S: Serializer>(secrets: &[Secret], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(secrets.iter().map(Secret::expose))
}

fn hidden<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Secret>, D::Error> {
    Ok(Vec::<String>::deserialize(from)?.into_iter().map(Secret::new).collect())
}
