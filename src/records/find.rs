//! Finding runs and reading what is known of them.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::document;
use super::view::{compose, settled};
use crate::job::JobSpec;
use crate::queue::{Job, ListFilter, Page, Queue, QueueError, Status};
use crate::run::{RunId, RunName, Slug};
use crate::store::{Document, Label, RunFolder, Store, StoreError};

/// Says of a listed run that only a part of it is told.
const IS_SHORTENED: &str = "is_shortened";

/// What a run is doing now, only while it goes on.
const ACTIVITY: &str = "activity";

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
        let mut read = self.read(job, document::whole).await?;
        self.add_spec(&mut read).await?;
        Ok(self.with_activity(read.seen()))
    }

    /// A page of runs, newest first, and how many there are in all. [`Records::listed`] tells about
    /// each.
    ///
    /// # Errors
    /// [`RecordError::Queue`].
    pub async fn list(
        &self,
        filter: &ListFilter,
        page: Page,
    ) -> Result<(Vec<Job>, u64), RecordError> {
        Ok(self.queue.list(filter, page).await?)
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
            let settled = settled(document::whole(&folder, &job)?, &job, spec.as_ref());
            let text = serde_json::to_vec(&settled).expect("a JSON object can be written");
            folder.write(Document::Trajectory, &text)?;
            Ok::<_, StoreError>(folder.path().to_owned())
        });
        Ok(settling.await??)
    }

    /// What lists tell of a run, which is all but its steps.
    ///
    /// # Errors
    /// [`RecordError`] when the queue or the disk fails.
    pub async fn listed(&self, job: Job) -> Result<Seen, RecordError> {
        let mut read = self.read(job, document::listed).await?;
        self.add_spec(&mut read).await?;
        Ok(self.with_activity(read.seen()))
    }

    /// A run as the queue alone knows it.
    #[must_use]
    pub fn in_short(job: Job) -> Seen {
        let mut trajectory = compose(None, &job, None, &[]);
        trajectory.insert(IS_SHORTENED.to_owned(), true.into());
        Seen { job, trajectory }
    }

    /// Adds what a run is doing that goes on here.
    fn with_activity(&self, mut seen: Seen) -> Seen {
        let now = self.store.activities().of(&seen.job.name);
        if let Some(now) = now.filter(|_| seen.job.status == Status::Running) {
            seen.trajectory.insert(ACTIVITY.to_owned(), json!(now));
        }
        seen
    }

    /// What is known of a run without a document.
    async fn add_spec(&self, read: &mut Read) -> Result<(), RecordError> {
        if read.document.is_none() {
            let text = self.queue.spec(&read.job.name).await?;
            read.spec = text.and_then(|text| JobSpec::thaw(&text).ok());
        }
        Ok(())
    }

    /// Reads what is on the disk, on a thread that may block. One run at a time: a page of large
    /// ones must not be in memory whole.
    async fn read(&self, job: Job, how: How) -> Result<Read, RecordError> {
        let store = self.store.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let Some(folder) = store.begun(&job.name) else {
                return Ok(Read { job, document: None, labels: Vec::new(), spec: None });
            };
            let labels = folder.labels()?;
            let document = how(&folder, &job)?;
            Ok::<_, StoreError>(Read { job, document, labels, spec: None })
        });
        Ok(reading.await??)
    }
}

/// How a document is read.
type How = fn(&RunFolder, &Job) -> Result<Option<Map<String, Value>>, StoreError>;

/// What was read of a run.
struct Read {
    job: Job,
    document: Option<Map<String, Value>>,
    labels: Vec<Label>,
    spec: Option<JobSpec>,
}

impl Read {
    fn seen(self) -> Seen {
        let trajectory = compose(self.document, &self.job, self.spec.as_ref(), &self.labels);
        Seen { job: self.job, trajectory }
    }
}
