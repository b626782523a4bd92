//! A folder that a run writes: whether it can be, and whether there is room.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::sized;
use crate::run::Check;

/// Below this a run soon cannot write any more: the agent's files and its log grow quickly.
const LOW_BYTES: u64 = 1 << 30;

/// Below this not even the record of a run is sure to be written.
const LEAST_BYTES: u64 = 64 << 20;

/// The permissions by which others than the owner may write.
const OTHERS_WRITE: u32 = 0o022;

/// What a folder is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Sandboxes live in it: nobody else may write there.
    State,
    /// Agent CLIs are kept in it and run from it; so many bytes are still to come.
    Cache {
        /// The bytes that the next run writes there.
        needed_bytes: u64,
    },
    /// Results are kept in it.
    Results,
}

impl Purpose {
    /// The name of its check.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::State => "state-folder",
            Self::Cache { .. } => "cache-folder",
            Self::Results => "results-folder",
        }
    }

    /// How a person names another folder.
    fn setting(self) -> &'static str {
        match self {
            Self::State => "RUNBOOKD_STATE",
            Self::Cache { .. } => "RUNBOOKD_CACHE",
            Self::Results => "--results",
        }
    }

    /// Below which free space no run is possible, and below which a person should know.
    fn floors(self) -> (u64, u64) {
        match self {
            Self::State | Self::Results => (LEAST_BYTES, LOW_BYTES),
            Self::Cache { needed_bytes } => (needed_bytes, needed_bytes),
        }
    }
}

/// Looks at a folder, or at the place where it would be made. Nothing is left there.
#[must_use]
pub fn examine_folder(purpose: Purpose, path: &Path) -> Check {
    let name = purpose.name();
    let shown = path.display();
    let (place, is_there) = match nearest(path) {
        Ok(found) => found,
        Err(error) => {
            return Check::problem(name, format!("{shown}: {error}"), other_folder(purpose, path));
        }
    };
    if !place.is_dir() {
        let mend = format!("Move it away, or name another folder with {}.", purpose.setting());
        return Check::problem(name, format!("{} is not a folder", place.display()), mend);
    }
    // A file without a name shows that the folder can be written, and is gone when it is closed.
    if let Err(error) = tempfile::tempfile_in(place) {
        let found = format!("{} cannot be written ({error})", place.display());
        return Check::problem(name, found, other_folder(purpose, place));
    }
    if let Some(fault) = is_there.then(|| rights(purpose, path)).flatten() {
        return fault;
    }
    let state = if is_there { "can be written" } else { "is not there yet and can be made" };
    room(purpose, place, format!("{shown} {state}"))
}

/// The folder itself, or the closest one above it that is there, and which of the two.
fn nearest(path: &Path) -> io::Result<(&Path, bool)> {
    for place in path.ancestors() {
        let place = if place.as_os_str().is_empty() { Path::new(".") } else { place };
        match fs::metadata(place) {
            Ok(_) => return Ok((place, place == path)),
            // Below a file there is nothing, and the file is what is in the way.
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn other_folder(purpose: Purpose, place: &Path) -> String {
    let setting = purpose.setting();
    format!(
        "Give this user the right to write there (`ls -ld {}`, `id`), or name another folder with {setting}.",
        place.display()
    )
}

/// Whose the folder is, where that matters.
fn rights(purpose: Purpose, path: &Path) -> Option<Check> {
    let (Purpose::State | Purpose::Cache { .. }) = purpose else { return None };
    let name = purpose.name();
    let shown = path.display();
    let metadata = fs::metadata(path).ok()?;
    let me = geteuid().as_raw();
    if metadata.uid() != me {
        let owner = metadata.uid();
        let found = format!("{shown} belongs to the user {owner}, and this is {me}");
        let setting = purpose.setting();
        let mend = format!(
            "Start runbookd as that user (not with `sudo`), or name a folder of your own with {setting}."
        );
        return Some(Check::warning(name, found, mend));
    }
    if metadata.mode() & OTHERS_WRITE != 0 {
        let mode = metadata.mode() & 0o777;
        let found = format!("others may write to {shown} (mode {mode:03o})");
        return Some(Check::warning(name, found, format!("chmod go-w {shown}")));
    }
    None
}

/// Whether there is room, and whether what lies there can run.
fn room(purpose: Purpose, place: &Path, found: String) -> Check {
    let name = purpose.name();
    let disk = match statvfs(place) {
        Ok(disk) => disk,
        Err(errno) => return Check::warning(name, unknown(&found, errno), "Look with `df`."),
    };
    if matches!(purpose, Purpose::Cache { .. }) && disk.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        let mend = format!("Name a folder of another disk with {}.", purpose.setting());
        return Check::problem(name, format!("{found}, but nothing there may run (noexec)"), mend);
    }
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let found = format!("{found}; {} free", sized(free));
    let (least, low) = purpose.floors();
    let mend = |floor| {
        let setting = purpose.setting();
        format!("Free at least {} there, or name another folder with {setting}.", sized(floor))
    };
    if free < least {
        Check::problem(name, found, mend(least.max(low)))
    } else if free < low {
        Check::warning(name, found, mend(low))
    } else {
        Check::ok(name, found)
    }
}

fn unknown(found: &str, errno: Errno) -> String {
    format!("{found}; how much is free cannot be found out ({errno})")
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::run::CheckStatus;

    #[test]
    fn looking_leaves_nothing_behind() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a/b");
        let check = examine_folder(Purpose::Results, &path);
        assert_eq!(check.status, CheckStatus::Ok, "{check:?}");
        assert!(check.found.contains("is not there yet"), "{check:?}");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("below")] {
            let check = examine_folder(Purpose::State, &path);
            assert_eq!(check.status, CheckStatus::Problem, "{check:?}");
            assert_eq!(check.found, format!("{} is not a folder", file.display()));
        }
    }

    #[test]
    fn a_folder_that_others_may_write_is_told_with_the_command_that_mends_it() {
        let scratch = tempfile::tempdir().unwrap();
        fs::set_permissions(scratch.path(), Permissions::from_mode(0o777)).unwrap();
        let check = examine_folder(Purpose::State, scratch.path());
        assert_eq!(check.status, CheckStatus::Warning);
        assert_eq!(check.mend, Some(format!("chmod go-w {}", scratch.path().display())));
        assert_eq!(examine_folder(Purpose::Results, scratch.path()).status, CheckStatus::Ok);
    }

    #[test]
    fn too_little_room_for_what_is_to_come_is_a_problem() {
        let scratch = tempfile::tempdir().unwrap();
        let check = |needed_bytes| examine_folder(Purpose::Cache { needed_bytes }, scratch.path());
        assert_eq!(check(0).status, CheckStatus::Ok);
        assert_eq!(check(u64::MAX).status, CheckStatus::Problem);
    }
}
