//! Why the queue refused or failed.

use crate::database::DatabaseError;
use crate::run::RunName;

use super::job::Status;

/// The queue refused, or could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The grant is not the newest, or the run has ended. Whoever gets this stops working on the run
    /// at once and writes nothing more.
    #[error("the lease of this run is lost")]
    Lost,
    /// The output does not go on where the queue's record of it ends.
    #[error("the output of this run is recorded up to byte {recorded}")]
    Offset {
        /// Where to go on.
        recorded: u64,
    },
    /// There is a run of this name. The caller draws another id.
    #[error("there is already a run `{0}`")]
    IdTaken(RunName),
    /// The idempotency key was used for another request.
    #[error(
        "the idempotency key was used for another request, which made the run `{0}`: send the same request again, or use another key"
    )]
    IdempotencyConflict(RunName),
    /// There is no such run.
    #[error("there is no run `{0}`")]
    NotFound(RunName),
    /// It failed before its agent started as often as it may.
    #[error("the run was tried {max_attempts} times, which is its limit")]
    OutOfAttempts {
        /// The limit.
        max_attempts: u32,
    },
    /// An agent may have started, so the run cannot go back to the queue.
    #[error("the agent of this run may have started: it cannot go back to the queue")]
    Started,
    /// The status cannot be changed this way.
    #[error("a run that is {from} cannot become {to}")]
    IllegalMove {
        /// Where it stands.
        from: Status,
        /// What was asked for.
        to: Status,
    },
    /// A write could not begin.
    #[error("could not write to the queue")]
    Begin(#[source] DatabaseError),
    /// A statement failed.
    #[error("could not {act}")]
    Statement {
        /// What it was to do.
        act: &'static str,
        /// Why.
        source: sqlx::Error,
    },
    /// A row holds something that this program never writes.
    #[error("the row of a run holds something unknown in `{column}`: `{found}`")]
    Unreadable {
        /// The column.
        column: &'static str,
        /// What it holds.
        found: String,
    },
}

impl QueueError {
    /// Wraps the failure of one act.
    pub(super) fn act(act: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Statement { act, source }
    }
}
