//! The results directory: every path and file name on disk, and how they are written.
//!
//! `<root>/<collection>/<task>/<run id>/` holds all that is known of a run. It is the truth: a
//! person can list it, read it with ordinary tools, copy it and archive it.

mod activities;
mod arrivals;
mod events;
mod files;
mod folder;
mod labels;
mod layout;
mod live;
mod log;
mod mask;
mod open;
mod path;
mod upload;

use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use crate::run::{RunName, RunRef, Slug};
use layout::{EVENTS, STEPS};
use live::LiveRuns;

pub use activities::Activities;
pub use arrivals::Arrivals;
pub use events::{EventLog, EventReader, StoredEvent};
pub use files::{ListedFile, Listing, StoredFile};
pub use folder::RunFolder;
pub use labels::Label;
pub use layout::{Area, Document, EGRESS_LOG, SETUP_LOG, SNAPSHOT_LOG};
pub use log::LogFile;
pub use mask::MaskedFiles;
pub use path::{BadPath, StoragePath};
pub use upload::{FILE_ID, KeptUpload, UPLOADS_FOLDER, Upload, UploadedFile};

/// The results directory could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Two runs drew the same id, or somebody made the folder by hand.
    #[error("there is already a run folder `{}`", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A folder could not be made.
    #[error("could not make the folder `{}`", path.display())]
    Create {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("could not write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("could not read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl StoreError {
    /// Whether another id would do.
    #[must_use]
    pub fn is_name_taken(&self) -> bool {
        matches!(self, Self::Exists { .. })
    }
}

/// The results directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    live: LiveRuns,
    activities: Activities,
}

impl Store {
    /// Makes the root folder where it is missing.
    ///
    /// # Errors
    /// [`StoreError::Create`] when it cannot be made.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let create = |source| StoreError::Create { path: root.to_owned(), source };
        std::fs::create_dir_all(root).map_err(create)?;
        let root = root.canonicalize().map_err(create)?;
        Ok(Self { root, live: LiveRuns::default(), activities: Activities::default() })
    }

    /// What the runs of this process are doing now.
    #[must_use]
    pub fn activities(&self) -> &Activities {
        &self.activities
    }

    /// How much the disk of the results still takes, in bytes.
    ///
    /// # Errors
    /// [`StoreError::Read`] when it cannot be measured.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        let disk = rustix::fs::statvfs(&self.root)
            .map_err(|e| StoreError::Read { path: self.root.clone(), source: e.into() })?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// The results directory that is there already; `None` where there is none.
    #[must_use]
    pub fn existing(root: &Path) -> Option<Self> {
        let root = root.canonicalize().ok().filter(|root| root.is_dir())?;
        Some(Self { root, live: LiveRuns::default(), activities: Activities::default() })
    }

    /// The runs that `wanted` names, sorted.
    ///
    /// # Errors
    /// [`StoreError::Read`] when a folder cannot be listed.
    pub fn find(&self, wanted: &RunRef) -> Result<Vec<RunName>, StoreError> {
        let id = match wanted {
            RunRef::Name(name) => {
                return Ok(self.folder(name).map(|_| name.clone()).into_iter().collect());
            }
            RunRef::Id(id) => id,
        };
        let mut found = Vec::new();
        for collection in folders(&self.root)? {
            for task in folders(&self.root.join(collection.as_str()))? {
                let name = RunName { collection: collection.clone(), task, id: id.clone() };
                found.extend(self.folder(&name).map(|_| name));
            }
        }
        found.sort_by_key(RunName::to_string);
        Ok(found)
    }

    /// The folder of a run that is there.
    #[must_use]
    pub fn folder(&self, name: &RunName) -> Option<RunFolder> {
        let path = self.root.join(name.to_string());
        path.join(Document::Trajectory.file_name()).is_file().then(|| RunFolder::there(path))
    }

    /// Makes the folder of a new run, with all its areas.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when the run's name is taken; the caller draws another id.
    /// [`StoreError::Create`] when it cannot be made.
    pub fn create(&self, name: &RunName) -> Result<RunFolder, StoreError> {
        self.reserve(name)?;
        RunFolder::new(self.place(name))
    }

    /// Makes the folder of a new run with nothing in it.
    ///
    /// # Errors
    /// As [`Store::create`].
    pub fn reserve(&self, name: &RunName) -> Result<(), StoreError> {
        let path = self.place(name);
        let task = path.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(task)
            .map_err(|source| StoreError::Create { path: task.to_owned(), source })?;
        match std::fs::create_dir(&path) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(StoreError::Exists { path }),
            Err(source) => Err(StoreError::Create { path, source }),
        }
    }

    /// The results directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a run whose name is known to be its own: what is missing of it is made.
    ///
    /// # Errors
    /// [`StoreError::Create`] when it cannot be made.
    pub fn run(&self, name: &RunName) -> Result<RunFolder, StoreError> {
        RunFolder::new(self.place(name))
    }

    /// The folder of one step of a run: what is missing of it is made. A run of one step has no
    /// folder of its own for it.
    ///
    /// # Errors
    /// [`StoreError::Create`] when it cannot be made.
    pub fn step(&self, name: &RunName, step: Option<&Slug>) -> Result<RunFolder, StoreError> {
        RunFolder::new(self.root.join(step_path(name, step)))
    }

    /// The folder of a step of a run, where there is one. Nothing is made.
    #[must_use]
    pub fn begun_step(&self, name: &RunName, step: &Slug) -> Option<RunFolder> {
        let path = self.root.join(step_path(name, Some(step)));
        path.is_dir().then(|| RunFolder::there(path))
    }

    /// The folder of a record without files, such as a chat's: it has documents alone.
    ///
    /// # Errors
    /// [`StoreError::Create`] when it cannot be made.
    pub fn record(&self, name: &RunName) -> Result<RunFolder, StoreError> {
        let path = self.place(name);
        std::fs::create_dir_all(&path)
            .map_err(|source| StoreError::Create { path: path.clone(), source })?;
        Ok(RunFolder::there(path))
    }

    /// Removes the folder of a run that will never be. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Write`] when the disk refuses it.
    pub fn discard(&self, name: &RunName) -> Result<(), StoreError> {
        let path = self.place(name);
        match std::fs::remove_dir_all(&path) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(StoreError::Write { path, source }),
        }
    }

    /// The folder of a run, where there is one, with a trajectory in it or not yet. Nothing is made.
    #[must_use]
    pub fn begun(&self, name: &RunName) -> Option<RunFolder> {
        let path = self.place(name);
        path.is_dir().then(|| RunFolder::there(path))
    }

    /// Opens the news of a run for writing, or goes on with those that are there. A run has one
    /// writer at a time.
    ///
    /// # Errors
    /// [`StoreError::Write`] when the file cannot be made, read or cut.
    pub fn event_log(&self, name: &RunName) -> Result<EventLog, StoreError> {
        EventLog::open(self.place(name).join(EVENTS), name.clone(), self.live.clone())
    }

    /// Reads the news of a run from the one after `after`; 0 reads all.
    #[must_use]
    pub fn events(&self, name: &RunName, after: u64) -> EventReader {
        EventReader::new(self.place(name).join(EVENTS), after)
    }

    /// Follows the number of the last event of a run that goes on in this process. It begins at 0
    /// whatever is in the file: take it, read the file, then wait for a change.
    #[must_use]
    pub fn watch(&self, name: &RunName) -> watch::Receiver<u64> {
        self.live.watch(name)
    }

    fn place(&self, name: &RunName) -> PathBuf {
        self.root.join(name.collection.as_str()).join(name.task.as_str()).join(name.id.as_str())
    }
}

