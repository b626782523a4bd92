//! Files that clients send before or with a run: `<collection>/_sandbox_uploads/<batch>/<name>`.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;

use jiff::Timestamp;

use super::folder::UNFINISHED;
use super::path::StoragePath;
use super::{Area, RunFolder, Store, StoreError, folders};
use crate::run::Slug;

/// The folder of a collection's uploads, beside its tasks.
pub const UPLOADS_FOLDER: &str = "_sandbox_uploads";

/// What begins the id of an upload of one file; its batch follows.
pub const FILE_ID: &str = "file-";

/// Longest name that an upload keeps, in bytes. Longer ones are cut before their extension.
const MAX_NAME_BYTES: usize = 128;

/// Longest extension that is kept, in bytes.
const MAX_EXTENSION_BYTES: usize = 16;

/// How many files of one name one request may send.
const MAX_NAMESAKES: usize = 1000;

/// A file that is still being received. Dropped before [`Upload::keep`], it leaves nothing.
#[derive(Debug)]
pub struct Upload {
    part: tempfile::NamedTempFile,
    folder: PathBuf,
    storage_folder: String,
    name: String,
    n_bytes: u64,
}

/// A file that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptUpload {
    /// Its path below the results directory, as clients name it.
    pub path: String,
    /// Its own name.
    pub name: String,
    /// Its size.
    pub n_bytes: u64,
}

/// A file that was uploaded before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadedFile {
    /// Its id, `file-` and its batch.
    pub id: String,
    /// Where it is.
    pub path: StoragePath,
    /// Its size.
    pub n_bytes: u64,
    /// When it came.
    pub created: Timestamp,
}

impl StoragePath {
    /// The digits of the upload that a file belongs to; `None` where it is no upload.
    #[must_use]
    pub fn upload_digits(&self) -> Option<&str> {
        let mut segments = self.segments().skip(1);
        (segments.next() == Some(UPLOADS_FOLDER)).then(|| segments.next())?
    }
}

impl Store {
    /// Starts to receive a file. `batch` is the same for the files of one request. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Create`] or [`StoreError::Write`] when the disk refuses it.
    pub fn receive(
        &self,
        collection: &Slug,
        batch: &Slug,
        name: &str,
    ) -> Result<Upload, StoreError> {
        let storage_folder = format!("{collection}/{UPLOADS_FOLDER}/{batch}");
        let folder = self.root.join(&storage_folder);
        std::fs::create_dir_all(&folder)
            .map_err(|source| StoreError::Create { path: folder.clone(), source })?;
        let part = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&folder);
        let part = part.map_err(|source| StoreError::Write { path: folder.clone(), source })?;
        Ok(Upload { part, folder, storage_folder, name: harmless_name(name), n_bytes: 0 })
    }

    /// Removes an upload. It is no error when it has gone already. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Write`] when the disk refuses it.
    pub fn remove_upload(&self, path: &StoragePath) -> Result<(), StoreError> {
        if path.segments().nth(1) != Some(UPLOADS_FOLDER) {
            return Ok(());
        }
        let path = self.root.join(path.to_string());
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(StoreError::Write { path, source }),
        }
        // The batch's folder goes with its last file; until then the removal is refused.
        if let Some(batch) = path.parent() {
            std::fs::remove_dir(batch).unwrap_or_default();
        }
        Ok(())
    }
}

