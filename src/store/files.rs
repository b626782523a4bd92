//! Reading what is stored: one file by its path, or a list of files below a prefix.

use std::fs::File;
use std::io;
use std::path::Path;

use super::folder::UNFINISHED;
use super::open::open_file;
use super::path::StoragePath;
use super::{Store, StoreError};

/// Deepest folder that is listed. Nothing that we write lies deeper.
const MAX_DEPTH: usize = 72;

/// A stored file, open for reading.
#[derive(Debug)]
pub struct StoredFile {
    /// The file. Reading it blocks.
    pub file: File,
    /// Its size when it was opened.
    pub n_bytes: u64,
}

/// A file that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFile {
    /// Its path below the results directory.
    pub path: String,
    /// Its size.
    pub n_bytes: u64,
}

/// The files below a prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The files, sorted by path within each folder.
    pub files: Vec<ListedFile>,
    /// Whether there are more than were asked for.
    pub cut_off: bool,
}

impl Store {
    /// Opens a stored file. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Read`] when the disk refuses it. `None` when there is no such regular file.
    pub fn open_file(&self, path: &StoragePath) -> Result<Option<StoredFile>, StoreError> {
        let read = |source| StoreError::Read { path: self.root.join(path.to_string()), source };
        match open_file(&self.root, path.segments()) {
            Ok(file) => {
                let n_bytes = file.metadata().map_err(read)?.len();
                Ok(Some(StoredFile { file, n_bytes }))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(read(source)),
        }
    }

    /// Lists the files whose path starts with `prefix`, at most `limit` of them. The last segment
    /// may be the beginning of a name. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Read`] when a folder cannot be listed.
    pub fn list_files(&self, prefix: &StoragePath, limit: usize) -> Result<Listing, StoreError> {
        let mut walk = Walk { limit, listing: Listing::default() };
        let text = prefix.to_string();
        walk.folder(&self.root.join(&text), &text, "", MAX_DEPTH)?;
        // The name of a folder that is there is not also taken for the beginning of another's.
        if walk.listing.files.is_empty()
            && let Some((folder, start)) = text.rsplit_once('/')
        {
            walk.folder(&self.root.join(folder), folder, start, MAX_DEPTH)?;
        }
        Ok(walk.listing)
    }
}

struct Walk {
    limit: usize,
    listing: Listing,
}

impl Walk {
    /// Lists what is in a folder and begins with `start`.
    fn folder(
        &mut self,
        folder: &Path,
        path: &str,
        start: &str,
        depth: usize,
    ) -> Result<(), StoreError> {
        for (name, kind) in entries(folder)? {
            if self.listing.cut_off {
                break;
            }
            if !name.starts_with(start) || name.starts_with(UNFINISHED) {
                continue;
            }
            let (below, path) = (folder.join(&name), format!("{path}/{name}"));
            match kind {
                Kind::Other => {}
                Kind::Folder if depth == 0 => self.listing.cut_off = true,
                Kind::Folder => self.folder(&below, &path, "", depth - 1)?,
                Kind::File if self.listing.files.len() == self.limit => self.listing.cut_off = true,
                Kind::File => {
                    // A file that has gone meanwhile is not there.
                    if let Ok(metadata) = std::fs::symlink_metadata(&below) {
                        self.listing.files.push(ListedFile { path, n_bytes: metadata.len() });
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether a path leads nowhere, be it that no path could be so.
fn is_not_there(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | InvalidFilename)
}

/// What stands in a folder: a file, a folder, or what is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
    Other,
}

/// The names in a folder, sorted; none when it is not there. Names that are no text are not ours.
fn entries(folder: &Path) -> Result<Vec<(String, Kind)>, StoreError> {
    let unreadable = |source| StoreError::Read { path: folder.to_owned(), source };
    let listed = match std::fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(e) if is_not_there(&e) => return Ok(Vec::new()),
        Err(source) => return Err(unreadable(source)),
    };
    let mut found = Vec::new();
    for entry in listed {
        let entry = entry.map_err(unreadable)?;
        let kind = entry.file_type().map_err(unreadable)?;
        let kind = match (kind.is_file(), kind.is_dir()) {
            (true, _) => Kind::File,
            (_, true) => Kind::Folder,
            (false, false) => Kind::Other,
        };
        found.extend(entry.file_name().into_string().ok().map(|name| (name, kind)));
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_listed_below_a_folder_or_a_beginning_of_a_name() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        for path in ["c/t/aa1/results/x.md", "c/t/aa2/x", "c/t/bb1/x", "c/u/x", "d/t/x"] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "12").unwrap();
        }
        std::fs::write(root.path().join("c/t/aa1/.write-1"), "").unwrap();
        std::os::unix::fs::symlink("/etc", root.path().join("c/t/aa1/link")).unwrap();
        let listed = |prefix: &str, limit| {
            let listing = store.list_files(&StoragePath::parse(prefix).unwrap(), limit).unwrap();
            let paths = listing.files.into_iter().map(|file| file.path);
            (paths.collect::<Vec<_>>().join(" "), listing.cut_off)
        };
        assert_eq!(listed("c/t/aa1", 9), ("c/t/aa1/results/x.md".to_owned(), false));
        assert_eq!(listed("c/t/aa", 9), ("c/t/aa1/results/x.md c/t/aa2/x".to_owned(), false));
        assert_eq!(listed("c/t", 2), ("c/t/aa1/results/x.md c/t/aa2/x".to_owned(), true));
        assert_eq!(listed("c/none/x", 9), (String::new(), false));
    }
}
