//! Locks on files, for what two processes must not do at once. Closing the file gives one back, so a
//! process that dies holds nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::time::{Instant, sleep};

/// How often a held lock is tried again: soon enough for a person who waits, and a trifle of work.
const POLL: Duration = Duration::from_millis(100);

/// Takes a lock that nobody else may hold. Calls `waits` once where somebody does.
pub(super) async fn exclusive(
    path: &Path,
    limit: Duration,
    waits: impl FnOnce(),
) -> io::Result<File> {
    take(path, FlockOperation::NonBlockingLockExclusive, limit, waits).await
}

/// Takes a lock that others may share.
pub(super) async fn shared(path: &Path, limit: Duration) -> io::Result<File> {
    take(path, FlockOperation::NonBlockingLockShared, limit, || {}).await
}

async fn take(
    path: &Path,
    how: FlockOperation,
    limit: Duration,
    waits: impl FnOnce(),
) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Never removed: whoever waits for it has the same file open.
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let deadline = Instant::now() + limit;
    let mut waits = Some(waits);
    loop {
        match flock(&file, how) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if let Some(waits) = waits.take() {
            waits();
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lock_is_held_by_one_and_shared_by_many() {
        const SHORT: Duration = Duration::from_secs(1);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/lock");
        let first = shared(&path, SHORT).await.unwrap();
        let second = shared(&path, SHORT).await.unwrap();
        let mut told = 0;
        let refused = exclusive(&path, SHORT, || told += 1).await.unwrap_err();
        assert_eq!((refused.kind(), told), (io::ErrorKind::TimedOut, 1));
        drop((first, second));
        let _alone = exclusive(&path, SHORT, || panic!("it is free")).await.unwrap();
        assert!(shared(&path, SHORT).await.is_err());
    }
}
