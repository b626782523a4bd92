//! The files that a run is given: from what a client names to files in the run's own folder.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use crate::archive::{ArchiveError, ArchiveFault, Member, UnpackLimits, check, extract};
use crate::job::JobFile;
use crate::run::{RunName, Slug};
use crate::store::{Area, RunFolder, StoragePath, Store, StoreError};

/// Most files that one request names. Members of archives are counted apart.
const MAX_FILES: usize = 200;

/// Longest name of a file that file systems take, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// Most files of one request that are told to be in each other's way.
const MAX_TOLD: usize = 10;

/// What the names of archives end in that are unpacked.
const ARCHIVE: &str = ".zip";

/// A stored file that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) path: StoragePath,
    /// What the run calls it.
    pub(super) name: String,
    /// What is in it, where it is an archive.
    pub(super) members: Vec<Member>,
}

/// Why a run's files could not be put into its folder.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The disk failed.
    #[error("could not look at the files of a run")]
    Store(#[from] StoreError),
    /// A file has gone since it was looked at.
    #[error("the file `{path}` has gone")]
    Gone {
        /// Its storage path.
        path: String,
    },
    /// An archive could not be unpacked.
    #[error("could not unpack `{path}`")]
    Unpack {
        /// Its storage path.
        path: String,
        /// Why.
        source: ArchiveError,
    },
}

/// Finds the files of a request. Every entry that leads to none is a problem. Blocks.
pub(super) fn find(
    store: &Store,
    collection: &Slug,
    file_paths: &[String],
    ids: &[String],
    problems: &mut Vec<String>,
) -> Result<Vec<Input>, FilesError> {
    let n_entries = file_paths.len() + ids.len();
    if n_entries > MAX_FILES {
        problems.push(format!(
            "The request names {n_entries} files: give at most {MAX_FILES}, or one zip archive."
        ));
        return Ok(Vec::new());
    }
    let (mut found, mut left) = (Vec::new(), UnpackLimits::INPUTS);
    for (entry, slot) in
        file_paths.iter().map(|path| (path, "file_paths")).chain(ids.iter().map(|id| (id, "files")))
    {
        match one(store, collection, (entry, slot), &left)? {
            Ok(input) => {
                left = left.after(&input.members);
                found.push(input);
            }
            Err(problem) => problems.push(problem),
        }
    }
    number_namesakes(&mut found);
    problems.extend(collisions(&found));
    problems.extend(found.iter().filter(|input| input.name.len() > MAX_NAME_BYTES).map(|input| {
        format!("The name of the file `{}` is too long for /app/assets: rename it.", input.path)
    }));
    Ok(found)
}

/// The file of one entry, or why there is none.
fn one(
    store: &Store,
    collection: &Slug,
    (entry, slot): (&str, &str),
    left: &UnpackLimits,
) -> Result<Result<Input, String>, FilesError> {
    let path = match place(store, collection, entry, slot)? {
        Ok(path) => path,
        Err(problem) => return Ok(Err(problem)),
    };
    let Some(stored) = store.open_file(&path)? else {
        return Ok(Err(format!(
            "`{slot}`: there is no stored file `{entry}`. Upload it with `POST \
             /api/v1/sandbox/upload` and give the path that the answer has in `file_paths`, or with \
             `POST /api/v1/files` and give the id in `files`."
        )));
    };
    let name = path.file_name().to_owned();
    let mut members = Vec::new();
    if is_archive(&name) {
        match check(stored.file, left) {
            Ok(found) => members = found,
            Err(fault) => {
                let together = together(&fault, left);
                return Ok(Err(format!(
                    "`{slot}`: the archive `{entry}` cannot be unpacked: {fault}{together}."
                )));
            }
        }
    }
    Ok(Ok(Input { path, name, members }))
}

/// Where an entry leads.
fn place(
    store: &Store,
    collection: &Slug,
    entry: &str,
    slot: &str,
) -> Result<Result<StoragePath, String>, FilesError> {
    if entry.starts_with("file-") && !entry.contains('/') {
        let found = store.upload(collection, entry)?;
        return Ok(found.map(|upload| upload.path).ok_or_else(|| {
            format!(
                "`{slot}`: there is no file with the id `{entry}` in the collection \
                 `{collection}`. `POST /api/v1/files` gives an id."
            )
        }));
    }
    let path = match StoragePath::parse(entry) {
        Ok(path) => path,
        Err(e) => return Ok(Err(format!("`{slot}`: {e}."))),
    };
    if path.collection() != collection {
        return Ok(Err(format!(
            "`{slot}`: the file `{entry}` does not belong to the collection `{collection}`: \
             upload it there."
        )));
    }
    Ok(Ok(path))
}

/// Says whose limit it is, where archives before this one have used it up.
fn together(fault: &ArchiveFault, left: &UnpackLimits) -> String {
    let all = UnpackLimits::INPUTS;
    let is_limit = matches!(fault, ArchiveFault::TooMany { .. } | ArchiveFault::TooLarge { .. });
    if !is_limit || (left.n_members, left.total_bytes) == (all.n_members, all.total_bytes) {
        return String::new();
    }
    format!(
        ", because the archives of one request may have {} members and {} bytes together",
        all.n_members, all.total_bytes
    )
}

