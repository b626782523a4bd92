//! What a person wants of a run: stop it, or put it away.

use jiff::Timestamp;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments};

use crate::run::RunName;

use super::error::QueueError;
use super::job::Status;
use super::last_word::QUIET;
use super::row::{Columns, after};
use super::{Connection, Queue};

/// What became of the wish to stop a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// No worker had it: it is cancelled.
    AtOnce,
    /// A worker has it and will be told.
    Requested,
    /// It had ended, like this.
    AlreadyEnded(Status),
}

/// What became of the wish to change a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It has the status.
    Done,
    /// A worker has the run and will be told to stop it.
    Requested,
}

/// A run that no worker ever had has nobody who may still write about it.
const CANCEL: &str = "UPDATE jobs SET cancel_requested = 1,
    status = CASE WHEN status = 'queued' THEN 'cancelled' ELSE status END,
    finished_at = CASE WHEN status = 'queued' THEN $4 ELSE finished_at END,
    tell_at = CASE WHEN status <> 'queued' THEN tell_at WHEN attempt = 0 THEN $4 ELSE $5 END,
    updated_at = $4
    WHERE collection = $1 AND task = $2 AND id = $3
    AND status IN ('queued', 'leased', 'running', 'finishing')
    RETURNING status";

const ARCHIVE: &str = "UPDATE jobs SET status = 'archived', updated_at = $4
    WHERE collection = $1 AND task = $2 AND id = $3
    AND status IN ('completed', 'failed', 'cancelled', 'archived')
    RETURNING status";

const STATUS: &str = "SELECT status FROM jobs WHERE collection = $1 AND task = $2 AND id = $3";

impl Queue {
    /// Stops a run: at once while it waits, else by its worker.
    ///
    /// # Errors
    /// [`QueueError::NotFound`].
    pub async fn cancel(&self, name: &RunName, now: Timestamp) -> Result<Cancelled, QueueError> {
        let mut tx = self.write().await?;
        let cancel = self.moving(CANCEL, name, now).bind(after(now, QUIET));
        let Some(status) = changed(&mut tx, cancel).await? else {
            return self.status_of(&mut tx, name).await.map(Cancelled::AlreadyEnded);
        };
        tx.commit().await.map_err(QueueError::act("cancel a run"))?;
        self.wake();
        Ok(if status == Status::Cancelled { Cancelled::AtOnce } else { Cancelled::Requested })
    }

    /// Puts a run away that has ended.
    ///
    /// # Errors
    /// [`QueueError::NotFound`], or [`QueueError::IllegalMove`] when it has not ended.
    pub async fn archive(&self, name: &RunName, now: Timestamp) -> Result<(), QueueError> {
        let mut tx = self.write().await?;
        if changed(&mut tx, self.moving(ARCHIVE, name, now)).await?.is_none() {
            let from = self.status_of(&mut tx, name).await?;
            return Err(QueueError::IllegalMove { from, to: Status::Archived });
        }
        tx.commit().await.map_err(QueueError::act("archive a run"))
    }

    /// Changes a status from outside, where that is legal: anything that has not ended can be
    /// cancelled, anything that has ended can be archived. How a run ended never changes.
    ///
    /// # Errors
    /// [`QueueError::NotFound`] or [`QueueError::IllegalMove`].
    pub async fn set_status(
        &self,
        name: &RunName,
        to: Status,
        now: Timestamp,
    ) -> Result<Moved, QueueError> {
        match to {
            Status::Archived => self.archive(name, now).await.map(|()| Moved::Done),
            Status::Cancelled => match self.cancel(name, now).await? {
                Cancelled::AtOnce | Cancelled::AlreadyEnded(Status::Cancelled) => Ok(Moved::Done),
                Cancelled::Requested => Ok(Moved::Requested),
                Cancelled::AlreadyEnded(from) => Err(QueueError::IllegalMove { from, to }),
            },
            Status::Queued
            | Status::Leased
            | Status::Running
            | Status::Finishing
            | Status::Completed
            | Status::Failed => {
                let from = self.status_of(&mut *self.reader().await?, name).await?;
                if from == to { Ok(Moved::Done) } else { Err(QueueError::IllegalMove { from, to }) }
            }
        }
    }

    /// A statement whose first parameters are the run and the time.
    fn moving<'q>(
        &self,
        text: &'static str,
        name: &'q RunName,
        now: Timestamp,
    ) -> Query<'q, Sqlite, SqliteArguments> {
        sqlx::query(self.sql(text))
            .bind(name.collection.as_str())
            .bind(name.task.as_str())
            .bind(name.id.as_str())
            .bind(now.as_millisecond())
    }

    async fn status_of(
        &self,
        connection: &mut Connection,
        name: &RunName,
    ) -> Result<Status, QueueError> {
        let row = sqlx::query(self.sql(STATUS))
            .bind(name.collection.as_str())
            .bind(name.task.as_str())
            .bind(name.id.as_str())
            .fetch_optional(connection)
            .await
            .map_err(QueueError::act("look the status of a run up"))?;
        match row {
            Some(row) => Columns(&row).status(),
            None => Err(QueueError::NotFound(name.clone())),
        }
    }
}

/// The status that a statement gave a run; `None` where it changed none.
async fn changed(
    connection: &mut Connection,
    query: Query<'_, Sqlite, SqliteArguments>,
) -> Result<Option<Status>, QueueError> {
    let row = query
        .fetch_optional(connection)
        .await
        .map_err(QueueError::act("change the status of a run"))?;
    row.map(|row| Columns(&row).status()).transpose()
}
