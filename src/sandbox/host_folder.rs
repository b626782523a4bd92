//! The sandbox's folder on the host: what is staged into it, what grows in it, its record.
//!
//! ```text
//! <state>/sandboxes/<id>/   0700, so that the modes inside matter only to the sandbox
//!   state.json              the record, for the next start of the daemon
//!   launch/                 the scripts and the standard input (read-only inside)
//!   in/                     staged read-only files (read-only inside)
//!   out/                    standard output and error; nobody inside but root gets here
//!   rw/{app,logs,tmp,home}  what the agent may write
//! ```

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::collect::AgentFolder;
use super::error::SandboxError;
use super::launcher::{
    AGENT_SCRIPT, AGENT_UID, LAUNCH_SCRIPT, LAUNCHED_FILE, Output, SETUP_FILE, SETUP_SCRIPT,
    STDERR_FILE, STDIN_FILE, STDOUT_FILE, StartsAs, agent_script, launch_script, setup_code,
};
use super::relay::{Call, RELAY_ROOT};
use super::remove::remove_tree;
use super::spec::{
    Access, STAGED_ROOT, SandboxId, SandboxSpec, Source, WRITABLE_ROOTS, below, writable_place,
};

/// The version of `state.json`. A reader refuses any other.
const RECORD_VERSION: u32 = 1;

/// The folder below the daemon's state that holds one folder for each sandbox.
const SANDBOXES: &str = "sandboxes";

/// The file in `launch` that takes the place of `/etc/resolv.conf` where nothing is resolved.
pub(super) const RESOLV_CONF: &str = "resolv.conf";

/// Without a server a lookup asks the loopback, where nobody answers, and fails at once.
const NO_NAMES: &str =
    "# Names are not resolved in here: the proxy does it.\noptions timeout:1 attempts:1\n";

/// Which engine made a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Docker.
    Docker,
    /// Bubblewrap.
    Bubblewrap,
}

impl EngineKind {
    /// The engine's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Bubblewrap => "bubblewrap",
        }
    }
}

impl std::fmt::Display for EngineKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A folder that the agent writes, for collecting after its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folder {
    /// `/app`, with everything in it.
    App,
    /// `/app/assets`.
    Assets,
    /// `/app/results`.
    Results,
    /// `/logs`, with everything in it.
    Logs,
    /// `/logs/agent/sessions`.
    Sessions,
}

/// Who owns what the agent may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AgentFiles {
    /// The agent's own user: the daemon is root and can give files away.
    Given,
    /// Everybody may write: the daemon cannot give files away. The parent folder is private.
    OpenToAll,
    /// The daemon's user, which is the agent's inside.
    Shared,
}

/// How an engine wants a folder filled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Staging {
    pub engine: EngineKind,
    pub output: Output,
    pub starts_as: StartsAs,
    pub agent_files: AgentFiles,
    /// How the relay is called, where there is one.
    pub relay: Option<Call>,
}

/// What `state.json` says: enough to find a sandbox again after a restart.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    pub id: String,
    pub run: String,
    pub owner: String,
    pub engine: EngineKind,
    /// The container image, where there is one: it also gives the agent's files back.
    pub image: Option<String>,
    /// The build of its relay, by the name of its folder; empty where it has no relay. Older versions
    /// did not write it.
    #[serde(default)]
    relay: Option<String>,
}

/// What every version has.
#[derive(Deserialize)]
struct Head {
    version: u32,
}

/// The sandbox's folder on the host.
#[derive(Debug, Clone)]
pub(super) struct HostFolder {
    root: PathBuf,
    stdout: PathBuf,
    stderr: PathBuf,
    setup_log: PathBuf,
}

