//! Copying out what an agent wrote, which may be anything: links that lead outside, files that
//! never end, names that are no text.
//!
//! The walk never resolves a path. It goes from folder to folder by descriptor and follows no
//! link, so nothing that is changed meanwhile can lead it outside. Only regular files and folders
//! are copied; everything else is left out with a reason.

#[cfg(test)]
mod tests;

use std::ffi::{CStr, CString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RawMode};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Longest list of what was left out. The rest is counted.
const MAX_LISTED: usize = 200;

/// Deepest walk, whatever the limits say: each level holds three descriptors.
const MAX_DEPTH: usize = 64;

/// Longest file name that every common file system takes, in bytes.
const MAX_NAME_BYTES: usize = 255;

const READ_FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// `NONBLOCK`, because a file could be exchanged for a pipe after it was looked at.
const READ_FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

const NEW_FILE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A folder that an agent wrote. It has no path to be opened by: a part of it may be a link by
/// now, so that only [`collect`] goes there.
#[derive(Debug, Clone)]
pub struct AgentFolder {
    /// The part that is ours.
    root: PathBuf,
    /// The part that is the agent's.
    below: &'static str,
}

impl AgentFolder {
    pub(super) fn new(root: PathBuf, below: &'static str) -> Self {
        Self { root, below }
    }
}

/// How much is copied at most.
#[derive(Debug, Clone, Copy)]
pub struct CollectLimits {
    /// Files and folders looked at.
    pub n_entries: usize,
    /// Bytes of all files together.
    pub total_bytes: u64,
    /// Bytes of one file, holes included.
    pub file_bytes: u64,
    /// Folders inside folders, 64 at most.
    pub depth: usize,
}

/// What was copied and what was not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The files, in the order of their paths' segments.
    pub files: Vec<CollectedFile>,
    /// Bytes of all files together.
    pub total_bytes: u64,
    /// What was left out: the first 200.
    pub skipped: Vec<Skipped>,
    /// How much was left out in all.
    pub n_skipped: usize,
    /// The walk stopped at [`CollectLimits::n_entries`]; what came after was not even looked at.
    pub cut_off: bool,
}

/// A file that was copied. Part of what the worker saves of a run's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectedFile {
    /// Its path below the folder. Bytes of a name that are no UTF-8 are written as `%XX`.
    pub path: String,
    /// Its size.
    pub bytes: u64,
}

/// Something that was left out.
#[derive(Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its path below the folder, written like [`CollectedFile::path`].
    pub path: String,
    /// Why.
    pub reason: Skip,
}

/// Why something was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skip {
    /// A symbolic link.
    Link,
    /// Another name of a file that belongs to somebody else.
    ForeignHardLink,
    /// A pipe, a socket or a device.
    Special,
    /// Larger than one file may be.
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// All files together would be too large.
    TotalReached,
    /// Too many folders inside folders.
    TooDeep,
    /// Its name is too long once it is written as text.
    NameTooLong,
    /// Another file has its name already.
    NameTaken,
    /// It was exchanged for something else while it was looked at.
    Changed,
    /// The folder itself is not a folder.
    NotAFolder,
    /// It could not be read.
    Unreadable {
        /// The system's word for it.
        error: io::ErrorKind,
    },
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link => f.write_str("it is a symbolic link"),
            Self::ForeignHardLink => f.write_str("it is a hard link to another user's file"),
            Self::Special => f.write_str("it is a pipe, a socket or a device"),
            Self::TooLarge { bytes } => write!(f, "it is too large ({bytes} bytes)"),
            Self::TotalReached => f.write_str("the files together are too large"),
            Self::TooDeep => f.write_str("it lies too deep"),
            Self::NameTooLong => f.write_str("its name is too long"),
            Self::NameTaken => f.write_str("another file has its name"),
            Self::Changed => f.write_str("it changed while it was read"),
            Self::NotAFolder => f.write_str("it is not a folder"),
            Self::Unreadable { error } => write!(f, "it could not be read: {error}"),
        }
    }
}

