//! The peak memory of a process, from `/proc`.
//!
//! `getrusage` would not do: what it says of a child includes the largest of the child's own
//! children, and the agent CLI is far larger than runbookd.

use std::fs;

/// The most memory that `process` (an id, or `self`) has held in RAM so far, in bytes. `None` when
/// it has ended.
pub(crate) fn peak_bytes(process: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}
