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
        // A name that no sandbox can have, and no other process chooses.
        let probe = format!("probe_{}", std::process::id());
        for controller in CONTROLLERS {
            let group = cgroups.group_of(&probe, &[controller]);
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
        let Some(name) = group.folders.first().and_then(|folder| folder.file_name()) else {
            return Ok(None);
        };
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const LIMITS: SandboxLimits =
        SandboxLimits { memory_bytes: 1 << 28, n_cpus: 1.5, n_pids: 100, file_bytes: 1 << 20 };

    /// A tree of ordinary folders in place of the kernel's.
    fn tree(folders: &[&str], files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in folders {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        for file in files {
            fs::write(root.path().join(file), "").unwrap();
        }
        root
    }

    /// Every file below `root` with what is in it.
    fn contents(root: &Path) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if !path.to_str().unwrap().contains("probe_") {
                    let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                    found.insert(name, fs::read_to_string(&path).unwrap());
                }
            }
        }
        found
    }

    fn id() -> SandboxId {
        SandboxId::new("a1").unwrap()
    }

    #[test]
    fn version_1_has_a_group_for_each_controller() {
        let root = tree(&["memory", "pids", "cpu"], &[]);
        let cgroups = Cgroups::probe(root.path(), "me");
        assert_eq!(cgroups.unenforced(), Vec::<String>::new());
        let group = cgroups.create(&id(), LIMITS).unwrap();
        expect_test::expect![[r#"
            {
                "cpu/runbookd/me/a1/cpu.cfs_period_us": "100000",
                "cpu/runbookd/me/a1/cpu.cfs_quota_us": "150000",
                "memory/runbookd/me/a1/memory.limit_in_bytes": "268435456",
                "memory/runbookd/me/a1/memory.memsw.limit_in_bytes": "268435456",
                "pids/runbookd/me/a1/pids.max": "102",
            }
        "#]]
        .assert_debug_eq(&contents(root.path()));
        let doors: Vec<_> =
            group.doors().iter().map(|d| d.strip_prefix(root.path()).unwrap().to_owned()).collect();
        assert_eq!(
            doors,
            ["memory", "pids", "cpu"].map(|c| { Path::new(c).join("runbookd/me/a1/cgroup.procs") })
        );
        assert_eq!(cgroups.list(), [id()]);
    }

    #[test]
    fn version_2_has_one_group_and_hands_the_controllers_down() {
        let root = tree(&[], &["cgroup.controllers"]);
        fs::write(root.path().join("cgroup.subtree_control"), "memory pids cpu").unwrap();
        let cgroups = Cgroups::probe(root.path(), "me");
        let group = cgroups.create(&id(), LIMITS).unwrap();
        let mut written = contents(root.path());
        written.retain(|name, _| name.contains("a1"));
        expect_test::expect![[r#"
            {
                "runbookd/me/a1/cpu.max": "150000 100000",
                "runbookd/me/a1/memory.max": "268435456",
                "runbookd/me/a1/memory.swap.max": "0",
                "runbookd/me/a1/pids.max": "102",
            }
        "#]]
        .assert_debug_eq(&written);
        let control = |level: &str| fs::read_to_string(root.path().join(level)).unwrap();
        assert_eq!(control("cgroup.subtree_control"), "memory pids cpu");
        // An ordinary file keeps the last word alone; the kernel adds them up.
        assert_eq!(control("runbookd/me/cgroup.subtree_control"), "+cpu");
        assert_eq!(group.doors(), [root.path().join("runbookd/me/a1/cgroup.procs")]);
    }

    #[test]
    fn a_controller_that_is_missing_is_said_and_the_others_are_used() {
        let root = tree(&["pids"], &[]);
        let cgroups = Cgroups::probe(root.path(), "me");
        let said = cgroups.unenforced().join("\n");
        assert!(said.contains("The memory limit of a sandbox is not enforced."), "{said}");
        assert!(said.contains("The processor limit of a sandbox is not enforced."), "{said}");
        cgroups.create(&id(), LIMITS).unwrap();
        let expected =
            BTreeMap::from([("pids/runbookd/me/a1/pids.max".to_owned(), "102".to_owned())]);
        assert_eq!(contents(root.path()), expected);
    }

    #[test]
    fn a_host_without_control_groups_limits_nothing_and_says_so() {
        let root = tree(&[], &[]);
        let cgroups = Cgroups::probe(root.path(), "me");
        assert_eq!(cgroups.unenforced().len(), 3);
        let group = cgroups.create(&id(), LIMITS).unwrap();
        assert_eq!((group.doors(), group.kill(), group.oom_killed()), (vec![], 0, false));
        group.remove().unwrap();
        assert_eq!(contents(root.path()), BTreeMap::new());
    }

    #[test]
    fn a_killing_for_lack_of_memory_is_read_in_both_versions() {
        assert_eq!(n_oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(n_oom_kills("low 0\noom 3\noom_kill 1\noom_group_kill 0\n"), 1);
        assert_eq!(n_oom_kills("oom_kill_disable 0\nunder_oom 0\n"), 0);
    }

    #[test]
    fn a_tiny_share_of_a_processor_is_still_one() {
        assert_eq!([0.01, 0.001, 2.0].map(cpu_quota_us), [1_000, 1_000, 200_000]);
    }
}
