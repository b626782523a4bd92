//! The folder of one run's model service: what its sandbox sees of it, and what is ours alone.
//!
//! ```text
//! <sandbox>/       0700
//!   open/          0755, mounted into the sandbox: the sockets that are for the agent
//!   own/           0700: the run's token, the control socket, the lock, the log
//! ```
//!
//! The folder `open/` stays as it is for the sandbox's whole life, and a socket that is made anew in
//! it is seen inside.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The socket of the model service, for the agent.
const MODEL: &str = "model.sock";

/// The socket of the proxy, for the agent.
const EGRESS: &str = "egress.sock";

/// Where a gateway is told what to do. A newer program must find that of an older one: the name never
/// changes.
const CONTROL: &str = "control.sock";

/// What makes the run's token unlike every other.
const TOKEN: &str = "token";

/// Held by the gateway that serves, so that there is one.
const LOCK: &str = "lock";

/// What the gateway has to complain about.
const LOG: &str = "log";

/// The folder of one run's model service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    root: PathBuf,
}

/// A socket by a path that is short enough: one has at most 107 bytes, and a state folder may be deep.
#[derive(Debug)]
pub struct ShortPath {
    path: PathBuf,
    /// Keeps the path true.
    _folder: File,
}

/// Which folder it is that has a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity(u64, u64);

impl Place {
    /// The place that has this folder.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Makes the folders that are missing.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn make(&self) -> io::Result<()> {
        let folder = |mode: u32, path: &Path| {
            DirBuilder::new().recursive(true).mode(mode).create(path)?;
            // Whatever the umask of this process.
            std::fs::set_permissions(path, Permissions::from_mode(mode))
        };
        // The agent has a user of its own, and sees the one of them alone.
        [(0o700, self.root.clone()), (0o755, self.open()), (0o700, self.own())]
            .iter()
            .try_for_each(|(mode, path)| folder(*mode, path))
    }

    /// Removes everything. What is gone already is.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.root) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the sandbox sees.
    #[must_use]
    pub fn open(&self) -> PathBuf {
        self.root.join("open")
    }

    /// The file with what makes the run's token unlike every other.
    #[must_use]
    pub fn token(&self) -> PathBuf {
        self.own().join(TOKEN)
    }

    /// The file with what the gateway has to complain about.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.own().join(LOG)
    }

    /// The socket of the model service.
    ///
    /// # Errors
    /// When its folder cannot be opened.
    pub fn model(&self) -> io::Result<ShortPath> {
        ShortPath::new(&self.open(), MODEL)
    }

    /// The socket of the proxy.
    ///
    /// # Errors
    /// When its folder cannot be opened.
    pub fn egress(&self) -> io::Result<ShortPath> {
        ShortPath::new(&self.open(), EGRESS)
    }

    pub(super) fn own(&self) -> PathBuf {
        self.root.join("own")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.own().join(LOCK)
    }

    pub(super) fn control(&self) -> io::Result<ShortPath> {
        ShortPath::new(&self.own(), CONTROL)
    }

    /// Which folder it is now; `None` where there is none.
    pub(super) fn identity(&self) -> io::Result<Option<Identity>> {
        match std::fs::metadata(self.own()) {
            Ok(found) => Ok(Some(Identity(found.dev(), found.ino()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl ShortPath {
    fn new(folder: &Path, name: &str) -> io::Result<Self> {
        let folder = File::open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        Ok(Self { path, _folder: folder })
    }

    /// The path, good in this process for as long as this value lives.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.path
    }

    /// The same with another name, in the same folder.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_made_again_over_itself_and_the_agent_sees_one_half() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(folder.path().join("models/a-1"));
        assert_eq!(place.identity().unwrap(), None);
        place.make().unwrap();
        let first = place.identity().unwrap();
        assert!(first.is_some());
        place.make().unwrap();
        assert_eq!(place.identity().unwrap(), first);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            [mode(place.root()), mode(&place.open()), mode(&place.own())],
            [0o700, 0o755, 0o700]
        );
        place.remove().unwrap();
        place.remove().unwrap();
        // Another folder at the same path is not the same one.
        let kept = File::open(folder.path()).unwrap();
        place.make().unwrap();
        drop(kept);
        assert!(place.identity().unwrap().is_some());
    }
}
