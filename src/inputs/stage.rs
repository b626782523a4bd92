//! Puts files into the folder of the step that is given them.

use std::io;
use std::path::PathBuf;

use super::error::FilesError;
use super::find::Input;
use crate::archive::{UnpackLimits, extract};
use crate::job::JobFile;
use crate::run::{RunName, Slug};
use crate::store::{Area, RunFolder, Store, StoreError, step_path};

/// The files of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepInputs {
    /// The step; `None` where the run has only one, so that its folder is the run's own.
    pub step: Option<Slug>,
    /// Its files.
    pub inputs: Vec<Input>,
}

/// The inputs as a job names them before they are in the run's folder: to be looked at.
#[must_use]
pub fn as_stored(inputs: &[Input]) -> Vec<JobFile> {
    let file = |input: &Input| JobFile {
        name: input.name.clone(),
        path: PathBuf::from(input.path.to_string()),
    };
    inputs.iter().map(file).collect()
}

/// Puts the inputs of every step of a new run into its folder. Nothing is made where there are
/// none. Blocks.
///
/// # Errors
/// [`FilesError`], and nothing is left then.
pub fn stage(
    store: &Store,
    name: &RunName,
    steps: &[StepInputs],
    min_free_disk_bytes: u64,
) -> Result<Vec<Vec<JobFile>>, FilesError> {
    if steps.iter().all(|step| step.inputs.is_empty()) {
        return Ok(vec![Vec::new(); steps.len()]);
    }
    store.reserve(name)?;
    let staged: Result<_, FilesError> =
        steps.iter().map(|step| stage_step(store, name, step, min_free_disk_bytes)).collect();
    if staged.is_err() {
        store.discard(name)?;
    }
    staged
}

/// Puts the inputs of one step into its folder, archives unpacked. Given files come first: they are
/// numbered in the sandbox. What an interrupted call left is made anew. Blocks.
///
/// # Errors
/// [`FilesError`].
pub fn stage_step(
    store: &Store,
    name: &RunName,
    StepInputs { step, inputs }: &StepInputs,
    min_free_disk_bytes: u64,
) -> Result<Vec<JobFile>, FilesError> {
    if inputs.is_empty() {
        return Ok(Vec::new());
    }
    let folder = store.step(name, step.as_ref())?;
    let place = step_path(name, step.as_ref());
    let assets = Area::Assets.path();
    let staged = |file: &str| JobFile {
        name: file.to_owned(),
        path: PathBuf::from(format!("{place}/{assets}/{file}")),
    };
    let has_room = || store.free_bytes().is_ok_and(|free| free >= min_free_disk_bytes);
    let mut files = Vec::new();
    for input in inputs {
        store
            .link_asset(&folder, &input.path, &input.name)
            .map_err(|error| not_linked(error, input))?;
        files.push(staged(&input.name));
    }
    let mut left = UnpackLimits::INPUTS;
    for input in inputs.iter().filter(|input| !input.members.is_empty()) {
        forget_members(&folder, input)?;
        let path = || input.path.to_string();
        let stored = store.open_file(&input.path)?;
        let stored = stored.ok_or_else(|| FilesError::Gone { path: path() })?;
        let members = extract(stored.file, &folder.area(Area::Assets), &left, &has_room)
            .map_err(|source| FilesError::Unpack { path: path(), source })?;
        left = left.after(&members);
        files.extend(members.iter().map(|member| staged(&member.path)));
    }
    Ok(files)
}

/// A file that cannot be put into its place: its owner may have removed it since it was looked at.
fn not_linked(error: StoreError, input: &Input) -> FilesError {
    match &error {
        StoreError::Write { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            FilesError::Gone { path: input.path.to_string() }
        }
        StoreError::Write { .. }
        | StoreError::Exists { .. }
        | StoreError::Create { .. }
        | StoreError::Read { .. } => FilesError::Store(error),
    }
}

/// Removes what an interrupted call unpacked. The members' paths were checked: they stay inside.
fn forget_members(folder: &RunFolder, input: &Input) -> Result<(), FilesError> {
    for member in &input.members {
        let path = folder.area(Area::Assets).join(&member.path);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::Write { path, source }.into());
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
