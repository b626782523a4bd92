//! The log of a build that no run keeps, in the state folder.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// How a line begins with which Docker announces the next step of a build.
const STEP: &str = "Step ";

/// The last build of one snapshot. It begins anew with the first line, so that a build that has
/// nothing to do leaves the old one.
pub(super) struct BuildLog {
    path: PathBuf,
    file: Option<File>,
}

impl BuildLog {
    pub(super) fn open(state_dir: &Path, snapshot: &str) -> Self {
        Self { path: state_dir.join("snapshots").join(format!("{snapshot}.txt")), file: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A log that cannot be written does not stop a build; its last lines stand in the error too.
    pub(super) fn write(&mut self, line: &str) {
        let written = self.file().and_then(|mut file| writeln!(file, "{line}"));
        if let Err(error) = written {
            tracing::warn!(%error, "{} cannot be written", self.path.display());
        }
    }

    fn file(&mut self) -> io::Result<&File> {
        if self.file.is_none() {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            self.file = Some(File::create(&self.path)?);
        }
        self.file.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// The step that a line announces.
pub(super) fn step(line: &str) -> Option<&str> {
    line.starts_with(STEP).then_some(line)
}
