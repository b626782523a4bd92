//! Whether this machine bears another run.

use std::path::{Path, PathBuf};

/// Memory per slot, in bytes. The agent CLI takes 150 MB, what it starts usually some hundred more.
/// (A run's own limit is higher: few runs need it, and none at the same moment.)
const MEMORY_PER_SLOT: u64 = 1 << 30;

/// Slots per processor. An agent waits for its model most of the time.
const SLOTS_PER_PROCESSOR: u64 = 2;

/// Most slots that are taken by default. More than this is a decision.
const MAX_DEFAULT_SLOTS: u64 = 64;

/// What must be free before another run is begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floors {
    /// Memory that programs can get, in bytes.
    pub memory_bytes: u64,
    /// Space on the disk of each of the folders, in bytes.
    pub disk_bytes: u64,
    /// The folders that runs write to.
    pub folders: Vec<PathBuf>,
}

impl Floors {
    /// Memory for an agent and a little of its own work.
    pub const MEMORY_BYTES: u64 = 512 << 20;

    /// A run collects a few megabytes as a rule, and up to some gigabytes.
    pub const DISK_BYTES: u64 = 2 << 30;

    /// The usual floors for runs that write to `folders`.
    #[must_use]
    pub fn usual(folders: Vec<PathBuf>) -> Self {
        Self { memory_bytes: Self::MEMORY_BYTES, disk_bytes: Self::DISK_BYTES, folders }
    }

    /// Why no run can be begun now, as a sentence. What cannot be measured does not keep one back.
    #[must_use]
    pub fn why_not(&self) -> Option<String> {
        let free = std::fs::read_to_string("/proc/meminfo").ok();
        let free = free.and_then(|text| meminfo(&text, "MemAvailable"));
        if let Some(free) = free.filter(|free| *free < self.memory_bytes) {
            return Some(format!(
                "New runs wait for memory: {} MB can be had, and {} MB are kept free.",
                free >> 20,
                self.memory_bytes >> 20
            ));
        }
        let full = self.folders.iter().find_map(|folder| {
            let free = free_space(folder)?;
            (free < self.disk_bytes).then_some((folder, free))
        });
        full.map(|(folder, free)| {
            format!(
                "New runs wait for disk space: {} MB are free where {} lies, and {} MB are kept \
                 free. Remove old runs or make room.",
                free >> 20,
                folder.display(),
                self.disk_bytes >> 20
            )
        })
    }
}

/// What this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineSize {
    /// Processors that this process may use.
    pub n_processors: u64,
    /// Memory in bytes; `None` where it cannot be found out.
    pub memory_bytes: Option<u64>,
}

impl MachineSize {
    /// Looks.
    #[must_use]
    pub fn read() -> Self {
        let total = std::fs::read_to_string("/proc/meminfo").ok();
        Self {
            n_processors: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            memory_bytes: total.and_then(|text| meminfo(&text, "MemTotal")),
        }
    }

    /// How many runs such a machine bears at a time.
    #[must_use]
    pub fn slots(&self) -> u32 {
        let by_memory = self.memory_bytes.map_or(1, |bytes| bytes / MEMORY_PER_SLOT);
        let slots = (self.n_processors * SLOTS_PER_PROCESSOR).min(by_memory);
        u32::try_from(slots.clamp(1, MAX_DEFAULT_SLOTS)).unwrap_or(1)
    }
}

/// A line of `/proc/meminfo`, in bytes.
fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

fn free_space(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_the_scarcer_of_processors_and_memory() {
        let slots = |n_processors, gigabytes: Option<u64>| {
            MachineSize { n_processors, memory_bytes: gigabytes.map(|n| n << 30) }.slots()
        };
        assert_eq!(slots(2, Some(24)), 4);
        assert_eq!(slots(16, Some(8)), 8);
        assert_eq!(slots(1, Some(0)), 1);
        assert_eq!(slots(8, None), 1);
        assert_eq!(slots(500, Some(4_000)), 64);
    }

    #[test]
    fn a_line_of_the_kernel_is_read_by_its_whole_name() {
        let text = "MemTotal:       24682180 kB\nMemAvailable:   23669012 kB\nMem: 1 kB\n";
        assert_eq!(meminfo(text, "MemAvailable"), Some(23_669_012 << 10));
        assert_eq!(meminfo(text, "MemFree"), None);
    }

    #[test]
    fn a_machine_below_a_floor_says_which() {
        let folder = tempfile::tempdir().unwrap();
        let folders = vec![folder.path().to_owned()];
        let none = Floors { memory_bytes: 0, disk_bytes: 0, folders: folders.clone() };
        assert_eq!(none.why_not(), None);
        let memory = Floors { memory_bytes: u64::MAX, ..none.clone() };
        assert!(memory.why_not().unwrap().starts_with("New runs wait for memory: "));
        let disk = Floors { disk_bytes: u64::MAX, ..none };
        assert!(disk.why_not().unwrap().starts_with("New runs wait for disk space: "));
    }
}
