//! A step among those of its run: where its record goes, what the steps before it add up to, and how
//! the record of the whole run is put together.

use std::time::Duration;

use crate::run::{RunName, RunStatus, Slug};
use crate::store::{Document, RunFolder, Store, StoreError};
use crate::trajectory::{DocumentError, SoFar, StepDocument, WholeRun};

/// One step of a run that has several.
#[derive(Debug, Clone)]
pub(super) struct Part {
    name: RunName,
    /// The names of all steps, in their order; they are names of folders.
    steps: Vec<String>,
    /// The place of this one among them.
    index: usize,
    store: Store,
    so_far: SoFar,
    took: Duration,
}

/// What the steps before one left cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum PartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the record of the step `{step}` cannot be read")]
    Document { step: String, source: DocumentError },
    #[error("the run has no step {index}")]
    NoStep { index: usize },
    #[error("the step `{step}` has no record")]
    NoRecord { step: String },
}

impl Part {
    /// The step `index` of a run whose steps before it took so long. Reads their records. Blocks.
    pub(super) fn open(
        store: &Store,
        name: &RunName,
        steps: Vec<String>,
        (index, took): (usize, Duration),
    ) -> Result<Self, PartError> {
        if index >= steps.len() {
            return Err(PartError::NoStep { index });
        }
        let (name, store) = (name.clone(), store.clone());
        let mut part = Self { name, steps, index, store, so_far: SoFar::default(), took };
        let earlier: Vec<StepDocument> =
            part.earlier()?.into_iter().map(StepDocument::without_agent_steps).collect();
        part.so_far = SoFar::of(&earlier);
        Ok(part)
    }

    /// The run.
    pub(super) fn run(&self) -> &RunName {
        &self.name
    }

    /// The step's name.
    pub(super) fn step(&self) -> &str {
        &self.steps[self.index]
    }

    /// Its name as a folder's.
    pub(super) fn slug(&self) -> Option<Slug> {
        // It was checked when the workflow was written.
        Slug::new(self.step()).ok()
    }

    /// Its place among the steps, from 0.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// How many steps there are.
    pub(super) fn n_steps(&self) -> usize {
        self.steps.len()
    }

    /// Whether another one follows.
    pub(super) fn has_next(&self) -> bool {
        self.index + 1 < self.steps.len()
    }

    /// What the steps before it add up to.
    pub(super) fn so_far(&self) -> &SoFar {
        &self.so_far
    }

    /// How long they took.
    pub(super) fn took(&self) -> Duration {
        self.took
    }

    /// The records of the steps before it. Blocks.
    pub(super) fn earlier(&self) -> Result<Vec<StepDocument>, PartError> {
        let read = |step: &String| {
            self.read(step)?.ok_or_else(|| PartError::NoRecord { step: step.clone() })
        };
        self.steps[..self.index].iter().map(read).collect()
    }

    /// The step's own record, where there is one. Blocks.
    pub(super) fn own(&self) -> Result<Option<StepDocument>, PartError> {
        self.read(self.step())
    }

    fn read(&self, step: &str) -> Result<Option<StepDocument>, PartError> {
        let folder = Slug::new(step).ok().and_then(|step| self.store.begun_step(&self.name, &step));
        let Some(folder) = folder else { return Ok(None) };
        let Some(json) = folder.read_if_there(Document::Trajectory)? else { return Ok(None) };
        let unreadable = |source| PartError::Document { step: step.to_owned(), source };
        StepDocument::read(&json).map(Some).map_err(unreadable)
    }

    /// Writes the record of the whole run, whose last step so far has this record, if it has begun. Blocks.
    pub(super) fn write_whole(
        &self,
        own: Option<StepDocument>,
        status: &RunStatus,
    ) -> Result<(), PartError> {
        let mut documents = self.earlier()?;
        documents.extend(own);
        let whole = WholeRun { name: &self.name, steps: &self.steps, status };
        let whole = serde_json::to_vec(&whole.document(documents));
        let whole = whole.expect("a map with string keys cannot fail");
        Ok(self.top()?.write(Document::Trajectory, &whole)?)
    }

    /// The folder of the whole run.
    pub(super) fn top(&self) -> Result<RunFolder, StoreError> {
        // The step's own folder may not be there yet.
        self.store.step(&self.name, self.slug().as_ref())?;
        self.store.begun(&self.name).ok_or_else(|| StoreError::Create {
            path: self.store.root().join(self.name.to_string()),
            source: std::io::ErrorKind::NotFound.into(),
        })
    }
}

impl From<PartError> for StoreError {
    fn from(error: PartError) -> Self {
        match error {
            PartError::Store(error) => error,
            other @ (PartError::Document { .. }
            | PartError::NoStep { .. }
            | PartError::NoRecord { .. }) => Self::Read {
                path: Document::Trajectory.file_name().into(),
                source: std::io::Error::other(other),
            },
        }
    }
}
