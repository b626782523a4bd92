//! The machine that a figure was taken on. A figure without it says nothing.

use std::fs;
use std::thread::available_parallelism;

/// A load above this share of the cores is other people's work, and the figures are worth little.
const BUSY_SHARE: f64 = 0.25;

/// The cores, their kind, the kernel and the load, and a warning where that is high.
pub(crate) fn describe() -> String {
    let n_cores = available_parallelism().map_or(1, |n| n.get());
    let load = line_of("/proc/loadavg");
    let load_now: f64 = load.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(f64::NAN);
    let load: Vec<&str> = load.split(' ').take(3).collect();
    let mut text = format!(
        "machine: {n_cores} cores ({}), Linux {}, load average {}",
        processor(),
        line_of("/proc/sys/kernel/osrelease"),
        load.join(" "),
    );
    // A load that cannot be read is no reason to trust the figures either.
    let is_quiet = load_now <= BUSY_SHARE * n_cores as f64;
    if !is_quiet {
        text.push_str("\nTHE MACHINE IS BUSY: take no figure from this run.");
    }
    text
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name"));
    let name = model.and_then(|line| line.split_once(": ")).map(|(_, name)| name.trim());
    name.unwrap_or("of an unknown kind").to_owned()
}

fn line_of(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|_| "unknown".to_owned()).trim().to_owned()
}
