//! A log of a run: it only grows.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::StoreError;

/// A file that is only appended to. Each append reaches the kernel before it returns, so a reader
/// sees whole appends and a killed daemon loses none.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    pub(super) fn create(path: PathBuf) -> Result<Self, StoreError> {
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(StoreError::Write { path, source }),
        }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`StoreError::Write`] when the disk refuses them.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file
            .write_all(bytes)
            .map_err(|source| StoreError::Write { path: self.path.clone(), source })
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// [`StoreError::Write`] when the disk reports a fault.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(|source| StoreError::Write { path: self.path.clone(), source })
    }

    /// Where the log lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}
