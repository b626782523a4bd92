//! New rows: runs to do, and records of what was done elsewhere.

use jiff::Timestamp;

use crate::run::{RunName, Slug};

use super::error::QueueError;
use super::job::{Ended, JobUsage, Kind, Status};
use super::row::{Columns, number};
use super::{Connection, Queue};

/// A run to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Its name; the id is drawn by the caller.
    pub name: RunName,
    /// What to do, frozen.
    pub spec: String,
    /// The environment and the secret parameters, encrypted.
    pub sealed: Option<String>,
    /// The agent's session.
    pub session_id: Option<String>,
    /// Higher goes first; 0 is ordinary.
    pub priority: i64,
    /// Not to be leased before, where that is not at once.
    pub run_at: Option<Timestamp>,
    /// How often it may be tried, counting only tries that failed before the agent started.
    pub max_attempts: u32,
    /// What makes a repeated request the same request.
    pub idempotency: Option<Idempotency>,
    /// The routine that submits it.
    pub triggered_by_routine: Option<String>,
}

/// What makes a repeated request the same request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The client's key, unique in the collection.
    pub key: String,
    /// What the request was, in short (a digest): the same key with another one is a mistake.
    pub fingerprint: String,
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// The run waits.
    New,
    /// The same request made this run before.
    Repeated(RunName),
}

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// It was made elsewhere and handed in.
    Ingested,
    /// A conversation with a model, without a sandbox.
    Chat,
    /// A run that this database does not know: one of the foreground, or one that is found in the
    /// results directory. One that it knows is left as it is.
    Run,
}

impl From<RecordKind> for Kind {
    fn from(kind: RecordKind) -> Self {
        match kind {
            RecordKind::Ingested => Self::Ingested,
            RecordKind::Chat => Self::Chat,
            RecordKind::Run => Self::Run,
        }
    }
}

/// Something that is listed with the runs and was never queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRun {
    /// Its name; an ingested record keeps its own id.
    pub name: RunName,
    /// What it is.
    pub kind: RecordKind,
    /// How it ended.
    pub ended: Ended,
    /// Why, where it failed.
    pub reason: Option<String>,
    /// When it began to be.
    pub created: Timestamp,
    /// When it started, where that is known.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Timestamp,
    /// Token counts.
    pub usage: JobUsage,
    /// How long it took.
    pub duration_ms: Option<u64>,
    /// What was recorded, for whom it may concern.
    pub spec: String,
}

/// Both a taken name and a used key leave the table as it is.
const SUBMIT: &str = "INSERT INTO jobs (
    collection, task, id, workflow_id, kind, status, priority, run_at, attempt, retries, max_attempts,
    fence, next_off, cancel_requested, spec, sealed, session_id, idempotency_key, fingerprint,
    triggered_by_routine, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
    cost_basis, created_at, updated_at)
    VALUES ($1, $2, $3, $4, 'run', 'queued', $5, $6, 0, 0, $7, 0, 0, 0, $8, $9, $10, $11, $12, $13,
    0, 0, 0, 0, 'unknown', $14, $14)
    ON CONFLICT DO NOTHING";

const BY_KEY: &str = "SELECT collection, task, id, fingerprint FROM jobs
    WHERE collection = $1 AND idempotency_key = $2";

/// A record may be handed in again; a run of ours is never overwritten by one.
const RECORD: &str = "INSERT INTO jobs (
    collection, task, id, workflow_id, kind, status, reason, priority, run_at, attempt, retries,
    max_attempts, fence, next_off, cancel_requested, spec, input_tokens, output_tokens,
    cache_read_tokens, cache_write_tokens, cost_micros, cost_basis, duration_ms, created_at,
    started_at, finished_at, updated_at, idempotency_key, fingerprint)
    VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $16, 0, 0, 0, 0, 0, 0, $8, $9, $10, $11, $12, $13, $14,
    $15, $16, $17, $18, $19, $20, $21)
    ON CONFLICT (collection, task, id) DO UPDATE SET
    kind = excluded.kind, status = excluded.status, reason = excluded.reason, spec = excluded.spec,
    input_tokens = excluded.input_tokens, output_tokens = excluded.output_tokens,
    cache_read_tokens = excluded.cache_read_tokens,
    cache_write_tokens = excluded.cache_write_tokens, cost_micros = excluded.cost_micros,
    cost_basis = excluded.cost_basis, duration_ms = excluded.duration_ms,
    created_at = excluded.created_at, started_at = excluded.started_at,
    finished_at = excluded.finished_at, updated_at = excluded.updated_at,
    idempotency_key = COALESCE(excluded.idempotency_key, jobs.idempotency_key),
    fingerprint = COALESCE(excluded.fingerprint, jobs.fingerprint)
    WHERE jobs.kind <> 'run'";

