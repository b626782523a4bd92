//! How much of the disk a sandbox holds: a walk through its folder while its processes go on writing
//! there, and a look at the files that they hold open and have no name any more.
//!
//! Nothing is read but names and sizes. The walk goes from folder to folder by descriptor and follows
//! no link. It ends as soon as more was found than was asked about.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RawMode};
use rustix::io::Errno;
use tokio::time::timeout;

use super::engine::blocking;
use super::process;
use super::pulse::Processes;
use super::still::{StandStill, wake_below};
use crate::run::DiskShare;

/// Folders inside folders. Each level takes a descriptor, of which a process usually has 1024. What
/// people and their tools make is ten to forty deep.
const MAX_DEPTH: usize = 128;

/// How long one look may take, so that other sandboxes get their turn. A walk through a million files
/// takes two seconds.
const LOOK_LIMIT: Duration = Duration::from_secs(20);

/// Open files that one look goes through. Browsers, builds and databases together hold some ten
/// thousand.
const MAX_OPEN: u64 = 500_000;

/// How long an engine may take to tell the number of a process.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// The unit of a file's blocks, in bytes, whatever the file system's own is.
const BLOCK_BYTES: u64 = 512;

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Reads how much of the disk one sandbox holds, whoever holds the sandbox meanwhile.
#[derive(Debug, Clone)]
pub struct DiskReader {
    root: PathBuf,
    processes: Processes,
}

/// What is left of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskRoom {
    /// Bytes that can still be written.
    pub free_bytes: u64,
    /// Files that it can hold in all, and more than there are; `None` where the file system makes
    /// room for them as they come.
    pub files: Option<FileRoom>,
}

/// How many files a disk can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRoom {
    /// In all.
    pub all: u64,
    /// More than there are.
    pub free: u64,
}

/// What was found of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFinding {
    /// This; where it is more than was asked about, there may be more of it.
    Held(DiskShare),
    /// Its folders are nested deeper than this, and what is below was not looked at.
    TooDeep(u64),
    /// Its processes hold more files open than this, and the others were not looked at.
    TooManyOpen(u64),
}

/// How a look is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// While everything goes on. What is moved about meanwhile may be missed.
    Passing,
    /// While the sandbox stands still, where there is the right to stop it.
    Still,
}

impl DiskReader {
    pub(super) fn new(root: PathBuf, processes: Processes) -> Self {
        Self { root, processes }
    }

    /// What is left of the disk that the sandbox is on. Takes microseconds.
    ///
    /// # Errors
    /// When the folder cannot be looked at.
    pub fn room(&self) -> io::Result<DiskRoom> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(DiskRoom {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            files: (stat.f_files > 0)
                .then_some(FileRoom { all: stat.f_files, free: stat.f_favail }),
        })
    }

    /// What the sandbox holds. A look ends where more than `limit` was found, or after 20 s with what
    /// was found until then. Without root some may be hidden: what is in folders that the agent closed
    /// to others, and files without a name.
    ///
    /// # Errors
    /// When the sandbox's own folder cannot be read.
    pub async fn read(&self, look: Look, limit: DiskShare) -> io::Result<DiskFinding> {
        let init = self.init().await;
        let root = self.root.clone();
        blocking(move || {
            let _still = match look {
                Look::Still => init.map(StandStill::below),
                Look::Passing => None,
            };
            let mut count = Count::new(limit, Instant::now() + LOOK_LIMIT);
            if !count.walk(&root)? {
                return Ok(DiskFinding::TooDeep(MAX_DEPTH as u64));
            }
            let is_seen = init.is_none_or(|init| count.nameless(init, look));
            Ok(if is_seen {
                DiskFinding::Held(count.held)
            } else {
                DiskFinding::TooManyOpen(MAX_OPEN)
            })
        })
        .await
    }

    /// Wakes what an earlier process may have left standing still when it was killed.
    pub async fn wake(&self) {
        if let Some(init) = self.init().await {
            blocking(move || wake_below(init)).await;
        }
    }

    /// The number of the sandbox's first process on this machine, where it can be told.
    async fn init(&self) -> Option<i32> {
        match &self.processes {
            Processes::Docker(container) => {
                timeout(READ_LIMIT, container.init()).await.ok().flatten()
            }
            Processes::Bubblewrap(cell) => {
                let cell = cell.clone();
                blocking(move || cell.init()).await
            }
        }
    }
}

