//! The cache on the disk: where a pinned CLI lies, when it counts as installed, how it gets there.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempPath;

use super::error::ToolchainError;
use super::lock::CacheLock;
use super::pins::Pin;
use super::unpack::{EXECUTABLE_MODE, sha256_of, unpack};

/// The place of one pinned CLI in the cache. Files that are not finished, and the lock, lie
/// outside the folder of the executable, which may be shown to a sandbox.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) pin: Pin,
    /// `<cache>/claude-code/2.1.126/linux-x64/claude`.
    pub(super) executable: PathBuf,
    /// `<cache>/claude-code-2.1.126-linux-x64.lock`.
    pub(super) lock: PathBuf,
    partial_tarball: PathBuf,
    partial_executable: PathBuf,
}

impl Slot {
    pub(super) fn new(cache_dir: &Path, pin: Pin) -> Self {
        let target = pin.target.to_string();
        let beside =
            |suffix: &str| cache_dir.join(format!("{}-{}-{target}.{suffix}", pin.cli, pin.version));
        Self {
            executable: cache_dir
                .join(pin.cli)
                .join(pin.version)
                .join(&target)
                .join(pin.file_name()),
            lock: beside("lock"),
            partial_tarball: beside("tgz.partial"),
            partial_executable: beside("partial"),
            pin,
        }
    }

    /// Whether the executable is there with the size and mode that only a finished installation
    /// has. Its content is not read: that would cost every run a second.
    pub(super) fn is_installed(&self) -> Result<bool, ToolchainError> {
        let found = self.found()?;
        Ok(found.is_some_and(|found| found.right_size && found.mode == EXECUTABLE_MODE))
    }

    /// Checks the content of what is installed.
    pub(super) fn verify(&self) -> Result<(), ToolchainError> {
        let path = self.executable.clone();
        if self.found()?.is_none() {
            return Err(ToolchainError::NotInstalled { path });
        }
        let got = self.hash_executable()?;
        if got != self.pin.executable.hash {
            let expected = self.pin.executable.hash.clone();
            return Err(ToolchainError::Altered { path, expected, got });
        }
        Ok(())
    }

    /// Takes a file that a person put in place, if its content is the pinned one.
    fn adopt(&self) -> Result<bool, ToolchainError> {
        if !self.found()?.is_some_and(|found| found.right_size)
            || self.hash_executable()? != self.pin.executable.hash
        {
            return Ok(false);
        }
        fs::set_permissions(&self.executable, Permissions::from_mode(EXECUTABLE_MODE))
            .map_err(|source| ToolchainError::cache(&self.executable, source))?;
        Ok(true)
    }

    /// What lies at the executable's place, if it is a regular file.
    fn found(&self) -> Result<Option<Found>, ToolchainError> {
        match fs::symlink_metadata(&self.executable) {
            Ok(metadata) => Ok(metadata.is_file().then(|| Found {
                right_size: metadata.len() == self.pin.executable.n_bytes,
                mode: metadata.permissions().mode() & 0o7777,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ToolchainError::cache(&self.executable, error)),
        }
    }

    fn hash_executable(&self) -> Result<String, ToolchainError> {
        sha256_of(&self.executable)
            .map_err(|source| ToolchainError::cache(&self.executable, source))
    }
}

/// What [`Slot::found`] saw.
struct Found {
    right_size: bool,
    mode: u32,
}

/// What the holder of the lock has before it.
pub(super) enum Prepared {
    /// Nothing to do: someone else installed it meanwhile, or put the right file in place.
    Installed,
    /// An empty place to fill.
    Empty(Workspace),
}

/// The sole right to fill a [`Slot`], with the unfinished files in it. Dropping it leaves neither.
///
/// The order of the fields is the order in which they are dropped: the files must be gone before
/// the lock is, or they could be the next holder's.
pub(super) struct Workspace {
    slot: Arc<Slot>,
    pub(super) tarball: TempPath,
    executable: TempPath,
    _lock: CacheLock,
}

impl Workspace {
    /// Clears away what an earlier process left unfinished and looks whether there is work at all.
    pub(super) fn prepare(slot: Arc<Slot>, lock: CacheLock) -> Result<Prepared, ToolchainError> {
        let tarball = stale_removed(&slot.partial_tarball)?;
        let executable = stale_removed(&slot.partial_executable)?;
        if slot.is_installed()? || slot.adopt()? {
            return Ok(Prepared::Installed);
        }
        Ok(Prepared::Empty(Self { slot, tarball, executable, _lock: lock }))
    }

    /// Unpacks the tarball, whose integrity is known by now, and puts the executable in its place.
    ///
    /// It takes the whole workspace because it runs on a blocking thread that outlives a caller
    /// who stops waiting: the lock must stay held until the last step is done.
    pub(super) fn install(self) -> Result<(), ToolchainError> {
        // Taken apart into variables, the fields would be dropped in the opposite order.
        unpack(&self.slot.pin, &self.tarball, &self.executable)?;
        let destination = &self.slot.executable;
        let in_cache = |source| ToolchainError::cache(destination, source);
        let folder = destination.parent().expect("an executable's path has a folder");
        fs::create_dir_all(folder).map_err(in_cache)?;
        self.executable.persist(destination).map_err(|failed| in_cache(failed.error))?;
        // Makes the new name survive a power cut; the content was synced before.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(in_cache)
    }
}

/// Removes what lies at `path` and takes care of what will.
fn stale_removed(path: &Path) -> Result<TempPath, ToolchainError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ToolchainError::cache(path, error))
        }
        Ok(()) | Err(_) => {
            TempPath::try_from_path(path).map_err(|source| ToolchainError::cache(path, source))
        }
    }
}
