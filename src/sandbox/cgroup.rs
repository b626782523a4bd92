//! Control groups for Bubblewrap: what a sandbox may take, and whether the kernel enforces it.
//!
//! Both hierarchies are spoken: version 1 (one tree for each controller) and version 2 (one tree).
//! Every function takes the root of the tree, so that tests can point it at an ordinary folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::process;
use super::spec::{SandboxId, SandboxLimits};

/// The folder of all our groups.
const OURS: &str = "runbookd";

/// The period over which processor time is counted, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

/// Smallest processor quota that the kernel takes, in microseconds.
const MIN_CPU_QUOTA_US: u64 = 1_000;

/// Processes that belong to Bubblewrap itself: its monitor and the init of the sandbox.
const ENGINE_PIDS: u64 = 2;

/// What a group limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controller {
    Memory,
    Pids,
    Cpu,
}

const CONTROLLERS: [Controller; 3] = [Controller::Memory, Controller::Pids, Controller::Cpu];

impl Controller {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }

    fn unenforced(self) -> &'static str {
        match self {
            Self::Memory => "The memory limit of a sandbox is not enforced.",
            Self::Pids => "The limit on processes in a sandbox is not enforced.",
            Self::Cpu => "The processor limit of a sandbox is not enforced.",
        }
    }
}

/// Which of the kernel's two interfaces is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// What this host gives.
#[derive(Debug)]
pub(super) struct Cgroups {
    root: PathBuf,
    owner: String,
    version: Version,
    usable: Vec<Controller>,
    unenforced: Vec<String>,
}

impl Cgroups {
    /// Tries every controller with a group that is removed again.
    pub(super) fn probe(root: &Path, owner: &str) -> Self {
        let version =
            if root.join("cgroup.controllers").exists() { Version::V2 } else { Version::V1 };
        let mut cgroups = Self {
            root: root.to_owned(),
            owner: owner.to_owned(),
            version,
            usable: vec![],
            unenforced: vec![],
        };
        let limits =
            SandboxLimits { memory_bytes: 1 << 30, n_cpus: 1.0, n_pids: 64, file_bytes: 1 << 30 };
        for controller in CONTROLLERS {
            // A name that no sandbox id can have.
            let group = cgroups.group_of("probe_", &[controller]);
            match cgroups.set(&group, controller, limits) {
                Ok(swap) => {
                    cgroups.usable.push(controller);
                    cgroups.unenforced.extend(swap.map(str::to_owned));
                }
                Err(error) => cgroups.unenforced.push(format!(
                    "{} ({}: {error})",
                    controller.unenforced(),
                    group.folders[0].display()
                )),
            }
            // An empty group that stays is reused by the next probe.
            let _ = group.remove();
        }
        cgroups
    }

    /// Whole sentences: what the kernel does not enforce here.
    pub(super) fn unenforced(&self) -> &[String] {
        &self.unenforced
    }

    /// The group of a sandbox, whether it is there or not.
    pub(super) fn group(&self, id: &SandboxId) -> Cgroup {
        self.group_of(id.as_str(), &self.usable)
    }

    /// Makes a group and sets its limits.
    pub(super) fn create(&self, id: &SandboxId, limits: SandboxLimits) -> io::Result<Cgroup> {
        let group = self.group(id);
        for &controller in &self.usable {
            if let Err(error) = self.set(&group, controller, limits) {
                // The first error is the one to tell; the reaper removes what stays.
                let _ = group.remove();
                return Err(error);
            }
        }
        Ok(group)
    }

