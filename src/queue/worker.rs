//! Who takes runs out of the queue.

use jiff::Timestamp;
use uuid::Uuid;

use super::error::QueueError;
use super::grant::WorkerId;
use super::row::Columns;
use super::{Connection, Queue};

/// One process of a worker, as it introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// The worker.
    pub id: WorkerId,
    /// This process of it.
    pub session: Uuid,
    /// How many runs it works on at a time.
    pub slots: u32,
    /// The version of its program.
    pub version: String,
}

/// A worker, and when it was heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSeen {
    /// As it introduced itself last.
    pub worker: Worker,
    /// When that was.
    pub started: Timestamp,
    /// Its last heartbeat.
    pub last_seen: Timestamp,
}

const REGISTER: &str = "INSERT INTO workers (id, session, slots, version, started_at, last_seen)
    VALUES ($1, $2, $3, $4, $5, $5)
    ON CONFLICT (id) DO UPDATE SET session = excluded.session, slots = excluded.slots,
    version = excluded.version, started_at = excluded.started_at, last_seen = excluded.last_seen";

const SEEN: &str = "UPDATE workers SET last_seen = $2 WHERE id = $1";

const ALL: &str =
    "SELECT id, session, slots, version, started_at, last_seen FROM workers ORDER BY id";

impl Queue {
    /// Introduces a process of a worker.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn register(&self, worker: &Worker, now: Timestamp) -> Result<(), QueueError> {
        let failed = || QueueError::act("register a worker");
        let mut tx = self.write().await?;
        sqlx::query(self.sql(REGISTER))
            .bind(worker.id.as_str())
            .bind(worker.session.to_string())
            .bind(i64::from(worker.slots))
            .bind(&worker.version)
            .bind(now.as_millisecond())
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
        tx.commit().await.map_err(failed())
    }

    /// Notes that a worker was heard of.
    pub(super) async fn seen(
        &self,
        connection: &mut Connection,
        worker: &WorkerId,
        now: Timestamp,
    ) -> Result<(), QueueError> {
        sqlx::query(self.sql(SEEN))
            .bind(worker.as_str())
            .bind(now.as_millisecond())
            .execute(connection)
            .await
            .map_err(QueueError::act("note that a worker was heard of"))?;
        Ok(())
    }

    /// Every worker that ever introduced itself.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn workers(&self) -> Result<Vec<WorkerSeen>, QueueError> {
        let rows = sqlx::query(self.sql(ALL))
            .fetch_all(&mut *self.reader().await?)
            .await
            .map_err(QueueError::act("list the workers"))?;
        rows.iter().map(|row| Columns(row).worker()).collect()
    }
}
