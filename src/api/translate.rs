//! What the rooms behind the API report, in the API's words.

use super::drip::DripFault;
use super::error::{ApiError, Problem};
use crate::catalog::{CatalogError, Kind};
use crate::queue::QueueError;
use crate::workflow::WorkflowError;

/// What a client is told while the database does not do its part.
const DATABASE_AWAY: &str = "The database does not answer; ask again";

impl From<CatalogError> for ApiError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::NotFound { what: Kind::Collection, .. } => {
                Self::NotFound("Collection not found".to_owned())
            }
            CatalogError::NotFound { .. } => Self::NotFound(sentence(&error.to_string())),
            CatalogError::Exists { .. } => Self::Conflict(sentence(&error.to_string())),
            CatalogError::Invalid { problem } => Self::BadRequest(sentence(&problem)),
            CatalogError::Begin(_) | CatalogError::Statement { .. } => database_away(error),
            CatalogError::Secret(_) | CatalogError::Random | CatalogError::Unreadable { .. } => {
                Self::internal("could not use the catalog", error)
            }
        }
    }
}

/// A name that is taken is a wrong request on some paths, as the hosted service has it.
pub(super) fn taken(error: CatalogError, words: impl FnOnce(&str) -> String) -> ApiError {
    if let CatalogError::Exists { name, .. } = &error {
        return ApiError::BadRequest(words(name));
    }
    error.into()
}

impl From<DripFault> for ApiError {
    fn from(fault: DripFault) -> Self {
        match fault {
            DripFault::Slow => Self::TooSlow(fault.sentence()),
            DripFault::LongHead => Self::BadRequest(fault.sentence()),
        }
    }
}

impl From<QueueError> for ApiError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::NotFound(_) => Self::NotFound(sentence(&error.to_string())),
            QueueError::IdTaken(_)
            | QueueError::IdempotencyConflict(_)
            | QueueError::IllegalMove { .. } => Self::Conflict(sentence(&error.to_string())),
            QueueError::Begin(_) | QueueError::Statement { .. } => database_away(error),
            QueueError::Lost
            | QueueError::Offset { .. }
            | QueueError::OutOfAttempts { .. }
            | QueueError::Started
            | QueueError::Unreadable { .. } => Self::internal("could not use the queue", error),
        }
    }
}

impl From<WorkflowError> for ApiError {
    fn from(error: WorkflowError) -> Self {
        let problem = |problem: &crate::workflow::WorkflowProblem| {
            Problem::of_field("workflow", "value_error", sentence(&problem.to_string()))
        };
        Self::Invalid(error.problems.iter().map(problem).collect())
    }
}

/// The database does not do its part.
fn database_away(error: impl std::error::Error + Send + Sync + 'static) -> ApiError {
    ApiError::Unavailable { detail: DATABASE_AWAY.to_owned(), source: Some(Box::new(error)) }
}

/// A fragment as a person reads it.
fn sentence(fragment: &str) -> String {
    let mut chars = fragment.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
