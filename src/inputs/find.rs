//! From what names a file to the stored file, or to why there is none.

use std::collections::{BTreeMap, BTreeSet};

use super::error::FilesError;
use crate::archive::{ArchiveFault, Member, UnpackLimits, check};
use crate::run::Slug;
use crate::store::{StoragePath, Store};

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
pub struct Input {
    /// Where it is stored.
    pub path: StoragePath,
    /// What the run calls it.
    pub name: String,
    /// What is in it, where it is an archive.
    pub members: Vec<Member>,
}

/// The files that somebody names, in both lists.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// By their storage paths.
    pub file_paths: &'a [String],
    /// By their ids.
    pub ids: &'a [String],
    /// The names in `/app/assets` that others have already.
    pub taken: &'a [String],
}

/// Finds stored files of a collection. Every entry that leads to none is a problem. Blocks.
///
/// # Errors
/// [`FilesError`] when the disk fails.
pub fn find(
    store: &Store,
    collection: &Slug,
    Named { file_paths, ids, taken }: Named<'_>,
    problems: &mut Vec<String>,
) -> Result<Vec<Input>, FilesError> {
    let n_entries = file_paths.len() + ids.len();
    if n_entries > MAX_FILES {
        problems.push(format!(
            "A step is given {n_entries} files: give at most {MAX_FILES}, or one zip archive."
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
    number_namesakes(&mut found, taken);
    problems.extend(collisions(&found, taken));
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
fn number_namesakes(inputs: &mut [Input], taken: &[String]) {
    let mut taken: BTreeSet<String> = taken.iter().cloned().collect();
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

/// A file that will be in `/app/assets`, for whoever is told that it cannot be.
#[derive(Clone, Copy)]
enum Placed<'a> {
    Given(&'a Input),
    Unpacked(&'a Input, &'a Member),
    /// Of others.
    Taken(&'a str),
}

impl<'a> Placed<'a> {
    fn path(self) -> &'a str {
        match self {
            Self::Given(input) => &input.name,
            Self::Unpacked(_, member) => &member.path,
            Self::Taken(name) => name,
        }
    }

    fn told(self) -> String {
        match self {
            Self::Given(input) => format!("the file `{}`", input.path),
            Self::Unpacked(input, member) => {
                format!("`{}` in the archive `{}`", member.path, input.path)
            }
            Self::Taken(name) => format!("the file `{name}` that the step has already"),
        }
    }
}

/// Files that would take each other's place, be it that one is a folder to the other. Namesakes
/// among the given files have their numbers already.
fn collisions(inputs: &[Input], others: &[String]) -> Vec<String> {
    let taken = others.iter().map(|name| Placed::Taken(name));
    let members = inputs
        .iter()
        .flat_map(|input| input.members.iter().map(move |member| Placed::Unpacked(input, member)));
    let files: Vec<Placed<'_>> =
        taken.chain(inputs.iter().map(Placed::Given)).chain(members).collect();
    let mut places: BTreeMap<&str, Placed<'_>> = BTreeMap::new();
    let mut problems = Vec::new();
    for file in &files {
        if let Some(other) = places.insert(file.path(), *file) {
            problems.push(format!(
                "{} and {} would have the same place in /app/assets: rename one.",
                other.told(),
                file.told()
            ));
        }
    }
    for file in &files {
        let path = file.path();
        let folders = path.match_indices('/').map(|(at, _)| &path[..at]);
        if let Some(other) = folders.filter_map(|folder| places.get(folder)).next() {
            problems.push(format!(
                "{} cannot be in /app/assets beside {}, whose name is that of its folder: rename \
                 one.",
                file.told(),
                other.told()
            ));
        }
    }
    problems.truncate(MAX_TOLD);
    problems
}
