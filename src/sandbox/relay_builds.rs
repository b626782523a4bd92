//! Builds of the relay that no sandbox uses any more go: each upgrade of this program brings one of
//! its own.
//!
//! A sandbox outlives the process that made it, and its record says which build it has. From the
//! choice of a build to that record a lock is held, which whoever removes builds must have alone.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::engine::blocking;
use super::remove::remove_tree;
use super::settings::EngineSettings;
use super::{host_folder, lock, relay};

/// The file that whoever chooses a build shares, and whoever removes builds locks.
const LOCK: &str = "relay.lock";

/// How long a sandbox waits for somebody who removes builds. It takes a fraction of a second.
const HOLD_LIMIT: Duration = Duration::from_secs(60);

/// Keeps builds from being removed until it is dropped.
pub(super) async fn hold(state_dir: &Path) -> io::Result<File> {
    lock::shared(&state_dir.join(LOCK), HOLD_LIMIT).await
}

/// Removes the builds that are not this program's and that no sandbox has, and gives their names.
/// Where somebody makes a sandbox just now, or a sandbox does not say what it has, nothing is removed:
/// it is looked again later.
pub(super) async fn sweep(settings: &EngineSettings) -> io::Result<Vec<String>> {
    let (state_dir, program) = (settings.state_dir.clone(), settings.program.clone());
    let others = move || relay::other_builds(&state_dir, &program);
    let others = blocking(others).await?;
    if others.is_empty() {
        return Ok(Vec::new());
    }
    let lock = lock::exclusive(&settings.state_dir.join(LOCK), Duration::ZERO, || {}).await;
    let _lock = match lock {
        Ok(lock) => lock,
        Err(e) if e.kind() == io::ErrorKind::TimedOut => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let state_dir = settings.state_dir.clone();
    blocking(move || remove_unused(&state_dir, others)).await
}

fn remove_unused(state_dir: &Path, others: Vec<(String, PathBuf)>) -> io::Result<Vec<String>> {
    let Some(used) = host_folder::relays_in_use(state_dir)? else { return Ok(Vec::new()) };
    let mut removed = Vec::new();
    for (name, folder) in others.into_iter().filter(|(name, _)| !used.contains(name)) {
        remove_tree(&folder)?;
        removed.push(name);
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sandbox::DEFAULT_CGROUP_ROOT;

    /// A state folder with a build of this program and an old one.
    fn state() -> (tempfile::TempDir, EngineSettings, String) {
        let state = tempfile::tempdir().unwrap();
        host_folder::prepare(state.path()).unwrap();
        let program = std::env::current_exe().unwrap();
        let own = relay::prepare(state.path(), &program).unwrap().folder;
        let own = own.file_name().unwrap().to_str().unwrap().to_owned();
        fs::create_dir(state.path().join("relay/old")).unwrap();
        fs::write(state.path().join("relay/old/runbookd"), "old").unwrap();
        let settings = EngineSettings {
            state_dir: state.path().to_owned(),
            owner: "test".to_owned(),
            docker_host: None,
            default_image: None,
            cgroup_root: PathBuf::from(DEFAULT_CGROUP_ROOT),
            program,
            path: String::new(),
        };
        (state, settings, own)
    }

    fn builds(state: &Path) -> Vec<String> {
        let entries = fs::read_dir(state.join("relay")).unwrap().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn sandbox(state: &Path, id: &str, record: &str) {
        let folder = state.join("sandboxes").join(id);
        fs::create_dir(&folder).unwrap();
        let record = format!(
            r#"{{"version":1,"id":"{id}","run":"r","owner":"test","engine":"docker","image":null{record}}}"#
        );
        fs::write(folder.join("state.json"), record).unwrap();
    }

    #[tokio::test]
    async fn a_build_goes_when_no_sandbox_has_it() {
        let (state, settings, own) = state();
        // What a process left that was killed while it brought one together.
        fs::create_dir(state.path().join("relay/new-x")).unwrap();
        sandbox(state.path(), "a", r#","relay":"old""#);
        sandbox(state.path(), "b", r#","relay":"""#);
        assert_eq!(sweep(&settings).await.unwrap(), ["new-x"]);
        assert_eq!(builds(state.path()), [own.clone(), "old".to_owned()]);
        fs::remove_dir_all(state.path().join("sandboxes/a")).unwrap();
        assert_eq!(sweep(&settings).await.unwrap(), ["old"]);
        assert_eq!(builds(state.path()), [own]);
        assert_eq!(sweep(&settings).await.unwrap(), [""; 0]);
    }

    #[tokio::test]
    async fn while_nobody_knows_what_a_sandbox_has_every_build_stays() {
        let (state, settings, own) = state();
        let stay = [own, "old".to_owned()];
        // Made by a version that did not write it down.
        sandbox(state.path(), "a", "");
        assert_eq!(sweep(&settings).await.unwrap(), [""; 0]);
        fs::remove_dir_all(state.path().join("sandboxes/a")).unwrap();
        // In the making, without a record so far.
        fs::create_dir(state.path().join("sandboxes/b")).unwrap();
        assert_eq!(sweep(&settings).await.unwrap(), [""; 0]);
        fs::remove_dir(state.path().join("sandboxes/b")).unwrap();
        // Chosen by another process, which has no folder so far.
        let held = hold(state.path()).await.unwrap();
        assert_eq!(sweep(&settings).await.unwrap(), [""; 0]);
        assert_eq!(builds(state.path()), stay);
        drop(held);
        assert_eq!(sweep(&settings).await.unwrap(), ["old"]);
    }
}