impl Store {
    /// Removes all files of one request, also those that are not whole. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Write`] when the disk refuses it.
    pub fn remove_batch(&self, collection: &Slug, batch: &Slug) -> Result<(), StoreError> {
        let folder = self.root.join(collection.as_str()).join(UPLOADS_FOLDER);
        let path = folder.join(batch.as_str());
        match std::fs::remove_dir_all(&path) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(StoreError::Write { path, source }),
        }
    }

    /// The file that an id such as `file-0123456789ab` names: the one of its batch. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Read`] when the disk refuses it.
    pub fn upload(&self, collection: &Slug, id: &str) -> Result<Option<UploadedFile>, StoreError> {
        let batch = id.strip_prefix(FILE_ID).and_then(|batch| Slug::new(batch).ok());
        let Some(batch) = batch else { return Ok(None) };
        let folder = self.root.join(collection.as_str()).join(UPLOADS_FOLDER).join(batch.as_str());
        let read = |source| StoreError::Read { path: folder.clone(), source };
        let listed = match std::fs::read_dir(&folder) {
            Ok(listed) => listed,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(read(source)),
        };
        for entry in listed {
            let entry = entry.map_err(read)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let metadata = entry.metadata().map_err(read)?;
            if name.starts_with(UNFINISHED) || !metadata.is_file() {
                continue;
            }
            let path = format!("{collection}/{UPLOADS_FOLDER}/{batch}/{name}");
            let path = StoragePath::parse(&path).map_err(|e| read(io::Error::other(e)))?;
            let created = metadata.modified().map_err(read)?;
            let created = Timestamp::try_from(created).unwrap_or(Timestamp::UNIX_EPOCH);
            let (id, n_bytes) = (id.to_owned(), metadata.len());
            return Ok(Some(UploadedFile { id, path, n_bytes, created }));
        }
        Ok(None)
    }

    /// The newest uploads of a collection, at most `limit`. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Read`] when the disk refuses it.
    pub fn uploads(
        &self,
        collection: &Slug,
        limit: usize,
    ) -> Result<Vec<UploadedFile>, StoreError> {
        let folder = self.root.join(collection.as_str()).join(UPLOADS_FOLDER);
        let read = |source| StoreError::Read { path: folder.clone(), source };
        let listed = match std::fs::read_dir(&folder) {
            Ok(listed) => listed,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(read(source)),
        };
        let mut found = Vec::new();
        for entry in listed {
            if let Ok(batch) = entry.map_err(read)?.file_name().into_string() {
                found.extend(self.upload(collection, &format!("{FILE_ID}{batch}"))?);
            }
        }
        found.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
        found.truncate(limit);
        Ok(found)
    }

    /// Files that were uploaded before `before`, of every collection, at most `limit`. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Read`] when a folder cannot be listed.
    pub fn uploads_before(
        &self,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<StoragePath>, StoreError> {
        let mut old = Vec::new();
        for collection in folders(&self.root)? {
            let uploads = self.root.join(collection.as_str()).join(UPLOADS_FOLDER);
            if !uploads.is_dir() {
                continue;
            }
            for batch in folders(&uploads)? {
                let prefix = StoragePath::parse(&format!("{collection}/{UPLOADS_FOLDER}/{batch}"));
                let Ok(prefix) = prefix else { continue };
                let room = limit.saturating_sub(old.len());
                let files = self.list_files(&prefix, room)?.files;
                let paths = files.iter().filter_map(|file| StoragePath::parse(&file.path).ok());
                old.extend(paths.filter(|path| self.is_before(path, before)));
            }
        }
        Ok(old)
    }

    /// Whether a file came before. One that has gone meanwhile did not.
    fn is_before(&self, path: &StoragePath, before: Timestamp) -> bool {
        let changed = std::fs::symlink_metadata(self.root.join(path.to_string()));
        let changed = changed.and_then(|metadata| metadata.modified());
        changed.is_ok_and(|at| Timestamp::try_from(at).is_ok_and(|at| at < before))
    }

    /// Gives a run a stored file under a name. The file is shared where the disk can, so it must not
    /// be written to any more: uploads and results never are. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Write`] when the disk refuses it.
    pub fn link_asset(
        &self,
        folder: &RunFolder,
        from: &StoragePath,
        name: &str,
    ) -> Result<(), StoreError> {
        let to = folder.area(Area::Assets).join(name);
        let source = self.root.join(from.to_string());
        // One that an interrupted call left may be the same file: a copy would empty both.
        let _ = std::fs::remove_file(&to);
        let linked = std::fs::hard_link(&source, &to);
        linked
            .or_else(|_| std::fs::copy(&source, &to).map(|_| ()))
            .map_err(|source| StoreError::Write { path: to, source })
    }
}