fn is_archive(name: &str) -> bool {
    name.len() > ARCHIVE.len() && name.to_ascii_lowercase().ends_with(ARCHIVE)
}

/// Gives every file a name of its own: the second `a.txt` is `a-2.txt`.
fn number_namesakes(inputs: &mut [Input]) {
    let mut taken = BTreeSet::new();
    for input in inputs {
        let (stem, extension) = match input.name.rfind('.') {
            Some(at) if at > 0 => input.name.split_at(at),
            Some(_) | None => (input.name.as_str(), ""),
        };
        let numbered = (2..).map(|n| format!("{stem}-{n}{extension}"));
        let free = std::iter::once(input.name.clone()).chain(numbered);
        let free = free.into_iter().find(|name| !taken.contains(name));
        input.name = free.unwrap_or_default();
        taken.insert(input.name.clone());
    }
}

/// Files that would take each other's place, be it that one is a folder to the other. Namesakes
/// among the given files have their numbers already.
fn collisions(inputs: &[Input]) -> Vec<String> {
    let given = inputs.iter().map(|input| (input.name.as_str(), input, None));
    let members = inputs.iter().flat_map(|input| {
        input.members.iter().map(move |member| (member.path.as_str(), input, Some(member)))
    });
    let files: Vec<(&str, &Input, Option<&Member>)> = given.chain(members).collect();
    let told = |(path, input, member): &(&str, &Input, Option<&Member>)| match member {
        Some(_) => format!("`{path}` in the archive `{}`", input.path),
        None => format!("the file `{}`", input.path),
    };
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut problems = Vec::new();
    for (index, file) in files.iter().enumerate() {
        if let Some(other) = places.insert(file.0, index) {
            problems.push(format!(
                "{} and {} would have the same place in /app/assets: rename one.",
                told(&files[other]),
                told(file)
            ));
        }
    }
    for file in &files {
        let folders = file.0.match_indices('/').map(|(at, _)| &file.0[..at]);
        if let Some(other) = folders.filter_map(|folder| places.get(folder)).next() {
            problems.push(format!(
                "{} cannot be in /app/assets beside {}, whose name is that of its folder: rename \
                 one.",
                told(file),
                told(&files[*other])
            ));
        }
    }
    problems.truncate(MAX_TOLD);
    problems
}

/// The inputs as a job names them before they are in the run's folder: to be looked at.
pub(super) fn as_stored(inputs: &[Input]) -> Vec<JobFile> {
    let file = |input: &Input| JobFile {
        name: input.name.clone(),
        path: PathBuf::from(input.path.to_string()),
    };
    inputs.iter().map(file).collect()
}

/// Puts the inputs into the run's folder, archives unpacked, so that nobody can change or remove
/// them before the run begins. Given files come first: they are numbered in the sandbox. Blocks.
pub(super) fn stage(
    store: &Store,
    name: &RunName,
    inputs: &[Input],
    min_free_disk_bytes: u64,
) -> Result<Vec<JobFile>, FilesError> {
    if inputs.is_empty() {
        return Ok(Vec::new());
    }
    let has_room = || store.free_bytes().is_ok_and(|free| free >= min_free_disk_bytes);
    let folder = store.create(name)?;
    let staged = stage_into((store, &has_room), &folder, name, inputs);
    if staged.is_err() {
        store.discard(name)?;
    }
    staged
}

fn stage_into(
    (store, has_room): (&Store, &dyn Fn() -> bool),
    folder: &RunFolder,
    name: &RunName,
    inputs: &[Input],
) -> Result<Vec<JobFile>, FilesError> {
    let assets = Area::Assets.path();
    let staged = |file: &str| JobFile {
        name: file.to_owned(),
        path: PathBuf::from(format!("{name}/{assets}/{file}")),
    };
    let mut files = Vec::new();
    for input in inputs {
        store.link_asset(folder, &input.path, &input.name).map_err(|error| match &error {
            // Its owner removed it since it was looked at.
            StoreError::Write { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                FilesError::Gone { path: input.path.to_string() }
            }
            StoreError::Write { .. }
            | StoreError::Exists { .. }
            | StoreError::Create { .. }
            | StoreError::Read { .. } => FilesError::Store(error),
        })?;
        files.push(staged(&input.name));
    }
    let mut left = UnpackLimits::INPUTS;
    for input in inputs.iter().filter(|input| !input.members.is_empty()) {
        let path = || input.path.to_string();
        let stored = store.open_file(&input.path)?;
        let stored = stored.ok_or_else(|| FilesError::Gone { path: path() })?;
        let members = extract(stored.file, &folder.area(Area::Assets), &left, has_room)
            .map_err(|source| FilesError::Unpack { path: path(), source })?;
        left = left.after(&members);
        files.extend(members.iter().map(|member| staged(&member.path)));
    }
    Ok(files)
}

impl FilesError {
    /// Whether the disk had no room.
    pub(super) fn is_no_room(&self) -> bool {
        matches!(self, Self::Unpack { source: ArchiveError::NoRoom, .. })
    }

    /// Whether another id would do.
    pub(super) fn is_name_taken(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_name_taken())
    }
}

impl From<FilesError> for io::Error {
    fn from(error: FilesError) -> Self {
        Self::other(error)
    }
}