impl Queue {
    /// Puts a run into the queue. When this returns, it is on the disk.
    ///
    /// # Errors
    /// [`QueueError::IdTaken`]: the caller draws another id.
    /// [`QueueError::IdempotencyConflict`]: the key was used for another request.
    pub async fn submit(&self, job: NewJob, now: Timestamp) -> Result<Submitted, QueueError> {
        let mut tx = self.write().await?;
        let failed = || QueueError::act("put a run into the queue");
        let idempotency = job.idempotency.as_ref();
        let inserted = sqlx::query(self.sql(SUBMIT))
            .bind(job.name.collection.as_str())
            .bind(job.name.task.as_str())
            .bind(job.name.id.as_str())
            .bind(job.name.workflow_id())
            .bind(job.priority)
            .bind(job.run_at.unwrap_or(now).as_millisecond())
            .bind(i64::from(job.max_attempts))
            .bind(&job.spec)
            .bind(job.sealed.as_deref())
            .bind(job.session_id.as_deref())
            .bind(idempotency.map(|i| i.key.as_str()))
            .bind(idempotency.map(|i| i.fingerprint.as_str()))
            .bind(job.triggered_by_routine.as_deref())
            .bind(now.as_millisecond())
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
        if inserted.rows_affected() == 0 {
            let repeated = match idempotency {
                Some(key) => self.same_request(&mut tx, &job.name.collection, key).await?,
                None => None,
            };
            return repeated
                .map_or(Err(QueueError::IdTaken(job.name)), |name| Ok(Submitted::Repeated(name)));
        }
        tx.commit().await.map_err(failed())?;
        self.wake();
        Ok(Submitted::New)
    }

    /// The run that the same request made before in a collection.
    ///
    /// # Errors
    /// [`QueueError::IdempotencyConflict`]: the key was used for another request.
    pub async fn made_before(
        &self,
        collection: &Slug,
        idempotency: &Idempotency,
    ) -> Result<Option<RunName>, QueueError> {
        let mut reader = self.reader().await?;
        self.same_request(&mut reader, collection, idempotency).await
    }

    async fn same_request(
        &self,
        connection: &mut Connection,
        collection: &Slug,
        Idempotency { key, fingerprint }: &Idempotency,
    ) -> Result<Option<RunName>, QueueError> {
        let row = sqlx::query(self.sql(BY_KEY))
            .bind(collection.as_str())
            .bind(key)
            .fetch_optional(connection)
            .await
            .map_err(QueueError::act("look an idempotency key up"))?;
        let Some(row) = row else { return Ok(None) };
        let columns = Columns(&row);
        let name = columns.name()?;
        let found: &str = columns.get("fingerprint")?;
        if found == fingerprint {
            Ok(Some(name))
        } else {
            Err(QueueError::IdempotencyConflict(name))
        }
    }

    /// Lists something that was never queued. Handed in again, it replaces itself.
    ///
    /// # Errors
    /// [`QueueError::IdTaken`] when a run that was queued or recorded here has the name.
    pub async fn record(&self, run: RecordedRun, now: Timestamp) -> Result<(), QueueError> {
        self.record_once(run, None, now).await.map(|_| ())
    }

    /// [`Queue::record`], but where the same request recorded something before, nothing is changed.
    ///
    /// # Errors
    /// [`QueueError::IdTaken`] as there; [`QueueError::IdempotencyConflict`]: the key was used for
    /// another request.
    pub async fn record_once(
        &self,
        run: RecordedRun,
        idempotency: Option<&Idempotency>,
        now: Timestamp,
    ) -> Result<Submitted, QueueError> {
        let failed = || QueueError::act("record a run");
        let mut tx = self.write().await?;
        if let Some(key) = idempotency
            && let Some(name) = self.same_request(&mut tx, &run.name.collection, key).await?
        {
            return Ok(Submitted::Repeated(name));
        }
        let written = sqlx::query(self.sql(RECORD))
            .bind(run.name.collection.as_str())
            .bind(run.name.task.as_str())
            .bind(run.name.id.as_str())
            .bind(run.name.workflow_id())
            .bind(Kind::from(run.kind).as_str())
            .bind(Status::from(run.ended).as_str())
            .bind(run.reason.as_deref())
            .bind(&run.spec)
            .bind(number(run.usage.input_tokens))
            .bind(number(run.usage.output_tokens))
            .bind(number(run.usage.cache_read_tokens))
            .bind(number(run.usage.cache_write_tokens))
            .bind(run.usage.cost.micros().map(number))
            .bind(run.usage.cost.basis())
            .bind(run.duration_ms.map(number))
            .bind(run.created.as_millisecond())
            .bind(run.started.map(Timestamp::as_millisecond))
            .bind(run.finished.as_millisecond())
            .bind(now.as_millisecond())
            .bind(idempotency.map(|i| i.key.as_str()))
            .bind(idempotency.map(|i| i.fingerprint.as_str()))
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
        if written.rows_affected() == 0 {
            return Err(QueueError::IdTaken(run.name));
        }
        tx.commit().await.map_err(failed())?;
        Ok(Submitted::New)
    }
}