impl HostFolder {
    pub(super) fn at(state_dir: &Path, id: &SandboxId) -> Self {
        let root = sandboxes(state_dir).join(id.as_str());
        let out = root.join("out");
        Self {
            stdout: out.join(STDOUT_FILE),
            stderr: out.join(STDERR_FILE),
            setup_log: out.join(SETUP_FILE),
            root,
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn stdout(&self) -> &Path {
        &self.stdout
    }

    pub(super) fn stderr(&self) -> &Path {
        &self.stderr
    }

    pub(super) fn setup_log(&self) -> &Path {
        &self.setup_log
    }

    /// A file beside the output, for the engine.
    pub(super) fn out(&self, name: &str) -> PathBuf {
        self.root.join("out").join(name)
    }

    /// The folders that are bound into every sandbox: host path, path inside, writable.
    pub(super) fn binds(&self) -> Vec<(PathBuf, &'static str, bool)> {
        let read_only = [
            (self.root.join("launch"), super::launcher::LAUNCH_ROOT, false),
            (self.root.join("in"), STAGED_ROOT, false),
        ];
        let writable =
            WRITABLE_ROOTS.map(|(inside, name)| (self.root.join("rw").join(name), inside, true));
        read_only.into_iter().chain(writable).collect()
    }

    /// Where a folder of the agent lies, as a place that only [`super::collect()`] walks.
    pub(super) fn agent_folder(&self, folder: Folder) -> AgentFolder {
        let (root, below) = match folder {
            Folder::App => ("app", ""),
            Folder::Assets => ("app", "assets"),
            Folder::Results => ("app", "results"),
            Folder::Logs => ("logs", ""),
            Folder::Sessions => ("logs", "agent/sessions"),
        };
        AgentFolder::new(self.root.join("rw").join(root), below)
    }

    /// Whether the launcher handed over to the agent.
    pub(super) fn launched(&self) -> bool {
        fs::metadata(self.out(LAUNCHED_FILE)).is_ok_and(|metadata| metadata.len() > 0)
    }

    /// How the setup script ended, once it has.
    pub(super) fn setup_code(&self) -> io::Result<Option<i32>> {
        match fs::read_to_string(self.out(LAUNCHED_FILE)) {
            Ok(text) => Ok(setup_code(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the folder and everything in it. On failure what was made is removed.
    pub(super) fn fill(
        &self,
        spec: &SandboxSpec,
        owner: &str,
        staging: Staging,
    ) -> Result<(), SandboxError> {
        let stage = |source| SandboxError::Stage { path: self.root.clone(), source };
        match make_folder(&self.root, 0o700) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(SandboxError::Exists { id: spec.id.clone() });
            }
            Err(error) => return Err(stage(error)),
        }
        let filled = self
            .record(spec, owner, staging)
            .and_then(|()| self.write_launch(spec, staging))
            .and_then(|()| self.make_writable(staging.agent_files))
            .map_err(stage)
            .and_then(|()| spec.files.iter().try_for_each(|file| self.stage(file, staging)));
        if filled.is_err() {
            // The first error is the one to tell; what stays behind is the reaper's.
            let _ = self.remove();
        }
        filled
    }

    fn record(&self, spec: &SandboxSpec, owner: &str, staging: Staging) -> io::Result<()> {
        let record = Record {
            version: RECORD_VERSION,
            id: spec.id.as_str().to_owned(),
            run: spec.run.clone(),
            owner: owner.to_owned(),
            engine: staging.engine,
            image: spec.image.clone(),
            relay: Some(relay_of(spec)),
        };
        self.write_record(&serde_json::to_vec_pretty(&record)?)
    }

    /// Writes the record so that a loss of power leaves a whole one or none.
    fn write_record(&self, text: &[u8]) -> io::Result<()> {
        let unfinished = self.root.join("state.json.new");
        let mut file = new_file(&unfinished, 0o600)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&unfinished, self.root.join("state.json"))?;
        // The name is on the disk only when its folder is, and that one only with its parent.
        File::open(&self.root)?.sync_all()?;
        self.root.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    }

    /// The record of a sandbox, `None` where there is none (the daemon died while it was made) or
    /// what is there is no record: waiting would not mend it.
    pub(super) fn read_record(&self) -> Result<Option<Record>, SandboxError> {
        let path = self.root.join("state.json");
        let Ok(text) = fs::read(&path) else { return Ok(None) };
        let read = serde_json::from_slice(&text).and_then(|Head { version }| {
            let record = (version == RECORD_VERSION).then(|| serde_json::from_slice(&text));
            record.transpose()
        });
        match read {
            Ok(Some(record)) => Ok(Some(record)),
            Ok(None) => Err(SandboxError::Record { path }),
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "no record of a sandbox: {}",
                    path.display()
                );
                Ok(None)
            }
        }
    }

    fn write_launch(&self, spec: &SandboxSpec, staging: Staging) -> io::Result<()> {
        let launch = self.root.join("launch");
        make_folder(&launch, 0o755)?;
        let script = launch_script(spec, (staging.output, staging.starts_as), staging.relay);
        write_file(&launch.join(LAUNCH_SCRIPT), script.as_bytes(), 0o444)?;
        write_file(&launch.join(AGENT_SCRIPT), agent_script(spec).as_bytes(), 0o444)?;
        if let Some(setup) = &spec.setup {
            write_file(&launch.join(SETUP_SCRIPT), setup.script.as_bytes(), 0o444)?;
        }
        write_file(&launch.join(STDIN_FILE), &spec.stdin, 0o444)?;
        write_file(&launch.join(RESOLV_CONF), NO_NAMES.as_bytes(), 0o444)?;
        make_folder(&self.root.join("in"), 0o755)?;
        make_folder(&self.root.join("out"), 0o700)?;
        write_file(&self.stdout, b"", 0o600)?;
        write_file(&self.stderr, b"", 0o600)?;
        write_file(&self.setup_log, b"", 0o600)
    }

    fn make_writable(&self, agent_files: AgentFiles) -> io::Result<()> {
        make_folder(&self.root.join("rw"), 0o755)?;
        let folders =
            ["app", "app/assets", "app/results", "logs", "logs/agent", "logs/agent/sessions"];
        for folder in folders.into_iter().chain(["home", "tmp"]) {
            let path = self.root.join("rw").join(folder);
            make_folder(&path, 0o755)?;
            give(&path, agent_files, Kind::Folder)?;
        }
        fs::set_permissions(self.root.join("rw/tmp"), Permissions::from_mode(0o1777))
    }

    fn stage(&self, file: &super::StagedFile, staging: Staging) -> Result<(), SandboxError> {
        let failed = |source| SandboxError::Stage { path: PathBuf::from(&file.inside), source };
        match file.access {
            Access::ReadOnly => {
                let below = below(&file.inside, STAGED_ROOT).unwrap_or(&file.inside);
                stage_below(&self.root.join("in"), below, &file.source, None).map_err(failed)
            }
            Access::Writable => {
                let (root, below) = writable_place(&file.inside).unwrap_or(("app", &file.inside));
                let root = self.root.join("rw").join(root);
                let agent_files = Some(staging.agent_files);
                stage_below(&root, below, &file.source, agent_files).map_err(failed)
            }
        }
    }

    /// Removes the folder and everything in it.
    pub(super) fn remove(&self) -> io::Result<()> {
        remove_tree(&self.root)
    }
}

/// The folder that holds one folder for each sandbox.
pub(super) fn sandboxes(state_dir: &Path) -> PathBuf {
    state_dir.join(SANDBOXES)
}

/// Makes the folder for all sandboxes, which nobody but the daemon's user enters.
pub(super) fn prepare(state_dir: &Path) -> io::Result<()> {
    let path = sandboxes(state_dir);
    DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o700))
}