    /// The ids of all groups of this owner.
    pub(super) fn list(&self) -> Vec<SandboxId> {
        let mut ids: Vec<SandboxId> = self
            .group_of("", &self.usable)
            .folders
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flat_map(|entries| entries.flatten())
            // The group's own files lie beside the groups.
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| SandboxId::new(entry.file_name().to_str()?).ok())
            .collect();
        ids.sort();
        ids.dedup();
        ids
    }

    fn group_of(&self, name: &str, controllers: &[Controller]) -> Cgroup {
        let ours = |tree: PathBuf| tree.join(OURS).join(&self.owner).join(name);
        let folders = match self.version {
            Version::V1 => controllers.iter().map(|c| ours(self.root.join(c.name()))).collect(),
            Version::V2 if controllers.is_empty() => vec![],
            Version::V2 => vec![ours(self.root.clone())],
        };
        Cgroup { version: self.version, folders }
    }

    /// Makes the folders of one controller and sets its limits. Gives a sentence where swap cannot
    /// be limited along with memory.
    fn set(
        &self,
        group: &Cgroup,
        controller: Controller,
        limits: SandboxLimits,
    ) -> io::Result<Option<&'static str>> {
        let name = group.folders.iter().find_map(|folder| folder.file_name()).unwrap_or_default();
        let folder = match self.version {
            Version::V1 => {
                self.root.join(controller.name()).join(OURS).join(&self.owner).join(name)
            }
            Version::V2 => {
                self.delegate(controller)?;
                self.root.join(OURS).join(&self.owner).join(name)
            }
        };
        if self.version == Version::V1 && !self.root.join(controller.name()).is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        fs::create_dir_all(&folder)?;
        for (file, value) in values(self.version, controller, limits) {
            let written = fs::write(folder.join(file), &value);
            match (written, is_swap(file)) {
                (Ok(()), _) => {}
                (Err(_), true) => {
                    return Ok(Some("Swap is not counted in the memory limit of a sandbox."));
                }
                (Err(error), false) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Version 2: a group has a controller only if every group above hands it down.
    fn delegate(&self, controller: Controller) -> io::Result<()> {
        let ours = self.root.join(OURS);
        let owners = ours.join(&self.owner);
        fs::create_dir_all(&owners)?;
        for level in [&self.root, &ours, &owners] {
            let file = level.join("cgroup.subtree_control");
            let enabled = fs::read_to_string(&file).unwrap_or_default();
            if !enabled.split_whitespace().any(|name| name == controller.name()) {
                fs::write(&file, format!("+{}", controller.name()))?;
            }
        }
        Ok(())
    }
}

/// The group of one sandbox.
#[derive(Debug)]
pub(super) struct Cgroup {
    version: Version,
    /// One for each controller in version 1, a single one in version 2.
    folders: Vec<PathBuf>,
}

impl Cgroup {
    /// The files into which a process writes its id to join.
    pub(super) fn doors(&self) -> Vec<PathBuf> {
        self.folders.iter().map(|folder| folder.join("cgroup.procs")).collect()
    }

    /// Whether the kernel killed something in it for lack of memory.
    pub(super) fn oom_killed(&self) -> bool {
        let file = match self.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        self.folders
            .iter()
            .filter_map(|folder| fs::read_to_string(folder.join(file)).ok())
            .any(|text| n_oom_kills(&text) > 0)
    }

    /// Kills everything in it, once. A process that is just being forked may need another round.
    /// Says how many were there.
    pub(super) fn kill(&self) -> usize {
        let pids: Vec<i32> = self
            .doors()
            .iter()
            .filter_map(|door| fs::read_to_string(door).ok())
            .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>())
            .collect();
        if !pids.is_empty() && self.version == Version::V2 {
            // Kills forks in flight too, since Linux 5.14; the loop below does for older ones.
            for folder in &self.folders {
                let _ = fs::write(folder.join("cgroup.kill"), "1");
            }
        }
        for &pid in &pids {
            process::kill(pid);
        }
        pids.len()
    }

    /// Removes it. The kernel refuses while a process is in it.
    pub(super) fn remove(&self) -> io::Result<()> {
        for folder in &self.folders {
            match fs::remove_dir(folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// What is written where. Order matters: version 1 takes the limit of memory with swap only when
/// it is not below that of memory.
fn values(
    version: Version,
    controller: Controller,
    limits: SandboxLimits,
) -> Vec<(&'static str, String)> {
    let memory = limits.memory_bytes.to_string();
    let pids = (u64::from(limits.n_pids) + ENGINE_PIDS).to_string();
    let quota = cpu_quota_us(limits.n_cpus);
    match (version, controller) {
        (Version::V1, Controller::Memory) => {
            vec![("memory.limit_in_bytes", memory.clone()), ("memory.memsw.limit_in_bytes", memory)]
        }
        (Version::V1, Controller::Cpu) => vec![
            ("cpu.cfs_period_us", CPU_PERIOD_US.to_string()),
            ("cpu.cfs_quota_us", quota.to_string()),
        ],
        (Version::V1 | Version::V2, Controller::Pids) => vec![("pids.max", pids)],
        (Version::V2, Controller::Memory) => {
            vec![("memory.max", memory), ("memory.swap.max", "0".to_owned())]
        }
        (Version::V2, Controller::Cpu) => vec![("cpu.max", format!("{quota} {CPU_PERIOD_US}"))],
    }
}

fn is_swap(file: &str) -> bool {
    matches!(file, "memory.memsw.limit_in_bytes" | "memory.swap.max")
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the specification keeps the share between 0.01 and 4096"
)]
fn cpu_quota_us(n_cpus: f64) -> u64 {
    ((n_cpus * CPU_PERIOD_US as f64).round() as u64).max(MIN_CPU_QUOTA_US)
}

/// The count after the word `oom_kill`, in the files of both versions.
fn n_oom_kills(text: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.strip_prefix("oom_kill "))
        .find_map(|count| count.trim().parse().ok())
        .unwrap_or(0)
}
