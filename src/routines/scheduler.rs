//! Waits for slots and submits their runs.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, CatalogError, Fire, Routine};
use crate::intake::{Intake, IntakeError, Submission};
use crate::run::{RunName, error_chain};

/// Longest wait between two looks. A routine that is made or changed meanwhile, or a clock that
/// jumps, is noticed after it.
const MAX_WAIT: Duration = Duration::from_secs(15);

/// Shortest wait between two looks. A slot that cannot be submitted stays due, and must not keep the
/// machine busy.
const MIN_WAIT: Duration = Duration::from_secs(1);

/// Submits the runs of routines. Several may watch one database.
#[derive(Debug, Clone)]
pub struct Scheduler {
    /// What is due.
    pub catalog: Catalog,
    /// What takes the runs in.
    pub intake: Intake,
}

/// What became of a slot that was due.
#[derive(Debug)]
pub enum Fired {
    /// Its run waits.
    Submitted(RunName),
    /// It has a run already: another scheduler was faster, or this one before it was stopped.
    Before(RunName),
    /// Its run could only fail, so there is none.
    Refused(IntakeError),
    /// Something of ours failed. The slot stays due.
    Later(IntakeError),
}

impl Scheduler {
    /// Submits what is due until `drain` is cancelled. A round that has begun is ended.
    pub async fn run(&self, clock: fn() -> Timestamp, drain: CancellationToken) {
        loop {
            let wait = match self.round(clock()).await {
                // Reckoned from the clock each time, so that waits do not add up to a drift.
                Ok(next) => next.map_or(MAX_WAIT, |next| until(next, clock())),
                Err(error) => {
                    let error = error_chain(&error);
                    tracing::error!(error, "the routines could not be looked at");
                    MAX_WAIT
                }
            };
            tokio::select! {
                () = drain.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Submits what is due and says when the next slot is.
    async fn round(&self, now: Timestamp) -> Result<Option<Timestamp>, CatalogError> {
        for (fire, fired) in self.fire_due(now).await? {
            let routine = &fire.routine;
            let (collection, task, name) = (&routine.collection, &routine.task, &routine.name);
            match fired {
                Fired::Submitted(run) => {
                    tracing::info!(run.id = %run, routine = %name, "a routine's run was submitted");
                }
                Fired::Before(_) => {}
                Fired::Refused(error) => {
                    let error = error_chain(&error);
                    tracing::warn!(%collection, %task, routine = %name, error, "a routine's run was refused");
                }
                Fired::Later(error) => {
                    let error = error_chain(&error);
                    tracing::error!(%collection, %task, routine = %name, error, "a routine's run could not be submitted");
                }
            }
        }
        self.catalog.next_slot().await
    }

    /// Submits the run of every slot that is due.
    ///
    /// # Errors
    /// When the catalog cannot be read or a slot cannot be noted as done.
    pub async fn fire_due(&self, now: Timestamp) -> Result<Vec<(Fire, Fired)>, CatalogError> {
        let due = self.catalog.due(now).await?;
        for broken in &due.broken {
            tracing::error!(error = error_chain(broken), "a routine cannot be read");
        }
        let mut all = Vec::new();
        for fire in due.fires {
            let fired = self.fire(&fire, now).await;
            // First the run, then the slot: whoever dies in between leaves the slot due, and the
            // run's key keeps the next one from making a second run.
            match &fired {
                Fired::Submitted(_) | Fired::Before(_) | Fired::Refused(_) => {
                    self.catalog.claim_slot(&fire).await?;
                }
                Fired::Later(_) => {}
            }
            all.push((fire, fired));
        }
        Ok(all)
    }

    async fn fire(&self, fire: &Fire, now: Timestamp) -> Fired {
        let wish = match wish_of(&self.catalog, &fire.routine).await {
            Ok(wish) => wish,
            Err(error) => return Fired::Later(IntakeError::Catalog(error)),
        };
        let wish = Submission { idempotency_key: Some(fire.idempotency_key()), ..wish };
        match self.intake.submit(wish, now).await {
            Ok(accepted) if accepted.repeated => Fired::Before(accepted.name),
            Ok(accepted) => Fired::Submitted(accepted.name),
            // The routine was changed between two tries of one slot: it has its run.
            Err(IntakeError::KeyUsed(name)) => Fired::Before(name),
            // The slot is left out: runs that were put off would all begin when the budget opens.
            Err(
                error @ (IntakeError::Unknown(_)
                | IntakeError::Refused(_)
                | IntakeError::BudgetUsedUp { .. }),
            ) => Fired::Refused(error),
            Err(error) => Fired::Later(error),
        }
    }
}

/// The request that a routine makes.
///
/// # Errors
/// When its secrets cannot be read.
pub async fn wish_of(catalog: &Catalog, routine: &Routine) -> Result<Submission, CatalogError> {
    let secrets = catalog.routine_secrets(routine).await?;
    Ok(Submission {
        collection: routine.collection.to_string(),
        task: routine.task.to_string(),
        init_params: routine.overrides.clone(),
        secret_params: secrets.params,
        webhook_url: routine.webhook_url.clone(),
        webhook_secret: secrets.webhook_secret,
        routine: Some(routine.id.to_string()),
        ..Submission::default()
    })
}

/// How long until then, within the shortest and the longest wait.
fn until(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default().clamp(MIN_WAIT, MAX_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_at_the_slot_within_the_shortest_and_the_longest() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(until(at(105), at(100)), Duration::from_secs(5));
        assert_eq!(until(at(99), at(100)), MIN_WAIT);
        assert_eq!(until(at(10_000), at(100)), MAX_WAIT);
    }
}
