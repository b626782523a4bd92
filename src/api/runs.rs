//! What the paths about runs have in common.

use super::Shared;
use super::error::ApiError;
use super::follow::Followers;
use crate::queue::{Job, Queue};
use crate::records::{RecordError, Records};
use crate::run::Slug;

/// What the paths about runs work with.
#[derive(Debug)]
pub struct RunParts {
    /// The queue.
    pub queue: Queue,
    /// Runs as clients see them.
    pub records: Records,
    /// Those who follow a run while it goes on.
    pub followers: Followers,
}

/// The collection and the task of a path. A name that cannot be one names nothing.
pub(super) fn names(collection: &str, task: &str) -> Result<(Slug, Slug), ApiError> {
    match (Slug::new(collection), Slug::new(task)) {
        (Ok(collection), Ok(task)) => Ok((collection, task)),
        (Err(_), _) => Err(ApiError::NotFound("Collection not found".to_owned())),
        (_, Err(_)) => {
            Err(ApiError::NotFound(format!("Task '{task}' in collection '{collection}' not found")))
        }
    }
}

/// The run of a path.
pub(super) async fn find(
    api: &Shared,
    (collection, task, id): &(String, String, String),
) -> Result<Job, ApiError> {
    let (collection, task) = names(collection, task)?;
    let found = api.runs.records.find(&collection, &task, id).await.map_err(unseen)?;
    found.ok_or_else(|| {
        ApiError::NotFound(format!(
            "There is no trajectory '{id}' of the task '{task}' in the collection '{collection}': \
             give the trajectory_id (or the workflow_id) that the run's answer had"
        ))
    })
}

/// A failure of ours while looking a run up.
pub(super) fn unseen(error: RecordError) -> ApiError {
    ApiError::internal("could not look a run up", error)
}

/// Does what blocks where blocking is allowed.
pub(super) async fn blocking<T, E>(
    act: &'static str,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, ApiError>
where
    T: Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(ApiError::internal(act, error)),
        Err(gone) => Err(ApiError::internal(act, gone)),
    }
}