/// Where the files of a step lie, as clients ask for them.
#[must_use]
pub fn step_path(name: &RunName, step: Option<&Slug>) -> String {
    match step {
        Some(step) => format!("{name}/{STEPS}/{step}"),
        None => name.to_string(),
    }
}

/// The folders in a folder whose names are names of ours, no links.
fn folders(folder: &Path) -> Result<Vec<Slug>, StoreError> {
    let unreadable = |source| StoreError::Read { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_str().and_then(|name| Slug::new(name).ok());
        if entry.file_type().map_err(unreadable)?.is_dir() {
            found.extend(name);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::RunId;

    #[test]
    fn a_run_folder_is_made_once() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("results")).unwrap();
        let name = RunName {
            collection: Slug::new("team").unwrap(),
            task: Slug::new("hello").unwrap(),
            id: RunId::from_uuid(uuid::Uuid::from_u128(1 << 100)),
        };
        let folder = store.create(&name).unwrap();
        assert!(folder.path().ends_with("results/team/hello/00000010"));
        assert!(folder.area(Area::Results).is_dir());
        assert!(matches!(store.create(&name), Err(StoreError::Exists { .. })));
    }

    #[test]
    fn a_run_is_found_by_its_id_or_its_name() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let id = RunId::from_uuid(uuid::Uuid::from_u128(1 << 100));
        let name = |task: &str| RunName {
            collection: Slug::new("team").unwrap(),
            task: Slug::new(task).unwrap(),
            id: id.clone(),
        };
        for task in ["b", "a", "no record"] {
            let folder = store.create(&name(task)).unwrap();
            if task != "no record" {
                folder.write(Document::Trajectory, b"{}").unwrap();
            }
        }
        std::fs::write(root.path().join("stray"), "").unwrap();
        let by_id = store.find(&RunRef::Id(id.clone())).unwrap();
        assert_eq!(by_id, [name("a"), name("b")]);
        assert_eq!(store.find(&RunRef::Name(name("b"))).unwrap(), [name("b")]);
        assert_eq!(store.find(&RunRef::Name(name("no record"))).unwrap(), []);
        assert!(Store::existing(&root.path().join("missing")).is_none());
    }
}
