//! The Bubblewrap engine: `bwrap` from its package, held and limited by us.

mod args;
mod cell;
mod examine;
mod processes;
mod seccomp;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

pub(super) use cell::{Cell, processes_below, reap};
pub(super) use examine::{CHECK, examine};
pub(super) use processes::CellProcesses;

use super::cgroup::{Cgroup, Cgroups};
use super::error::SandboxError;
use super::host_folder::{AgentFiles, EngineKind, HostFolder, Staging, write_file};
use super::images::{ImageFacts, LibC, SetPriv};
use super::launcher::{Output, StartsAs};
use super::spec::{InvalidSpec, SandboxId, SandboxSpec};

/// Where the programs of a system lie, where nobody says otherwise.
const USUAL_PATH: &str = "/usr/bin:/bin:/usr/local/bin:/usr/sbin:/sbin:/usr/local/sbin";

/// How long `bwrap` may take for `--version` and for an empty sandbox. It takes milliseconds.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// The Bubblewrap engine.
#[derive(Debug)]
pub struct Bubblewrap {
    program: PathBuf,
    version: String,
    starts_as: StartsAs,
    cgroups: Cgroups,
    seccomp: Vec<u8>,
    unenforced: Vec<String>,
}

impl Bubblewrap {
    /// Finds `bwrap` and makes an empty sandbox with it. The error is a fragment for a person.
    pub(super) async fn connect(
        path: &str,
        cgroup_root: &Path,
        owner: &str,
    ) -> Result<Self, String> {
        let program = find_program(path, "bwrap")
            .ok_or("Bubblewrap is not installed (install the package `bubblewrap`)")?;
        let starts_as =
            if rustix::process::geteuid().is_root() { StartsAs::Root } else { StartsAs::Agent };
        if starts_as == StartsAs::Root && find_program(USUAL_PATH, "setpriv").is_none() {
            return Err("Bubblewrap needs `setpriv` (install the package `util-linux`)".to_owned());
        }
        let seccomp = seccomp::filter().ok_or(
            "there is no system call filter for this processor (x86-64 and ARM64 have one)",
        )?;
        let version = ask(&program, &[OsString::from("--version")]).await?;
        ask(&program, &args::probe(starts_as)).await.map_err(|words| {
            format!("Bubblewrap is installed and cannot make a sandbox here ({words})")
        })?;
        let cgroups = Cgroups::probe(cgroup_root, owner);
        let mut unenforced = cgroups.unenforced().to_vec();
        if starts_as == StartsAs::Agent {
            unenforced.push(
                "The daemon is not root, so the agent has the daemon's user: it can open its own \
                 recorded output and change it."
                    .to_owned(),
            );
        }
        let version = version.trim().trim_start_matches("bubblewrap ").to_owned();
        Ok(Self { program, version, starts_as, cgroups, seccomp, unenforced })
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    pub(super) fn unenforced(&self) -> &[String] {
        &self.unenforced
    }

    pub(super) fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    pub(super) fn staging(&self) -> Staging {
        let agent_files = match self.starts_as {
            StartsAs::Root => AgentFiles::Given,
            StartsAs::Agent => AgentFiles::Shared,
        };
        Staging {
            engine: EngineKind::Bubblewrap,
            output: Output::Inherited,
            starts_as: self.starts_as,
            agent_files,
            relay: None,
        }
    }

    /// What only Bubblewrap cannot do.
    pub(super) fn check(&self, spec: &SandboxSpec) -> Result<(), InvalidSpec> {
        match &spec.image {
            Some(image) => Err(InvalidSpec::ImageWithoutDocker { image: image.clone() }),
            None => Ok(()),
        }
    }

    /// Makes the control groups and settles the command. The folder is filled already.
    pub(super) fn provision(
        &self,
        spec: &SandboxSpec,
        folder: HostFolder,
    ) -> Result<Cell, SandboxError> {
        self.prepare(spec, &folder)
            .map_err(|error| SandboxError::Create { id: spec.id.clone(), source: error.into() })
            .map(|(cgroup, command)| Cell::new(spec.id.clone(), folder, cgroup, command))
    }

    fn prepare(
        &self,
        spec: &SandboxSpec,
        folder: &HostFolder,
    ) -> io::Result<(Cgroup, Vec<OsString>)> {
        let launch = folder.root().join("launch");
        write_file(&launch.join(args::PASSWD), args::passwd().as_bytes(), 0o444)?;
        write_file(&launch.join(args::GROUP), args::group().as_bytes(), 0o444)?;
        write_file(&launch.join(args::HOSTS), args::OWN_HOSTS.as_bytes(), 0o444)?;
        write_file(&folder.out(cell::SECCOMP_FILE), &self.seccomp, 0o400)?;
        let mut command = vec![self.program.clone().into_os_string()];
        command.extend(args::arguments(spec, folder, self.starts_as));
        Ok((self.cgroups.create(&spec.id, spec.limits)?, command))
    }

    /// Takes over a sandbox that an earlier daemon started. `None` where it never started.
    pub(super) fn adopt(
        &self,
        id: SandboxId,
        folder: HostFolder,
    ) -> Result<Option<Cell>, SandboxError> {
        let cgroup = self.cgroups.group(&id);
        Cell::adopt(id, folder, cgroup)
    }
}

/// Which of these programs a sandbox would not find: it sees the system's folders alone.
pub(super) fn missing(programs: &[String]) -> Vec<String> {
    programs.iter().filter(|name| find_program(USUAL_PATH, name).is_none()).cloned().collect()
}

/// What this machine has of what an agent needs.
pub(super) fn host_facts() -> ImageFacts {
    let has = |name| find_program(USUAL_PATH, name).is_some();
    let arch = std::env::consts::ARCH;
    let is_musl = Path::new(&format!("/lib/ld-musl-{arch}.so.1")).exists();
    let is_glibc = ["/lib64", "/lib"].iter().any(|folder| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.into_iter().any(|e| e.file_name().as_encoded_bytes().starts_with(b"ld-linux"))
    });
    ImageFacts {
        id: String::new(),
        arch: arch.to_owned(),
        libc: match (is_glibc, is_musl) {
            (true, _) => Some(LibC::Glibc),
            (false, true) => Some(LibC::Musl),
            (false, false) => None,
        },
        has_sh: Path::new("/bin/sh").exists(),
        has_bash: has("bash") || has("zsh"),
        has_ps: has("ps"),
        // Where it is needed, it was looked for when the engine was connected.
        setpriv: SetPriv::Fit,
    }
}

/// The first program of that name. Only absolute folders count: the rest depends on where the
/// daemon was started.
fn find_program(path: &str, name: &str) -> Option<PathBuf> {
    let path = if path.is_empty() { USUAL_PATH } else { path };
    path.split(':')
        .filter(|folder| folder.starts_with('/'))
        .map(|folder| Path::new(folder).join(name))
        .find(|program| program.is_file())
}

/// Runs `bwrap` for an answer. The error is what it complained of.
async fn ask(program: &Path, args: &[OsString]) -> Result<String, String> {
    let running = Command::new(program)
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match timeout(PROBE_LIMIT, running).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no answer within {} s", PROBE_LIMIT.as_secs())),
    };
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_for_in_absolute_folders_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let program = scratch.path().join("bwrap");
        std::fs::write(&program, "").unwrap();
        let path = format!("::.:relative:/nowhere:{}", scratch.path().display());
        assert_eq!(find_program(&path, "bwrap"), Some(program));
        assert_eq!(find_program("/nowhere", "sh"), None);
        assert!(find_program("", "sh").is_some());
    }
}