impl Upload {
    /// Adds bytes. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Write`] when the disk refuses them.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let written = self.part.write_all(bytes);
        written.map_err(|source| StoreError::Write { path: self.folder.clone(), source })?;
        self.n_bytes += bytes.len() as u64;
        Ok(())
    }

    /// What was received so far.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Keeps the file under its name; when another of the batch has it, with a number. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Write`] when the disk refuses it.
    pub fn keep(self) -> Result<KeptUpload, StoreError> {
        let Self { part, folder, storage_folder, name, n_bytes } = self;
        let write = |source| StoreError::Write { path: folder.clone(), source };
        part.as_file().sync_all().map_err(write)?;
        let mut part = part;
        for n in 1..=MAX_NAMESAKES {
            let name = numbered(&name, n);
            match part.persist_noclobber(folder.join(&name)) {
                Ok(_) => {
                    File::open(&folder).and_then(|folder| folder.sync_all()).map_err(write)?;
                    return Ok(KeptUpload {
                        path: format!("{storage_folder}/{name}"),
                        name,
                        n_bytes,
                    });
                }
                Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => part = e.file,
                Err(e) => return Err(write(e.error)),
            }
        }
        Err(write(io::Error::from(io::ErrorKind::AlreadyExists)))
    }
}

/// The last segment of a name from somebody else, without what a path or a terminal would read.
fn harmless_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let clean: String = last.chars().filter(|c| !c.is_control()).collect();
    // A leading dot would hide the file or make it one of ours that is unfinished.
    let clean = clean.trim().trim_start_matches('.');
    if clean.is_empty() {
        return "file".to_owned();
    }
    let (stem, extension) = split_extension(clean);
    let room = MAX_NAME_BYTES - extension.len();
    let end = (0..=room.min(stem.len())).rev().find(|&at| stem.is_char_boundary(at));
    format!("{}{extension}", &stem[..end.unwrap_or(0)])
}

/// A name and its extension, dot included; the extension is empty when there is none.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(at) if at > 0 && name.len() - at <= MAX_EXTENSION_BYTES => name.split_at(at),
        Some(_) | None => (name, ""),
    }
}

/// The name for the `n`th file that would have it.
fn numbered(name: &str, n: usize) -> String {
    let (stem, extension) = split_extension(name);
    if n == 1 { name.to_owned() } else { format!("{stem}-{n}{extension}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_upload_is_kept_whole_under_a_name_of_its_own_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let (team, batch) = (Slug::new("team").unwrap(), Slug::new("0123456789ab").unwrap());
        let receive = |name: &str| {
            let mut upload = store.receive(&team, &batch, name).unwrap();
            upload.append(b"12").unwrap();
            upload.append(b"3").unwrap();
            upload
        };
        drop(receive("gone.txt"));
        let folder = "team/_sandbox_uploads/0123456789ab";
        for expected in ["case.json", "case-2.json", "case-3.json"] {
            let kept = receive("../x\\case.json").keep().unwrap();
            let path = format!("{folder}/{expected}");
            assert_eq!(kept, KeptUpload { path, name: expected.to_owned(), n_bytes: 3 });
        }
        let all = StoragePath::parse(folder).unwrap();
        let listed = store.list_files(&all, 10).unwrap().files;
        assert_eq!(listed.len(), 3);
        for file in &listed {
            store.remove_upload(&StoragePath::parse(&file.path).unwrap()).unwrap();
        }
        assert!(!root.path().join(folder).exists());
    }

    proptest! {
        #[test]
        fn a_kept_name_is_one_harmless_segment(name in r"(?s).{0,300}") {
            let name = harmless_name(&name);
            prop_assert!(!name.is_empty() && name.len() <= MAX_NAME_BYTES);
            prop_assert!(!name.starts_with('.') && !name.contains(['/', '\\', '\0', '\n']));
            let path = format!("c/{name}");
            prop_assert_eq!(StoragePath::parse(&path).unwrap().to_string(), path);
        }
    }
}
