//! The binary as a person starts it, in a home of its own.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use runbookd::sandbox::{DEFAULT_CGROUP_ROOT, EngineKind};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::process::{Child, Command};

use super::stage::{image, processes_with, remove_groups};
use super::story::cache_dir;

/// Nothing of the tests' environment but the cache of agent CLIs.
pub(crate) struct Home {
    folder: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file below the home and gives its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The binary with these arguments, and nothing to read.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runbookd"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.path())
            .env("RUNBOOKD_CACHE", cache_dir())
            .env("RUNBOOKD_IMAGE", image())
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().unwrap()
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.start(arguments)).await
    }

    /// The trajectories below the results folder, sorted by path.
    pub(crate) fn trajectories(&self) -> Vec<Value> {
        let mut found: Vec<PathBuf> = Vec::new();
        let mut folders = vec![self.path().join("results")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_name() == "trajectory.json" {
                    found.push(entry.path());
                } else if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        found.sort();
        found
            .iter()
            .map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
            .collect()
    }

    /// What lives of this home's sandboxes and their gateways: processes, containers, folders.
    pub(crate) fn leftovers(&self, engine: EngineKind) -> Vec<String> {
        self.leftovers_in("", engine)
    }

    /// What lives of the sandboxes of this home's server.
    pub(crate) fn leftovers_of_server(&self, engine: EngineKind) -> Vec<String> {
        self.leftovers_in("server", engine)
    }

    fn leftovers_in(&self, whose: &str, engine: EngineKind) -> Vec<String> {
        let here = self.path().to_str().unwrap();
        let mut found = Vec::new();
        for folders in ["sandboxes", "models"] {
            let folders = self.state().join(whose).join(folders);
            found.extend(processes_with(folders.to_str().unwrap()));
            let folders = std::fs::read_dir(folders).into_iter().flatten().flatten();
            found.extend(folders.map(|entry| entry.path().display().to_string()));
        }
        if engine == EngineKind::Docker {
            let format = "{{.Names}} {{.Mounts}}";
            let listed = std::process::Command::new("docker")
                .args(["ps", "--all", "--no-trunc", "--format", format])
                .output()
                .unwrap();
            let listed = String::from_utf8(listed.stdout).unwrap();
            found.extend(listed.lines().filter(|line| line.contains(here)).map(str::to_owned));
        }
        found
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path().join(".local/state/runbookd")
    }

    /// The control groups of sandboxes, those of runs by hand and those of the server.
    pub(crate) fn groups(&self) -> Vec<String> {
        let trees =
            ["", "memory", "pids", "cpu"].map(|tree| Path::new(DEFAULT_CGROUP_ROOT).join(tree));
        let owned = trees
            .iter()
            .flat_map(|tree| self.owners().map(|owner| tree.join("runbookd").join(owner)));
        let groups =
            owned.flat_map(|group| std::fs::read_dir(group).into_iter().flatten().flatten());
        let groups = groups.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        groups.map(|entry| entry.path().display().to_string()).collect()
    }

    /// What the sandboxes of this home are called on the machine.
    pub(crate) fn owners(&self) -> [String; 2] {
        let digest = Sha256::digest(self.state().as_os_str().as_encoded_bytes());
        let name: String = digest[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        ["cli", "srv"].map(|whose| format!("{whose}-{name}"))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // The groups of this home's sandboxes stay for its next one, which will not come.
        self.owners().iter().for_each(|owner| remove_groups(owner));
    }
}

impl Ran {
    pub(crate) async fn of(child: Child) -> Self {
        let Output { status, stdout, stderr } = child.wait_with_output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// The lines of `--json`.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
            .collect()
    }
}
