//! The lock that lets one process or task at a time fill a place in the cache.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::time::Instant;

use super::error::ToolchainError;
use super::fetch::{FetchProgress, OnProgress};

/// How often a held lock is tried again: soon enough for a person who waits, and a trifle of work.
const POLL: Duration = Duration::from_millis(100);

/// An exclusive `flock`. Closing the file gives it back, so a process that dies holds nothing.
///
/// It belongs to the open file and not to the process: two tasks of one process exclude each
/// other just as two processes do.
#[derive(Debug)]
pub(super) struct CacheLock {
    _file: File,
}

impl CacheLock {
    /// Takes the lock, waiting up to `limit` without blocking a runtime thread.
    pub(super) async fn acquire(
        path: &Path,
        limit: Duration,
        progress: OnProgress<'_>,
    ) -> Result<Self, ToolchainError> {
        let deadline = Instant::now() + limit;
        let file = open(path).await.map_err(|source| ToolchainError::cache(path, source))?;
        let mut said = false;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(errno) => return Err(ToolchainError::cache(path, errno.into())),
            }
            if !said {
                progress(FetchProgress::WaitingForOther);
                said = true;
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(ToolchainError::LockTimeout { path: path.to_owned(), limit });
            }
            tokio::time::sleep(POLL.min(deadline - now)).await;
        }
    }
}

/// Opens the lock file. It is never deleted: whoever waits for it holds the same inode open.
async fn open(path: &Path) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    let mut options = tokio::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    Ok(options.open(path).await?.into_std().await)
}
