//! Opening what a path leads to: from folder to folder by descriptor, following no link.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// `NONBLOCK`, because opening a pipe would wait for its writer.
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens a regular file below `root`.
///
/// # Errors
/// `NotFound` when there is no such regular file, whatever else may be there.
pub(super) fn open_file<'a>(
    root: &Path,
    segments: impl Iterator<Item = &'a str>,
) -> io::Result<File> {
    let mut folder = open_root(root)?;
    let mut segments = segments.peekable();
    while let Some(segment) = segments.next() {
        if segments.peek().is_some() {
            folder = open_below(&folder, segment, FOLDER)?;
            continue;
        }
        let file = File::from(open_below(&folder, segment, FILE)?);
        return if file.metadata()?.is_file() { Ok(file) } else { Err(not_found()) };
    }
    Err(not_found())
}

fn open_root(root: &Path) -> io::Result<OwnedFd> {
    // The root is the operator's and may be a link.
    Ok(rustix::fs::openat(CWD, root, FOLDER.difference(OFlags::NOFOLLOW), Mode::empty())?)
}

fn open_below(folder: &OwnedFd, name: &str, how: OFlags) -> io::Result<OwnedFd> {
    use rustix::io::Errno;
    match rustix::fs::openat(folder, name, how, Mode::empty()) {
        Ok(below) => Ok(below),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::NXIO) => {
            Err(not_found())
        }
        Err(errno) => Err(errno.into()),
    }
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn read(root: &Path, path: &str) -> Option<String> {
        let mut text = String::new();
        open_file(root, path.split('/')).ok()?.read_to_string(&mut text).unwrap();
        Some(text)
    }

    #[test]
    fn only_regular_files_are_opened_and_no_link_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        std::fs::create_dir_all(root.join("c/t")).unwrap();
        std::fs::write(root.join("c/t/file"), "yes").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("c/link")).unwrap();
        std::os::unix::fs::symlink("t", root.join("c/folder-link")).unwrap();
        rustix::fs::mknodat(CWD, root.join("c/pipe"), rustix::fs::FileType::Fifo, Mode::RWXU, 0)
            .unwrap();
        assert_eq!(read(root, "c/t/file").as_deref(), Some("yes"));
        for path in ["c/link", "c/folder-link/file", "c/t", "c/pipe", "c/none", "c/t/file/x", "c"] {
            assert_eq!(read(root, path), None, "{path}");
        }
    }
}
