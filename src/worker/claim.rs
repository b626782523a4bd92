//! Which sandboxes belong to a process that lives. A claim is a lock on a file, so the kernel gives
//! it back when its process ends, however it ends.

use std::collections::HashSet;
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
        let path = self.folder.join(id.as_str());
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Claim { path, _file: file })
    }

    /// The sandboxes whose claim is held. Claims that nobody holds are removed.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn held(&self) -> io::Result<HashSet<SandboxId>> {
        let mut held = HashSet::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let Some(id) = path.file_name().and_then(|name| SandboxId::new(name.to_str()?).ok())
            else {
                continue;
            };
            match self.claim(&id) {
                Ok(free) => drop(free),
                Err(e) if e.raw_os_error() == Some(Errno::WOULDBLOCK.raw_os_error()) => {
                    held.insert(id);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(held)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Removed while the lock is held, so that nobody sees a free claim of a live sandbox. One
        // that stays is removed by the next look.
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
        let claim = claims.claim(&id).unwrap();
        assert_eq!(claims.held().unwrap(), HashSet::from([id.clone()]));
        assert!(claims.claim(&id).is_err());
        drop(claim);
        assert_eq!(claims.held().unwrap(), HashSet::new());
        // What a process leaves that was killed.
        std::fs::write(folder.path().join("claims/b-2"), "").unwrap();
        assert_eq!(claims.held().unwrap(), HashSet::new());
        assert_eq!(std::fs::read_dir(folder.path().join("claims")).unwrap().count(), 0);
    }
}
