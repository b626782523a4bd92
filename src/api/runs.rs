//! What the paths about runs have in common.

use std::time::Duration;

use super::Shared;
use super::chat::Retries;
use super::error::ApiError;
use super::follow::Followers;
use crate::catalog::CatalogError;
use crate::intake::Intake;
use crate::queue::Job;
use crate::reach::Documents;
use crate::records::{RecordError, Records};
use crate::run::Slug;

/// What the paths about runs work with.
#[derive(Debug)]
pub struct RunParts {
    /// What takes requests in.
    pub intake: Intake,
    /// Runs as clients see them.
    pub records: Records,
    /// Those who follow a run while it goes on.
    pub followers: Followers,
    /// The chats that clients may send again by themselves.
    pub retries: Retries,
    /// What reads the runbooks that clients point to.
    pub documents: Documents,
    /// The limits.
    pub settings: RunSettings,
}

/// The limits of the paths about runs.
#[derive(Debug, Clone, Copy)]
pub struct RunSettings {
    /// Largest body with files, in bytes.
    pub max_upload_bytes: usize,
    /// How long `run-sync` waits at most. The run goes on after it.
    pub sync_wait: Duration,
}

/// The collection and the task of a path under their own names. A task that was deleted still names
/// its runs.
pub(super) async fn names(
    api: &Shared,
    collection: &str,
    task: &str,
) -> Result<(Slug, Slug), ApiError> {
    let collection = api.catalog.collection(collection).await?.name;
    let task = match api.catalog.task(&collection, task).await {
        Ok(task) => task.name,
        Err(CatalogError::NotFound { .. }) => Slug::new(task).map_err(|_| {
            ApiError::NotFound(format!("Task '{task}' in collection '{collection}' not found"))
        })?,
        Err(error) => return Err(error.into()),
    };
    Ok((collection, task))
}

/// The run of a path.
pub(super) async fn find(
    api: &Shared,
    (collection, task, id): &(String, String, String),
) -> Result<Job, ApiError> {
    let (collection, task) = names(api, collection, task).await?;
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
