//! Between rows and values.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{ColumnIndex, Decode, Row as _, Sqlite, Type};

use crate::run::{RunId, RunName, Slug};

use super::error::QueueError;
use super::grant::{Grant, Leased, Stage, WorkerId};
use super::job::{Cost, Job, JobUsage, Kind, Status};
use super::worker::{Worker, WorkerSeen};

/// A row that is read by the names of its columns.
pub(super) struct Columns<'r>(pub(super) &'r SqliteRow);

impl<'r> Columns<'r> {
    pub(super) fn get<T>(&self, column: &'static str) -> Result<T, QueueError>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite>,
        &'static str: ColumnIndex<SqliteRow>,
    {
        self.0.try_get(column).map_err(QueueError::act("read a row of the queue"))
    }

    pub(super) fn count(&self, column: &'static str) -> Result<u64, QueueError> {
        let n: i64 = self.get(column)?;
        u64::try_from(n).map_err(|_| unreadable(column, n))
    }

    fn maybe_count(&self, column: &'static str) -> Result<Option<u64>, QueueError> {
        let n: Option<i64> = self.get(column)?;
        n.map(|n| u64::try_from(n).map_err(|_| unreadable(column, n))).transpose()
    }

    fn time(&self, column: &'static str) -> Result<Timestamp, QueueError> {
        timestamp(column, self.get(column)?)
    }

    fn maybe_time(&self, column: &'static str) -> Result<Option<Timestamp>, QueueError> {
        let ms: Option<i64> = self.get(column)?;
        ms.map(|ms| timestamp(column, ms)).transpose()
    }

    pub(super) fn name(&self) -> Result<RunName, QueueError> {
        let collection: &str = self.get("collection")?;
        let task: &str = self.get("task")?;
        let id: &str = self.get("id")?;
        Ok(RunName {
            collection: Slug::new(collection).map_err(|_| unreadable("collection", collection))?,
            task: Slug::new(task).map_err(|_| unreadable("task", task))?,
            id: RunId::new(id).map_err(|_| unreadable("id", id))?,
        })
    }

    pub(super) fn status(&self) -> Result<Status, QueueError> {
        Status::read(self.get("status")?)
    }

    pub(super) fn flag(&self, column: &'static str) -> Result<bool, QueueError> {
        self.count(column).map(|n| n != 0)
    }

    /// The run with the grant that the row tells.
    pub(super) fn leased(&self) -> Result<Leased, QueueError> {
        let next_off = self.count("next_off")?;
        let started = self.maybe_time("started_at")?;
        let ending: Option<String> = self.get("ending")?;
        let stage = match (ending, started) {
            (Some(ending), started) => Stage::Finishing { started, next_off, ending },
            (None, Some(at)) => Stage::Started { at, next_off },
            (None, None) => Stage::Fresh,
        };
        Ok(Leased {
            grant: Grant {
                name: self.name()?,
                attempt: self.count("attempt")?,
                fence: self.count("fence")?,
            },
            spec: self.get("spec")?,
            sealed: self.get("sealed")?,
            session_id: self.get("session_id")?,
            step: self.count("step")?,
            used: self.usage()?,
            took: Duration::from_millis(self.maybe_count("duration_ms")?.unwrap_or_default()),
            stage,
            cancel_requested: self.flag("cancel_requested")?,
            created: self.time("created_at")?,
        })
    }

    pub(super) fn job(&self) -> Result<Job, QueueError> {
        let worker: Option<String> = self.get("lease_owner")?;
        let retries = self.count("retries")?;
        Ok(Job {
            name: self.name()?,
            kind: Kind::read(self.get("kind")?)?,
            status: self.status()?,
            reason: self.get("reason")?,
            attempt: self.count("attempt")?,
            retries: u32::try_from(retries).map_err(|_| unreadable("retries", retries))?,
            priority: self.get("priority")?,
            run_at: self.time("run_at")?,
            worker: worker.map(WorkerId::new),
            lease_expires: self.maybe_time("lease_expires")?,
            cancel_requested: self.flag("cancel_requested")?,
            session_id: self.get("session_id")?,
            exit_code: self.get("exit_code")?,
            triggered_by_routine: self.get("triggered_by_routine")?,
            usage: self.usage()?,
            duration_ms: self.maybe_count("duration_ms")?,
            created: self.time("created_at")?,
            step: self.count("step")?,
            started: match self.maybe_time("begun_at")? {
                Some(begun) => Some(begun),
                None => self.maybe_time("started_at")?,
            },
            finished: self.maybe_time("finished_at")?,
            updated: self.time("updated_at")?,
        })
    }

    pub(super) fn worker(&self) -> Result<WorkerSeen, QueueError> {
        let session: &str = self.get("session")?;
        let slots = self.count("slots")?;
        let worker = Worker {
            id: WorkerId::new(self.get("id")?),
            session: session.parse().map_err(|_| unreadable("session", session))?,
            slots: u32::try_from(slots).map_err(|_| unreadable("slots", slots))?,
            version: self.get("version")?,
        };
        let started = self.time("started_at")?;
        Ok(WorkerSeen { worker, started, last_seen: self.time("last_seen")? })
    }

    fn usage(&self) -> Result<JobUsage, QueueError> {
        let micros = self.maybe_count("cost_micros")?;
        let basis: &str = self.get("cost_basis")?;
        let cost = match (basis, micros) {
            ("unknown", None) => Cost::Unknown,
            ("reported", Some(micros)) => Cost::Reported(micros),
            ("estimated", Some(micros)) => Cost::Estimated(micros),
            (basis, _) => return Err(unreadable("cost_basis", basis)),
        };
        Ok(JobUsage {
            input_tokens: self.count("input_tokens")?,
            output_tokens: self.count("output_tokens")?,
            cache_read_tokens: self.count("cache_read_tokens")?,
            cache_write_tokens: self.count("cache_write_tokens")?,
            cost,
        })
    }
}

fn unreadable(column: &'static str, found: impl ToString) -> QueueError {
    QueueError::Unreadable { column, found: found.to_string() }
}

fn timestamp(column: &'static str, ms: i64) -> Result<Timestamp, QueueError> {
    Timestamp::from_millisecond(ms).map_err(|_| unreadable(column, ms))
}

/// A count for the database. One beyond what it can hold is no count of anything real.
pub(super) fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A length of time in milliseconds.
pub(super) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The moment so long after another, in milliseconds.
pub(super) fn after(now: Timestamp, duration: Duration) -> i64 {
    now.as_millisecond().saturating_add(milliseconds(duration))
}
