//! How much memory there is.

use std::fs;

use super::sized;
use crate::run::Check;

const NAME: &str = "memory";

/// What one agent needs beside its tools; below it the kernel begins to kill.
const LOW_BYTES: u64 = 1 << 30;

/// Where the kernel says what this process's own group may take, in both of its interfaces.
const GROUP_LIMITS: [&str; 2] =
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// Looks at the memory of this machine, or of the container that this is.
#[must_use]
pub fn examine_memory() -> Check {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let limit = GROUP_LIMITS
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
        .min();
    judge(&meminfo, limit)
}

fn judge(meminfo: &str, limit: Option<u64>) -> Check {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    };
    let (Some(total), Some(available)) = (field("MemTotal:"), field("MemAvailable:")) else {
        return Check::skipped(NAME, "the kernel does not say how much there is");
    };
    let limit = limit.filter(|&limit| limit < total);
    let available = limit.map_or(available, |limit| limit.min(available));
    let limited = limit.map(|l| format!(", limited to {}", sized(l))).unwrap_or_default();
    let found = format!("{} available of {}{limited}", sized(available), sized(total));
    if available < LOW_BYTES {
        let least = sized(LOW_BYTES);
        return Check::warning(
            NAME,
            found,
            format!("Free some: an agent with its tools needs about {least}."),
        );
    }
    Check::ok(NAME, found)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn little_memory_and_a_containers_limit_are_said() {
        let meminfo = |kib: u64| format!("MemTotal: 16777216 kB\nMemAvailable: {kib} kB\n");
        let mut text = String::new();
        for (available, limit) in [(8 << 20, None), (8 << 20, Some(512 << 20)), (1000, None)] {
            let check = judge(&meminfo(available), limit);
            text.push_str(&format!("{:?}: {}\n", check.status, check.found));
        }
        let unknown = judge("", None);
        text.push_str(&format!("{:?}: {}\n", unknown.status, unknown.found));
        expect![[r#"
            Ok: 8192 MiB available of 16 GiB
            Warning: 512 MiB available of 16 GiB, limited to 512 MiB
            Warning: 0 MiB available of 16 GiB
            Skipped: the kernel does not say how much there is
        "#]]
        .assert_eq(&text);
    }
}
