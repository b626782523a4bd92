//! From what names a file to the stored file, or to why there is none.

use std::collections::BTreeSet;

use super::error::FilesError;
use crate::archive::{UnpackLimits, check};
use crate::run::Slug;
use crate::store::{StoragePath, Store};

/// Most files that one request names. Members of archives are counted apart.
const MAX_FILES: usize = 200;

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
    pub members: Vec<String>,
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
    let mut found = Vec::new();
    for (entry, slot) in
        file_paths.iter().map(|path| (path, "file_paths")).chain(ids.iter().map(|id| (id, "files")))
    {
        match one(store, collection, entry, slot)? {
            Ok(input) => found.push(input),
            Err(problem) => problems.push(problem),
        }
    }
    number_namesakes(&mut found, taken);
    problems.extend(collisions(&found, taken));
    Ok(found)
}

/// The file of one entry, or why there is none.
fn one(
    store: &Store,
    collection: &Slug,
    entry: &str,
    slot: &str,
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
        match check(stored.file, &UnpackLimits::INPUTS) {
            Ok(found) => members = found.into_iter().map(|member| member.path).collect(),
            Err(fault) => {
                return Ok(Err(format!(
                    "`{slot}`: the archive `{entry}` cannot be unpacked: {fault}."
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

/// Members of archives that would take another file's place.
fn collisions(inputs: &[Input], others: &[String]) -> Vec<String> {
    let mut taken: BTreeSet<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
    taken.extend(others.iter().map(String::as_str));
    let mut problems = Vec::new();
    for input in inputs {
        for member in &input.members {
            let top = member.split('/').next().unwrap_or(member);
            let is_in_the_way = !taken.insert(member)
                || (top != member && inputs.iter().any(|other| other.name == top));
            if is_in_the_way {
                problems.push(format!(
                    "`{member}` in the archive `{}` would take the place of another file in \
                     /app/assets: rename one.",
                    input.path
                ));
            }
        }
    }
    problems
}