/// A count that goes on until there is more than the limit.
struct Count {
    limit: DiskShare,
    deadline: Instant,
    held: DiskShare,
    /// Files that have several names, or are open several times: by device and number.
    several: HashSet<(u64, u64)>,
    /// The devices of the files that were seen. Some file systems have one for their folders and
    /// another for their files.
    disks: HashSet<u64>,
}

/// A folder that is being walked, with the folders in it that are still to come.
struct Level {
    folder: OwnedFd,
    inner: Vec<CString>,
}

impl Count {
    fn new(limit: DiskShare, deadline: Instant) -> Self {
        Self {
            limit,
            deadline,
            held: DiskShare::default(),
            several: HashSet::new(),
            disks: HashSet::new(),
        }
    }

    fn is_over(&self) -> bool {
        self.held.beyond(self.limit).is_some()
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Counts everything below `root`. Says whether it came to the ground everywhere, unless the
    /// limit or the deadline was reached before.
    fn walk(&mut self, root: &Path) -> io::Result<bool> {
        let root = rustix::fs::openat(CWD, root, FOLDER, Mode::empty())?;
        let mut levels = vec![self.level(root)?];
        while let Some(level) = levels.last_mut() {
            if self.is_over() || self.is_late() {
                break;
            }
            let Some(name) = level.inner.pop() else {
                levels.pop();
                continue;
            };
            // It may have gone or become something else meanwhile, or be closed to us.
            let opened = rustix::fs::openat(&level.folder, name, FOLDER, Mode::empty());
            let Ok(folder) = opened else { continue };
            if levels.len() == MAX_DEPTH {
                return Ok(false);
            }
            // A folder that vanishes while it is read has nothing more to count.
            levels.extend(self.level(folder).ok());
        }
        Ok(true)
    }

    /// Counts what is in a folder, and says which folders are.
    fn level(&mut self, folder: OwnedFd) -> Result<Level, Errno> {
        let mut inner = Vec::new();
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(stat) = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let is_folder = FileType::from_raw_mode(stat.st_mode as RawMode) == FileType::Directory;
            let is_new =
                is_folder || stat.st_nlink == 1 || self.several.insert((stat.st_dev, stat.st_ino));
            self.disks.insert(stat.st_dev);
            self.held.n_files += 1;
            if is_new {
                self.held.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK_BYTES;
            }
            if is_folder {
                inner.push(name.to_owned());
            }
            if self.is_over() {
                break;
            }
        }
        Ok(Level { folder, inner })
    }

    /// Counts the files on the same disk that have no name any more and that a process below `init`
    /// holds, by descriptor or in its memory. Says whether all were seen, unless the limit or the
    /// deadline was reached before.
    fn nameless(&mut self, init: i32, look: Look) -> bool {
        let mut n_open = 0;
        for pid in process::below(init) {
            for place in open_files(pid, look) {
                // The process may have ended, and without root its files are its own.
                for entry in fs::read_dir(place).into_iter().flatten() {
                    if self.is_over() || self.is_late() {
                        return true;
                    }
                    n_open += 1;
                    if n_open > MAX_OPEN {
                        return false;
                    }
                    let Ok(file) = entry.and_then(|entry| fs::metadata(entry.path())) else {
                        continue;
                    };
                    if self.disks.contains(&file.dev()) {
                        self.open_file(&file);
                    }
                }
            }
        }
        true
    }

    fn open_file(&mut self, file: &Metadata) {
        let is_hidden = file.is_file() && file.nlink() == 0;
        if is_hidden && self.several.insert((file.dev(), file.ino())) {
            self.held.n_files += 1;
            self.held.bytes += file.blocks() * BLOCK_BYTES;
        }
    }
}

