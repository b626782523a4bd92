//! How much a run may take: what is asked for, within bounds, else the defaults.

use std::time::Duration;

use super::planner::Planner;
use crate::run::{Code, DiskShare, Finding, Limits, StallLimits};

/// Limits where neither the request nor the runbook sets them.
mod default {
    use std::time::Duration;

    /// Most public runbooks end within 20 minutes; an hour leaves room and still ends a stuck run.
    pub(super) const WALL: Duration = Duration::from_secs(3600);
    /// Installing what a runbook needs takes minutes; a download that hangs must not take the hour.
    pub(super) const SETUP: Duration = Duration::from_secs(600);
    /// After its answer the CLI ends within seconds; a child that holds it open must not.
    pub(super) const LINGER: Duration = Duration::from_secs(30);
    /// The agent CLI gives a request up after 5 minutes of silence and asks again; this is three of
    /// those.
    pub(super) const STALL_MODEL: Duration = Duration::from_secs(15 * 60);
    /// The agent CLI ends a command after 10 minutes at most. What lasts longer without any work
    /// (an MCP server's call has no limit of its own) waits for something that does not come.
    pub(super) const STALL_TOOL: Duration = Duration::from_secs(30 * 60);
    /// Between two requests the agent CLI takes seconds; hooks and MCP servers that start, a minute.
    pub(super) const STALL_SILENT: Duration = Duration::from_secs(10 * 60);
    /// The CLI's own default, about three minutes of waiting.
    pub(super) const MODEL_RETRIES: u32 = 10;
    /// The CLI takes 150 MB; the rest is for compilers, browsers and data.
    pub(super) const MEMORY_BYTES: u64 = 4 << 30;
    /// As Jetty gives by default.
    pub(super) const N_CPUS: f64 = 2.0;
    /// The CLI needs about 10; builds and browsers need hundreds. A fork bomb stops here.
    pub(super) const N_PIDS: u32 = 1024;
    /// Checkouts, packages and builds take up to ten gigabytes; data may take more, and says so.
    pub(super) const DISK_BYTES: u64 = 16 << 30;
    /// A checkout with all its packages has up to three hundred thousand files. A file system of
    /// 100 GB has room for six million.
    pub(super) const DISK_FILES: u64 = 1_000_000;
    /// A long run writes tens of megabytes; a gigabyte is a flood.
    pub(super) const OUTPUT_BYTES: u64 = 1 << 30;
}

/// The bounds of what a request or a runbook may set.
mod bound {
    /// A week. Longer is a mistake in the unit.
    pub(super) const MAX_WALL_SEC: u64 = 7 * 24 * 3600;
    /// Less than this and the CLI itself does not start.
    pub(super) const MIN_MEMORY_BYTES: u64 = 256 << 20;
    /// What the agent CLI and its tools write by themselves.
    pub(super) const MIN_DISK_BYTES: u64 = 64 << 20;
    /// The same in files.
    pub(super) const MIN_DISK_FILES: u64 = 1_000;
    /// The smallest share that makes progress.
    pub(super) const MIN_N_CPUS: f64 = 0.1;
    /// More than any machine has.
    pub(super) const MAX_N_CPUS: f64 = 1024.0;
}

impl Planner<'_> {
    pub(super) fn limits(&mut self) -> Limits {
        let (overrides, front_matter) = (&self.request.overrides, self.runbook.front_matter());
        let wall = overrides.wall.or(front_matter.timeout).unwrap_or(default::WALL);
        let setup = front_matter.setup_timeout.unwrap_or(default::SETUP);
        let memory_bytes = overrides.memory_bytes.or(front_matter.memory_bytes);
        let memory_bytes = memory_bytes.unwrap_or(default::MEMORY_BYTES);
        let n_cpus = overrides.n_cpus.or(front_matter.n_cpus).unwrap_or(default::N_CPUS);
        let max_turns = overrides.max_turns.or(front_matter.max_turns);
        self.check(
            "timeout_sec",
            !wall.is_zero() && wall.as_secs() <= bound::MAX_WALL_SEC,
            format!("the time limit is {} s: write 1 to {}", wall.as_secs(), bound::MAX_WALL_SEC),
        );
        self.check(
            "setup_timeout_sec",
            setup.as_secs() <= bound::MAX_WALL_SEC,
            format!(
                "the time limit of the setup is {} s: write 1 to {}",
                setup.as_secs(),
                bound::MAX_WALL_SEC
            ),
        );
        self.check(
            "memory",
            memory_bytes >= bound::MIN_MEMORY_BYTES,
            format!(
                "the memory limit is {memory_bytes} bytes: the agent needs at least {}",
                bound::MIN_MEMORY_BYTES
            ),
        );
        self.check(
            "cpus",
            (bound::MIN_N_CPUS..=bound::MAX_N_CPUS).contains(&n_cpus),
            format!(
                "the processor limit is {n_cpus}: write {} to {}",
                bound::MIN_N_CPUS,
                bound::MAX_N_CPUS
            ),
        );
        self.check(
            "max_turns",
            max_turns != Some(0),
            "the turn limit is 0: write at least 1, or leave it out".to_owned(),
        );
        let (stall, linger) = self.stall();
        Limits {
            wall,
            setup,
            linger,
            stall,
            max_turns,
            model_retries: overrides.model_retries.unwrap_or(default::MODEL_RETRIES),
            memory_bytes,
            n_cpus,
            n_pids: default::N_PIDS,
            disk: self.disk(),
            output_bytes: default::OUTPUT_BYTES,
        }
    }

    /// How long the run may do nothing, and how long its agent may take to exit.
    fn stall(&mut self) -> (StallLimits, Duration) {
        let asked = self.runbook.front_matter().stall;
        let longest = Duration::from_secs(bound::MAX_WALL_SEC);
        let all = [asked.model, asked.tool, asked.silent, asked.linger];
        self.check(
            "stall",
            all.into_iter().flatten().all(|limit| limit <= longest),
            format!("a time under `stall` is too long: write 1 to {}", bound::MAX_WALL_SEC),
        );
        let limits = StallLimits {
            model: asked.model.unwrap_or(default::STALL_MODEL),
            tool: asked.tool.unwrap_or(default::STALL_TOOL),
            silent: asked.silent.unwrap_or(default::STALL_SILENT),
        };
        (limits, asked.linger.unwrap_or(default::LINGER))
    }

    /// How much of the disk the sandbox may hold.
    fn disk(&mut self) -> DiskShare {
        let (overrides, front_matter) = (&self.request.overrides, self.runbook.front_matter());
        let bytes = overrides.disk_bytes.or(front_matter.disk_bytes).unwrap_or(default::DISK_BYTES);
        let n_files = front_matter.disk_files.unwrap_or(default::DISK_FILES);
        self.check(
            "disk",
            bytes >= bound::MIN_DISK_BYTES,
            format!(
                "the disk limit is {bytes} bytes: the agent needs at least {}",
                bound::MIN_DISK_BYTES
            ),
        );
        self.check(
            "disk_files",
            n_files >= bound::MIN_DISK_FILES,
            format!(
                "the limit on files is {n_files}: the agent needs at least {}",
                bound::MIN_DISK_FILES
            ),
        );
        DiskShare { bytes, n_files }
    }

    fn check(&mut self, key: &str, fits: bool, message: String) {
        if !fits {
            self.find_at(key, Finding::new(Code::LimitOutOfRange, message));
        }
    }
}
