//! Which routines are due, and who may run them: each slot once, however many servers ask.

use jiff::Timestamp;

use super::Catalog;
use super::error::CatalogError;
use super::routines::{Routine, routine};
use super::row::number;

/// How many routines are told as due at once. The rest is due at the next question.
const MAX_DUE: i64 = 100;

/// A routine that is due.
#[derive(Debug, Clone, PartialEq)]
pub struct Fire {
    /// The routine.
    pub routine: Routine,
    /// The slot that is due. Earlier ones that were missed are not made up for.
    pub slot: Timestamp,
}

impl Fire {
    /// A key that is the same for everyone who finds this slot due. Who submits its run with this
    /// key and then claims the slot runs it exactly once, wherever they die in between. A slot
    /// whose run cannot be submitted is claimed too, or it is due for ever.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        format!("routine:{}:{}", self.routine.id, self.slot.as_millisecond())
    }
}

/// What is due.
#[derive(Debug, Default)]
pub struct Due {
    /// The routines, the longest waiting first.
    pub fires: Vec<Fire>,
    /// Rows that could not be read. They must not stop the others.
    pub broken: Vec<CatalogError>,
}

const DUE: &str = "SELECT routines.*, tasks.name AS task_name FROM routines
    JOIN tasks ON tasks.collection = routines.collection AND tasks.folded = routines.task
    WHERE routines.paused = 0 AND routines.next_slot <= $1
    ORDER BY routines.next_slot, routines.id LIMIT $2";
const NEXT: &str = "SELECT MIN(next_slot) AS next_slot FROM routines WHERE paused = 0";

/// Only who still sees the routine as it was when it was found due gets the slot.
const CLAIM: &str = "UPDATE routines SET last_slot = $2, next_slot = $3
    WHERE id = $1 AND paused = 0 AND revision = $4 AND last_slot = $5";

impl Catalog {
    /// The routines that are due.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub async fn due(&self, now: Timestamp) -> Result<Due, CatalogError> {
        let rows = sqlx::query(DUE)
            .bind(now.as_millisecond())
            .bind(MAX_DUE)
            .fetch_all(&mut *self.reader().await?)
            .await
            .map_err(CatalogError::act("look for routines that are due"))?;
        let mut due = Due::default();
        for row in &rows {
            match routine(row) {
                Ok(routine) => match routine.cadence.latest(routine.last_slot, now) {
                    Some(slot) => due.fires.push(Fire { routine, slot }),
                    // Its time zone has new rules since its next slot was noted.
                    None => self.move_on(&routine, routine.last_slot, now).await.map(|_| ())?,
                },
                Err(error) => due.broken.push(error),
            }
        }
        Ok(due)
    }

    /// When the next routine is due; `None` when there is none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn next_slot(&self) -> Result<Option<Timestamp>, CatalogError> {
        let row = sqlx::query(NEXT)
            .fetch_one(&mut *self.reader().await?)
            .await
            .map_err(CatalogError::act("look for the next routine"))?;
        super::row::Columns(&row).maybe_time("next_slot")
    }

    /// Claims a slot: of all who ask, exactly one is told `true`. A routine that was paused or got
    /// another cadence meanwhile gives nobody its old slot.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn claim_slot(&self, fire: &Fire) -> Result<bool, CatalogError> {
        self.move_on(&fire.routine, fire.slot, fire.slot).await
    }

    /// Notes that everything up to `done` is done with and that the next slot is after `next_after`.
    async fn move_on(
        &self,
        routine: &Routine,
        done: Timestamp,
        next_after: Timestamp,
    ) -> Result<bool, CatalogError> {
        let act = || CatalogError::act("claim a slot of a routine");
        let mut tx = self.write().await?;
        let claimed = sqlx::query(CLAIM)
            .bind(routine.id.to_string())
            .bind(done.as_millisecond())
            .bind(routine.cadence.next_after(next_after).map(Timestamp::as_millisecond))
            .bind(number(routine.revision))
            .bind(routine.last_slot.as_millisecond())
            .execute(&mut *tx)
            .await
            .map_err(act())?;
        tx.commit().await.map_err(act())?;
        Ok(claimed.rows_affected() == 1)
    }
}
