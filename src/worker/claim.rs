//! Which sandboxes belong to a process that lives. A claim is a lock on a file, so the kernel gives
//! it back when its process ends, however it ends.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::sandbox::SandboxId;

/// The claims of every process that uses one state folder.
#[derive(Debug, Clone)]
pub struct Claims {
    folder: PathBuf,
}

/// One sandbox, claimed until this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

impl Claims {
    /// Uses `folder`, and makes it where it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// Claims a sandbox before it is made.
    pub(super) fn claim(&self, id: &SandboxId) -> io::Result<Claim> {
        let _gate = self.gate(FlockOperation::LockShared)?;
        let path = self.folder.join(id.as_str());
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Claim { path, _file: file })
    }

    /// Whether a sandbox belongs to a process that lives. Where that cannot be found out, it does. A
    /// claim that nobody holds is removed.
    #[must_use]
    pub fn is_held(&self, id: &SandboxId) -> bool {
        self.look(id).unwrap_or(true)
    }

    fn look(&self, id: &SandboxId) -> io::Result<bool> {
        let _gate = self.gate(FlockOperation::LockExclusive)?;
        let path = self.folder.join(id.as_str());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => std::fs::remove_file(&path).map(|()| false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }

    /// Keeps a look away from a claim that is being made, which has a file before it has the lock.
    /// It is held for a few system calls.
    fn gate(&self, operation: FlockOperation) -> io::Result<File> {
        let folder = File::open(&self.folder)?;
        flock(&folder, operation)?;
        Ok(folder)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Removed while the lock is held, so that nobody sees a free claim of a live sandbox. One
        // that stays is removed when it is looked at.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_seen_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let claims = Claims::open(folder.path().join("claims")).unwrap();
        let id = SandboxId::new("a-1").unwrap();
        assert!(!claims.is_held(&id));
        let claim = claims.claim(&id).unwrap();
        assert!(claims.is_held(&id) && claims.is_held(&id));
        assert!(claims.claim(&id).is_err());
        drop(claim);
        assert!(!claims.is_held(&id));
        // What a process leaves that was killed.
        std::fs::write(folder.path().join("claims/b-2"), "").unwrap();
        assert!(!claims.is_held(&SandboxId::new("b-2").unwrap()));
        assert_eq!(std::fs::read_dir(folder.path().join("claims")).unwrap().count(), 0);
    }

    #[test]
    fn a_look_never_takes_a_claim_that_is_being_made() {
        let folder = tempfile::tempdir().unwrap();
        let claims = Claims::open(folder.path().join("claims")).unwrap();
        let id = |n: u32| SandboxId::new(&format!("a-{n}")).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..2_000).for_each(|n| assert!(claims.claim(&id(n)).is_ok(), "{n}")));
            scope.spawn(|| (0..2_000).filter(|n| claims.is_held(&id(*n))).count());
        });
    }
}
