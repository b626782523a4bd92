//! The operator's folder of snapshots: one folder for each, with all that its build is sent.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::definition::{Origin, Snapshot};
use super::error::SnapshotError;
use crate::run::ContextFile;

/// The most that a build is sent, in bytes. It is held in memory and hashed at every start.
const MAX_BUILD_BYTES: u64 = 16 << 20;

/// Every snapshot in a folder.
pub(super) fn read(folder: &Path) -> Result<Vec<Snapshot>, SnapshotError> {
    let mut found = Vec::new();
    for path in entries(folder)? {
        // A note of the operator's may lie beside the snapshots.
        if kind(&path)?.is_dir() {
            found.push(Snapshot::read(&path, Origin::Own, files(&path)?)?);
        }
    }
    Ok(found)
}

/// All files below a folder, by their path in it.
fn files(root: &Path) -> Result<BTreeMap<String, ContextFile>, SnapshotError> {
    let mut files = BTreeMap::new();
    let mut n_bytes = 0;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in entries(&folder)? {
            let kind = kind(&path)?;
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            let inner = path.strip_prefix(root).ok().and_then(Path::to_str);
            let (true, Some(inner)) = (kind.is_file(), inner) else {
                return Err(SnapshotError::NotAFile { path });
            };
            n_bytes += kind.len();
            if n_bytes > MAX_BUILD_BYTES {
                let name = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
                return Err(SnapshotError::TooLarge { name, limit_bytes: MAX_BUILD_BYTES });
            }
            let bytes = fs::read(&path).map_err(|source| unreadable(&path, source))?;
            let is_executable = kind.permissions().mode() & 0o111 != 0;
            files.insert(inner.to_owned(), ContextFile { bytes, is_executable });
        }
    }
    Ok(files)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, SnapshotError> {
    let listed = fs::read_dir(folder).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
    });
    let mut paths = listed.map_err(|source| unreadable(folder, source))?;
    paths.sort();
    Ok(paths)
}

fn kind(path: &Path) -> Result<fs::Metadata, SnapshotError> {
    fs::symlink_metadata(path).map_err(|source| unreadable(path, source))
}

fn unreadable(path: &Path, source: io::Error) -> SnapshotError {
    SnapshotError::Read { path: path.to_owned(), source }
}
