//! The durable queue and the index of runs: who may work on what, who wrote last, what came of it.
//!
//! Three numbers, never mixed. The `attempt` names the sandbox and grows with every lease. The
//! `fence` names the writer and grows with every grant, lease and adoption alike; every write of a
//! worker carries it, and one with an old fence is refused as [`QueueError::Lost`]. `next_off`
//! counts the bytes of the agent's output that are recorded.
//!
//! ```text
//! submit ─▶ queued ─lease─▶ leased ─started─▶ running ─finishing─▶ finishing ─finish─▶ completed
//!             ▲                │ retry, release   (finish is legal from each of the three) failed
//!             ├────────────────┘                             │                          cancelled
//!             └───────────────────── pass_on ────────────────┘
//! ```
//!
//! A run may have several steps, each with a lease of its own: a step that ended well and is not the
//! last is passed on. Where the run stands and what it used is counted over all of them.
//!
//! A worker that is silent for [`LEASE_TTL`] is shown as silent, and nothing else happens: it may
//! come back and adopt. After [`LOST_AFTER`] its runs fail. They are never started again elsewhere:
//! an agent's run costs money and has effects.

mod cancel;
mod error;
mod grant;
mod job;
mod last_word;
mod lease;
mod pass_on;
mod progress;
mod read;
mod row;
mod submit;
mod sweep;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use sqlx::{SqlStr, SqliteConnection};
use tokio::sync::watch;

use crate::database::{Database, Dialect, WriteTransaction};

pub use cancel::{Cancelled, Moved};
pub use error::QueueError;
pub use grant::{Grant, LeaseLimits, Leased, Pulse, Stage, WorkerId};
pub use job::{Cost, Ended, Job, JobUsage, Kind, Status};
pub use last_word::{QUIET, TELL_LIMIT, Untold};
pub use pass_on::{NextStep, PassedOn};
pub use progress::{Finish, Requeued};
pub use read::{Depth, Durations, ListFilter, Page, Stats};
pub use submit::{Idempotency, NewJob, RecordKind, RecordedRun, Submitted};
pub use worker::{Worker, WorkerSeen};

/// How often a worker renews its leases. Six of these fit into a lease, so that a few that are lost
/// or late mean nothing.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);

/// How long a lease lasts without being renewed. After it the worker is shown as silent.
pub const LEASE_TTL: Duration = Duration::from_secs(60);

/// How long after the end of its lease a run is given up. Long enough for a restart, an upgrade or a
/// short outage of the worker's host; short enough that nobody waits for an hour in vain.
pub const LOST_AFTER: Duration = Duration::from_secs(15 * 60);

/// How far apart two sweeps may be. A longer gap, or a step back, means that the clock jumped or
/// that this process slept: then the silence of the workers proves nothing.
pub const MAX_SWEEP_GAP: Duration = Duration::from_secs(2 * 60);

/// The word for a run whose worker was given up.
pub const WORKER_LOST: &str = "worker_lost";

/// The queue. Clones share it.
#[derive(Debug, Clone)]
pub struct Queue {
    database: Database,
    dialect: Dialect,
    changed: Arc<watch::Sender<u64>>,
    sweeps: sweep::Sweeps,
}

impl Queue {
    /// The queue in this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        let dialect = database.dialect().clone();
        Self::speaking(database, dialect)
    }

    /// The queue with its statements said in another way.
    fn speaking(database: Database, dialect: Dialect) -> Self {
        let changed = Arc::new(watch::Sender::new(0));
        Self { database, dialect, changed, sweeps: sweep::Sweeps::default() }
    }

    /// Tells when something happened that an idle worker, or one with a run to cancel, wants to
    /// know. It is a hint: who waits for it also asks from time to time.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn wake(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn sql(&self, text: &'static str) -> SqlStr {
        self.dialect.say(text)
    }

    async fn write(&self) -> Result<WriteTransaction, QueueError> {
        self.database.write().await.map_err(QueueError::Begin)
    }

    async fn reader(&self) -> Result<Reader, QueueError> {
        self.database.readers().acquire().await.map_err(QueueError::act("read the queue"))
    }
}

/// A connection that reads.
type Reader = sqlx::pool::PoolConnection<sqlx::Sqlite>;

/// A connection that reads, or the one that writes.
type Connection = SqliteConnection;
