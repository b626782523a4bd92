//! Removing what a hostile process may have built: any depth, any mode, any number of files.

use std::ffi::CStr;
use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// Removes a folder and everything in it. A folder that is not there is removed already.
///
/// A recursive removal holds a descriptor or a stack frame for each level, and a process can nest
/// folders without end. Here every inner folder is first moved up to the top, so that the tree is
/// never walked deeper than two levels. Only for trees in which nothing runs any more.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    let root = match rustix::fs::openat(CWD, path, FOLDER, Mode::empty()) {
        Ok(root) => root,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut n_moved = 0_u64;
    loop {
        let mut n_seen = 0_u64;
        let mut n_left = 0_u64;
        let n_moved_before = n_moved;
        for entry in Dir::read_from(&root)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dots(name) {
                continue;
            }
            n_seen += 1;
            if !unlink(&root, name)? && !empty(&root, name, &mut n_moved)? {
                n_left += 1;
            }
        }
        if n_seen == 0 {
            rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR)?;
            return Ok(());
        }
        if n_left == n_seen && n_moved == n_moved_before {
            return Err(io::Error::from(io::ErrorKind::DirectoryNotEmpty));
        }
    }
}

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Moves the folders of one folder to the top and removes the rest, then the folder itself. Says
/// whether it is gone: a folder that changes while it is read may keep entries for another round.
fn empty(root: &impl std::os::fd::AsFd, name: &CStr, n_moved: &mut u64) -> io::Result<bool> {
    make_passable(root, name);
    let folder = rustix::fs::openat(root, name, FOLDER, Mode::empty())?;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let inner = entry.file_name();
        if is_dots(inner) || unlink(&folder, inner)? {
            continue;
        }
        // Moving a folder changes its `..`, for which it must be writable.
        make_passable(&folder, inner);
        move_up(&folder, inner, root, n_moved)?;
    }
    match rustix::fs::unlinkat(root, name, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(true),
        Err(Errno::NOTEMPTY) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn move_up(
    folder: &impl std::os::fd::AsFd,
    inner: &CStr,
    root: &impl std::os::fd::AsFd,
    n_moved: &mut u64,
) -> io::Result<()> {
    loop {
        *n_moved += 1;
        let name = format!("removed-{n_moved}");
        match rustix::fs::renameat_with(folder, inner, root, name, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes anything but a folder. Says whether it was one.
fn unlink(folder: &impl std::os::fd::AsFd, name: &CStr) -> io::Result<bool> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        // POSIX says PERM for a folder, Linux says ISDIR.
        Err(Errno::ISDIR | Errno::PERM) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn make_passable(folder: &impl std::os::fd::AsFd, name: &CStr) {
    // Where this fails the open below it fails too, and says why.
    let _ = rustix::fs::chmodat(folder, name, Mode::RWXU, AtFlags::empty());
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_is_removed_already() {
        let scratch = tempfile::tempdir().unwrap();
        assert!(remove_tree(&scratch.path().join("none")).is_ok());
    }

    #[test]
    fn a_tree_deeper_than_any_path_with_closed_folders_and_links_is_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let outside = scratch.path().join("outside");
        std::fs::write(&outside, "stays").unwrap();
        let root = scratch.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let mut folder = rustix::fs::openat(CWD, &root, FOLDER, Mode::empty()).unwrap();
        for level in 0..3_000 {
            rustix::fs::symlinkat(&outside, &folder, "link").unwrap();
            rustix::fs::mkdirat(&folder, "removed-1", Mode::RWXU).unwrap();
            let inner = rustix::fs::openat(&folder, "removed-1", FOLDER, Mode::empty()).unwrap();
            if level % 7 == 0 {
                rustix::fs::fchmod(&folder, Mode::empty()).unwrap();
            }
            folder = inner;
        }
        remove_tree(&root).unwrap();
        assert!(!root.exists());
        assert_eq!(std::fs::read_to_string(outside).unwrap(), "stays");
    }
}
