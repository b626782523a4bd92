//! Finding runs and reading what is known of them.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::view::{compose, settled};
use crate::job::JobSpec;
use crate::queue::{Job, ListFilter, Page, Queue, QueueError};
use crate::run::{RunId, RunName, Slug, error_chain};
use crate::store::{Document, Label, RunFolder, Store, StoreError};

/// The part of a document that lists leave out: it can have megabytes, and clients of lists do not
/// read it. `n_agent_steps` stays.
const TOO_LONG_FOR_LISTS: &str = "agent_steps";

/// What is known of a run cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The queue failed.
    #[error("could not look the run up in the queue")]
    Queue(#[from] QueueError),
    /// The disk failed.
    #[error("could not read the record of the run")]
    Store(#[from] StoreError),
    /// The thread that read it is gone.
    #[error("reading the record of the run broke off")]
    Reader(#[from] tokio::task::JoinError),
}

/// The runs that are known. Clones share them.
#[derive(Debug, Clone)]
pub struct Records {
    queue: Queue,
    store: Store,
}

/// A run and where it stands.
#[derive(Debug)]
pub struct Seen {
    /// The queue's row.
    pub job: Job,
    /// The trajectory as clients see it.
    pub trajectory: Map<String, Value>,
}

impl Records {
    /// The runs of one daemon.
    #[must_use]
    pub fn new(queue: Queue, store: Store) -> Self {
        Self { queue, store }
    }

    /// The run that `id` names: by its own id or by a workflow id of this task.
    ///
    /// # Errors
    /// [`RecordError::Queue`].
    pub async fn find(
        &self,
        collection: &Slug,
        task: &Slug,
        id: &str,
    ) -> Result<Option<Job>, RecordError> {
        // A workflow id ends in `--` and the run's own id; an own id may have a `--` in it too.
        let own = id.rsplit_once("--").map(|(_, own)| own);
        let of_workflow = own.filter(|own| id == format!("{collection}-{task}--{own}"));
        for candidate in [Some(id), of_workflow].into_iter().flatten() {
            let Ok(id) = RunId::new(candidate) else { continue };
            let name = RunName { collection: collection.clone(), task: task.clone(), id };
            if let Some(job) = self.queue.get(&name).await? {
                return Ok(Some(job));
            }
        }
        Ok(None)
    }

    /// All that is known of a run.
    ///
    /// # Errors
    /// [`RecordError`] when the queue or the disk fails.
    pub async fn see(&self, job: Job) -> Result<Seen, RecordError> {
        let mut seen = self.see_all(vec![job], |_| {}).await?;
        Ok(seen.pop().expect("as many are seen as are given"))
    }

    /// A page of runs, newest first, and how many there are in all.
    ///
    /// # Errors
    /// [`RecordError`] when the queue or the disk fails.
    pub async fn list(
        &self,
        filter: &ListFilter,
        page: Page,
    ) -> Result<(Vec<Seen>, u64), RecordError> {
        let (jobs, total) = self.queue.list(filter, page).await?;
        let shorten = |document: &mut Map<String, Value>| {
            document.shift_remove(TOO_LONG_FOR_LISTS);
        };
        Ok((self.see_all(jobs, shorten).await?, total))
    }

    /// Brings the document of a run up to where `job` says that the run stands, and makes one where
    /// there is none. Gives the run's folder.
    ///
    /// # Errors
    /// [`RecordError`] when the queue or the disk fails.
    pub async fn settle(&self, job: Job) -> Result<PathBuf, RecordError> {
        let text = self.queue.spec(&job.name).await?;
        let spec = text.and_then(|text| JobSpec::thaw(&text).ok());
        let store = self.store.clone();
        let settling = tokio::task::spawn_blocking(move || {
            let folder = store.run(&job.name)?;
            let settled = settled(document(&folder, &job)?, &job, spec.as_ref());
            let text = serde_json::to_vec(&settled).expect("a JSON object can be written");
            folder.write(Document::Trajectory, &text)?;
            Ok::<_, StoreError>(folder.path().to_owned())
        });
        Ok(settling.await??)
    }

    async fn see_all(
        &self,
        jobs: Vec<Job>,
        shorten: fn(&mut Map<String, Value>),
    ) -> Result<Vec<Seen>, RecordError> {
        let mut read = self.read(jobs, shorten).await?;
        for (job, document, _, spec) in &mut read {
            if document.is_none() {
                let text = self.queue.spec(&job.name).await?;
                *spec = text.and_then(|text| JobSpec::thaw(&text).ok());
            }
        }
        let seen = read.into_iter().map(|(job, document, labels, spec)| Seen {
            trajectory: compose(document, &job, spec.as_ref(), &labels),
            job,
        });
        Ok(seen.collect())
    }

    /// Reads what is on the disk, on a thread that may block.
    async fn read(
        &self,
        jobs: Vec<Job>,
        shorten: fn(&mut Map<String, Value>),
    ) -> Result<Vec<Read>, RecordError> {
        let store = self.store.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let read = jobs.into_iter().map(|job| {
                let Some(folder) = store.begun(&job.name) else {
                    return Ok((job, None, Vec::new(), None));
                };
                let labels = folder.labels()?;
                let mut document = document(&folder, &job)?;
                if let Some(document) = &mut document {
                    shorten(document);
                }
                Ok((job, document, labels, None))
            });
            read.collect::<Result<Vec<_>, StoreError>>()
        });
        Ok(reading.await??)
    }
}

type Read = (Job, Option<Map<String, Value>>, Vec<Label>, Option<JobSpec>);

/// The run's document. One that cannot be read is as good as none, but somebody should know.
fn document(folder: &RunFolder, job: &Job) -> Result<Option<Map<String, Value>>, StoreError> {
    let Some(bytes) = folder.read_if_there(Document::Trajectory)? else { return Ok(None) };
    match serde_json::from_slice(&bytes) {
        Ok(document) => Ok(Some(document)),
        Err(error) => {
            let error = error_chain(&error);
            tracing::warn!(run.id = %job.name, error, "a trajectory cannot be read");
            Ok(None)
        }
    }
}
