//! Processes of the host: found by what they are, watched and killed without mistaking one for
//! another that got its number.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::run::Pulse;

/// The unit of processor time in `/proc`, in milliseconds: a hundredth of a second everywhere.
const TICK_MS: u64 = 10;

/// The place of the first of four processor times behind the name in `/proc/…/stat`.
const TIMES_AT: usize = 11;

/// Most processes that are counted. A sandbox has a limit on them; where it is not enforced, the
/// count must end too.
const MAX_COUNTED: usize = 20_000;

/// A process, held so that its number cannot come to mean another one.
#[derive(Debug)]
pub(super) struct Process {
    pid: i32,
    /// Readable when the process has ended.
    handle: AsyncFd<OwnedFd>,
}

impl Process {
    /// Takes hold of a process if it is there and `is_it` says of its number that it is the one
    /// that was meant. The question is asked after the hold, so the answer cannot grow stale.
    pub(super) fn hold(pid: i32, is_it: impl FnOnce(i32) -> bool) -> io::Result<Option<Self>> {
        let Some(number) = Pid::from_raw(pid) else { return Ok(None) };
        let handle = match pidfd_open(number, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !is_it(pid) {
            return Ok(None);
        }
        #[expect(
            deprecated,
            reason = "its safe successor does not exist; an owned descriptor keeps its promise"
        )]
        let handle = AsyncFd::with_interest(handle, Interest::READABLE)?;
        Ok(Some(Self { pid, handle }))
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for its end. Losing the wait loses nothing.
    pub(super) async fn ended(&self) -> io::Result<()> {
        self.handle.readable().await.map(drop)
    }

    /// Sends a signal. One that has ended takes any.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(self.handle.get_ref(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Kills a process by number. For members of a control group of ours alone.
pub(super) fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// The numbers of the processes whose command line satisfies `is_it`. A process keeps its command
/// line for life unless it rewrites it.
pub(super) fn find(is_it: impl Fn(&[&OsStr]) -> bool) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return vec![] };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| has_command(pid, &is_it))
        .collect()
}

/// Whether the command line of a process satisfies `is_it`.
pub(super) fn has_command(pid: i32, is_it: impl Fn(&[&OsStr]) -> bool) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|cmdline| {
        let arguments: Vec<&OsStr> =
            cmdline.split(|&byte| byte == 0).map(OsStr::from_bytes).collect();
        is_it(&arguments)
    })
}

/// The child of `init` that is process `number` in the process namespace of `init`.
pub(super) fn inside(init: i32, number: i32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).ok()?;
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|&pid| {
        let numbers = field(pid, "NSpid:").unwrap_or_default();
        numbers.split_whitespace().next_back() == Some(number.to_string().as_str())
    })
}

/// What the process `init` and all below it have done, ended ones that were waited for included.
pub(super) fn pulse_below(init: i32) -> Pulse {
    let pids = below(init);
    let used = pids.iter().filter_map(|&pid| ticks_of(pid));
    let (ticks, n_processes) = used.fold((0, 0), |(ticks, n), used| (ticks + used, n + 1));
    Pulse { cpu: Duration::from_millis(ticks * TICK_MS), n_processes }
}

/// The process `init` and all below it. Some may have ended meanwhile.
pub(super) fn below(init: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut waiting = vec![init];
    while let Some(pid) = waiting.pop() {
        found.push(pid);
        if found.len() == MAX_COUNTED {
            break;
        }
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            waiting.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
    }
    found
}

/// The processor time of a process and of its children that it has waited for, in ticks.
fn ticks_of(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name stands in brackets, and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let times = rest.split_whitespace().skip(TIMES_AT).take(4);
    Some(times.filter_map(|time| time.parse::<u64>().ok()).sum())
}

fn field(pid: i32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
}