/// What was collected could not be written.
#[derive(Debug, thiserror::Error)]
#[error("could not write below {}", to.display())]
pub struct CollectError {
    to: PathBuf,
    source: io::Error,
}

/// Copies what an agent wrote into the folder `to`, with ordinary modes, and has it written to the
/// disk. Blocks: call it where blocking is allowed, after the agent's end.
///
/// # Errors
/// When `to` cannot be written. What cannot be read is no error; it is left out with a reason.
pub fn collect(
    from: &AgentFolder,
    to: &Path,
    limits: &CollectLimits,
) -> Result<Collected, CollectError> {
    let mut walk = Walk { limits: *limits, n_seen: 0, owner: 0, collected: Collected::default() };
    walk.run(from, to).map_err(|source| CollectError { to: to.to_owned(), source })?;
    Ok(walk.collected)
}

struct Walk {
    limits: CollectLimits,
    n_seen: usize,
    /// The owner of the folder, whose files may have several names.
    owner: u32,
    collected: Collected,
}

/// Where the walk stands: a folder, its copy, the path below the start.
struct Place<'w> {
    from: &'w OwnedFd,
    to: &'w OwnedFd,
    path: &'w str,
    depth: usize,
}

impl Walk {
    fn run(&mut self, from: &AgentFolder, to: &Path) -> io::Result<()> {
        let from = match open_start(from) {
            Ok(from) => from,
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                self.skip(".".to_owned(), Skip::NotAFolder);
                return Ok(());
            }
            Err(error) => {
                self.skip(".".to_owned(), unreadable(error));
                return Ok(());
            }
        };
        self.owner = rustix::fs::fstat(&from)?.st_uid;
        std::fs::create_dir_all(to)?;
        let to = rustix::fs::openat(CWD, to, READ_FOLDER, Mode::empty())?;
        self.folder(&Place { from: &from, to: &to, path: "", depth: 0 })?;
        // One flush of the file system is far cheaper than one for each of many small files.
        rustix::fs::syncfs(&to)?;
        Ok(())
    }

    fn folder(&mut self, place: &Place<'_>) -> io::Result<()> {
        let names = match self.names(place.from) {
            Ok(names) => names,
            Err(error) => {
                self.skip(shown(place.path), unreadable(error));
                return Ok(());
            }
        };
        for name in names {
            self.entry(place, &name)?;
        }
        Ok(())
    }

    /// The names in a folder, as many as may still be looked at, sorted so that two walks agree.
    fn names(&mut self, folder: &OwnedFd) -> Result<Vec<CString>, Errno> {
        let mut names = Vec::new();
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            if self.n_seen == self.limits.n_entries {
                self.collected.cut_off = true;
                break;
            }
            self.n_seen += 1;
            names.push(entry.file_name().to_owned());
        }
        names.sort();
        Ok(names)
    }

    fn entry(&mut self, place: &Place<'_>, name: &CStr) -> io::Result<()> {
        let written = as_text(name.to_bytes());
        let path = if place.path.is_empty() {
            written.clone()
        } else {
            format!("{}/{written}", place.path)
        };
        if written.len() > MAX_NAME_BYTES {
            self.skip(path, Skip::NameTooLong);
            return Ok(());
        }
        let stat = match rustix::fs::statat(place.from, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(error) => {
                self.skip(path, unreadable(error));
                return Ok(());
            }
        };
        match FileType::from_raw_mode(stat.st_mode as RawMode) {
            FileType::Directory => self.inner_folder(place, name, path),
            FileType::RegularFile => match self.file(place, name, &written)? {
                Ok(bytes) => {
                    self.collected.total_bytes += bytes;
                    self.collected.files.push(CollectedFile { path, bytes });
                    Ok(())
                }
                Err(reason) => {
                    self.skip(path, reason);
                    Ok(())
                }
            },
            FileType::Symlink => {
                self.skip(path, Skip::Link);
                Ok(())
            }
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => {
                self.skip(path, Skip::Special);
                Ok(())
            }
        }
    }

    fn inner_folder(&mut self, place: &Place<'_>, name: &CStr, path: String) -> io::Result<()> {
        if place.depth + 1 >= self.limits.depth.min(MAX_DEPTH) {
            self.skip(path, Skip::TooDeep);
            return Ok(());
        }
        let from = match rustix::fs::openat(place.from, name, READ_FOLDER, Mode::empty()) {
            Ok(from) => from,
            Err(Errno::LOOP | Errno::NOTDIR) => {
                self.skip(path, Skip::Changed);
                return Ok(());
            }
            Err(error) => {
                self.skip(path, unreadable(error));
                return Ok(());
            }
        };
        let written = as_text(name.to_bytes());
        match rustix::fs::mkdirat(place.to, written.as_str(), Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let to = match rustix::fs::openat(place.to, written.as_str(), READ_FOLDER, Mode::empty()) {
            Ok(to) => to,
            Err(Errno::NOTDIR | Errno::LOOP) => {
                self.skip(path, Skip::NameTaken);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        rustix::fs::fchmod(&to, Mode::from_raw_mode(0o755))?;
        self.folder(&Place { from: &from, to: &to, path: &path, depth: place.depth + 1 })
    }

    /// Copies one file. The outer error is ours, the inner one a reason to leave it out.
    fn file(
        &mut self,
        place: &Place<'_>,
        name: &CStr,
        written: &str,
    ) -> io::Result<Result<u64, Skip>> {
        let (source, bytes) = match self.open(place.from, name) {
            Ok(opened) => opened,
            Err(reason) => return Ok(Err(reason)),
        };
        let mode = Mode::from_raw_mode(0o644);
        let target = match rustix::fs::openat(place.to, written, NEW_FILE, mode) {
            Ok(target) => target,
            Err(Errno::EXIST) => return Ok(Err(Skip::NameTaken)),
            Err(error) => return Err(error.into()),
        };
        rustix::fs::fchmod(&target, mode)?;
        // No more than was announced: the file may grow.
        let copied = io::copy(&mut source.take(bytes), &mut File::from(target))?;
        Ok(Ok(copied))
    }

    /// Opens a file that may be copied, with its size.
    fn open(&self, folder: &OwnedFd, name: &CStr) -> Result<(File, u64), Skip> {
        let source = match rustix::fs::openat(folder, name, READ_FILE, Mode::empty()) {
            Ok(source) => source,
            Err(Errno::LOOP | Errno::NXIO) => return Err(Skip::Changed),
            Err(error) => return Err(unreadable(error)),
        };
        // What was opened counts, not what was looked at before.
        let stat = rustix::fs::fstat(&source).map_err(unreadable)?;
        if FileType::from_raw_mode(stat.st_mode as RawMode) != FileType::RegularFile {
            return Err(Skip::Changed);
        }
        if stat.st_nlink > 1 && stat.st_uid != self.owner {
            return Err(Skip::ForeignHardLink);
        }
        let bytes = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if bytes > self.limits.file_bytes {
            return Err(Skip::TooLarge { bytes });
        }
        if bytes > self.limits.total_bytes - self.collected.total_bytes {
            return Err(Skip::TotalReached);
        }
        Ok((File::from(source), bytes))
    }

    fn skip(&mut self, path: String, reason: Skip) {
        self.collected.n_skipped += 1;
        if self.collected.skipped.len() < MAX_LISTED {
            self.collected.skipped.push(Skipped { path, reason });
        }
    }
}

/// Opens the folder to start from, segment by segment.
fn open_start(from: &AgentFolder) -> Result<OwnedFd, Errno> {
    let mut folder = rustix::fs::openat(CWD, &from.root, READ_FOLDER, Mode::empty())?;
    for segment in from.below.split('/').filter(|segment| !segment.is_empty()) {
        folder = rustix::fs::openat(folder.as_fd(), segment, READ_FOLDER, Mode::empty())?;
    }
    Ok(folder)
}

fn unreadable(error: Errno) -> Skip {
    Skip::Unreadable { error: error.kind() }
}

fn shown(path: &str) -> String {
    if path.is_empty() { ".".to_owned() } else { path.to_owned() }
}

/// A file name as text: what is no UTF-8 becomes `%XX`.
fn as_text(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}