/// The ids of all host folders. Other names are not ours and are left alone.
pub(super) fn list(state_dir: &Path) -> io::Result<Vec<SandboxId>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(sandboxes(state_dir))? {
        if let Some(name) = entry?.file_name().to_str() {
            ids.extend(SandboxId::new(name));
        }
    }
    ids.sort();
    Ok(ids)
}

/// The builds of the relay that sandboxes have; `None` where one of them does not say.
pub(super) fn relays_in_use(state_dir: &Path) -> io::Result<Option<BTreeSet<String>>> {
    let mut builds = BTreeSet::new();
    for id in list(state_dir)? {
        let record = HostFolder::at(state_dir, &id).read_record().ok().flatten();
        let Some(build) = record.and_then(|record| record.relay) else { return Ok(None) };
        builds.insert(build);
    }
    Ok(Some(builds))
}

/// The build of the relay that a sandbox is to have.
fn relay_of(spec: &SandboxSpec) -> String {
    let mount = spec.mounts.iter().find(|mount| mount.inside == RELAY_ROOT);
    let name = mount.and_then(|mount| mount.host.file_name());
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[derive(Clone, Copy)]
enum Kind {
    Folder,
    File,
}

/// Copies a source to `root/below`, making the folders between. `agent_files` is `None` for what
/// the agent only reads.
fn stage_below(
    root: &Path,
    below: &str,
    source: &Source,
    agent_files: Option<AgentFiles>,
) -> io::Result<()> {
    let mut path = root.to_owned();
    let mut segments = below.split('/').peekable();
    while let Some(segment) = segments.next() {
        path.push(segment);
        if segments.peek().is_none() {
            break;
        }
        match make_folder(&path, 0o755) {
            Ok(()) => agent_files.map_or(Ok(()), |files| give(&path, files, Kind::Folder))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    let mode = if agent_files.is_some() { 0o644 } else { 0o444 };
    match source {
        Source::Bytes(bytes) => write_file(&path, bytes, mode)?,
        Source::HostFile(host) => copy_file(host, &path, mode)?,
    }
    agent_files.map_or(Ok(()), |files| give(&path, files, Kind::File))
}

fn give(path: &Path, agent_files: AgentFiles, kind: Kind) -> io::Result<()> {
    match agent_files {
        AgentFiles::Given => lchown(path, Some(AGENT_UID), Some(AGENT_UID)),
        AgentFiles::OpenToAll => {
            let mode = match kind {
                Kind::Folder => 0o777,
                Kind::File => 0o666,
            };
            fs::set_permissions(path, Permissions::from_mode(mode))
        }
        AgentFiles::Shared => Ok(()),
    }
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    // Not at creation: the process's umask would take its part.
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn new_file(path: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(file)
}

/// Writes a new file with exactly this mode.
pub(super) fn write_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    new_file(path, mode)?.write_all(bytes)
}

fn copy_file(from: &Path, to: &Path, mode: u32) -> io::Result<()> {
    // Before opening: a pipe would never open.
    if !fs::metadata(from)?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is not a regular file", from.display()),
        ));
    }
    io::copy(&mut File::open(from)?, &mut new_file(to, mode)?).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(version: u32) -> Record {
        Record {
            version,
            id: "a".to_owned(),
            run: "r".to_owned(),
            owner: "o".to_owned(),
            engine: EngineKind::Docker,
            image: None,
            relay: Some(String::new()),
        }
    }

    #[test]
    fn a_record_is_whole_or_none_and_another_version_is_refused() {
        let state = tempfile::tempdir().unwrap();
        prepare(state.path()).unwrap();
        let folder = HostFolder::at(state.path(), &SandboxId::new("a").unwrap());
        make_folder(folder.root(), 0o700).unwrap();
        assert_eq!(folder.read_record().unwrap(), None);
        let whole = serde_json::to_vec_pretty(&record(RECORD_VERSION)).unwrap();
        folder.write_record(&whole).unwrap();
        assert_eq!(folder.read_record().unwrap(), Some(record(RECORD_VERSION)));
        let files: Vec<_> = fs::read_dir(folder.root()).unwrap().flatten().collect();
        assert_eq!(files.len(), 1, "{files:?}");
        // What a loss of power could leave of a file that nobody waited for.
        for torn in [&b""[..], &whole[..whole.len() / 2], &[0; 64]] {
            fs::write(folder.root().join("state.json"), torn).unwrap();
            assert_eq!(folder.read_record().unwrap(), None);
        }
        fs::write(folder.root().join("state.json"), r#"{"version":2,"new":true}"#).unwrap();
        assert!(matches!(folder.read_record(), Err(SandboxError::Record { .. })));
    }
}