/// Where the kernel shows what a process holds. Its threads usually share one table of descriptors;
/// a hostile one has its own.
fn open_files(pid: i32, look: Look) -> Vec<PathBuf> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let mut places = vec![process.join("map_files")];
    match look {
        Look::Passing => places.push(process.join("fd")),
        Look::Still => {
            let threads = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
            places.extend(threads.map(|thread| thread.path().join("fd")));
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn count(limit: DiskShare) -> Count {
        Count::new(limit, Instant::now() + LOOK_LIMIT)
    }

    fn counted(root: &Path, limit: DiskShare) -> DiskShare {
        let mut count = count(limit);
        assert!(count.walk(root).unwrap());
        count.held
    }

    #[test]
    fn what_is_on_the_disk_counts_and_no_link_is_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let outside = scratch.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("large"), vec![1; 1 << 20]).unwrap();
        let root = scratch.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), vec![1; 256 << 10]).unwrap();
        // Another name takes an entry and no room; a hole takes no room; a link leads nowhere.
        fs::hard_link(root.join("a/b/file"), root.join("a/again")).unwrap();
        fs::File::create(root.join("hole")).unwrap().set_len(1 << 40).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        std::os::unix::fs::symlink("/", root.join("a/root")).unwrap();
        let held = counted(&root, DiskShare::ALL);
        assert_eq!(held.n_files, 7);
        assert!((256 << 10..320 << 10).contains(&held.bytes), "{held:?}");
    }

    #[test]
    fn a_count_ends_soon_after_its_limit() {
        let root = tempfile::tempdir().unwrap();
        for i in 0..50 {
            fs::create_dir(root.path().join(format!("{i}"))).unwrap();
            fs::write(root.path().join(format!("{i}/file")), vec![1; 8 << 10]).unwrap();
        }
        let files = DiskShare { n_files: 60, ..DiskShare::ALL };
        assert_eq!(counted(root.path(), files).n_files, 61);
        let all = counted(root.path(), DiskShare::ALL);
        let bytes = DiskShare { bytes: all.bytes / 2, ..DiskShare::ALL };
        let held = counted(root.path(), bytes);
        assert!(held.bytes > all.bytes / 2 && held.n_files < all.n_files, "{held:?} of {all:?}");
    }

    #[test]
    fn folders_that_are_nested_without_end_are_not_walked_without_end() {
        let root = tempfile::tempdir().unwrap();
        let nest = |n| {
            let mut folder = rustix::fs::openat(CWD, root.path(), FOLDER, Mode::empty()).unwrap();
            for _ in 0..n {
                let _ = rustix::fs::mkdirat(&folder, "in", Mode::RWXU);
                folder = rustix::fs::openat(&folder, "in", FOLDER, Mode::empty()).unwrap();
            }
        };
        nest(MAX_DEPTH - 1);
        assert!(count(DiskShare::ALL).walk(root.path()).unwrap());
        nest(3_000);
        assert!(!count(DiskShare::ALL).walk(root.path()).unwrap());
        super::super::remove::remove_tree(root.path()).unwrap();
    }

    #[test]
    fn a_file_without_a_name_counts_once_while_it_is_held() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("hidden");
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(&vec![1; 128 << 10]).unwrap();
        file.sync_all().unwrap();
        let again = file.try_clone().unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(root.path().join("named"), "").unwrap();
        let inode = (file.metadata().unwrap().dev(), file.metadata().unwrap().ino());
        let own = i32::try_from(std::process::id()).unwrap();
        let counted = |look| {
            let mut count = count(DiskShare::ALL);
            assert!(count.walk(root.path()).unwrap() && count.nameless(own, look));
            count
        };
        for look in [Look::Passing, Look::Still] {
            let count = counted(look);
            assert!(count.several.contains(&inode));
            assert!(count.held.bytes >= 128 << 10, "{:?}", count.held);
        }
        drop((file, again));
        assert!(!counted(Look::Passing).several.contains(&inode));
    }
}
