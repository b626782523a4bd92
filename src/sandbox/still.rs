//! Making the processes of a sandbox stand still for a moment, so that what is counted of it stays
//! where it is.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::process;

/// How long all of them may take to stand still. One that waits for the disk takes a little; who makes
/// new ones meanwhile is caught in the next round.
const LIMIT: Duration = Duration::from_secs(2);

/// How long one round waits for the kernel.
const ROUND: Duration = Duration::from_millis(2);

/// Processes that stand still until this is dropped.
#[derive(Debug, Default)]
pub(super) struct StandStill {
    stopped: BTreeMap<i32, OwnedFd>,
}

impl StandStill {
    /// Stops the process `init`, the first of a process namespace, and all below it. Those that stand
    /// still by themselves are left alone. Without the right to do so nothing is stopped. Blocks.
    #[expect(clippy::disallowed_methods, reason = "it is called where blocking is allowed")]
    pub(super) fn below(init: i32) -> Self {
        let mut still = Self::default();
        let Some(namespace) = namespace(init) else { return still };
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            let moving: Vec<i32> =
                process::below(init).into_iter().filter(|&pid| !stands(pid)).collect();
            if moving.is_empty() {
                break;
            }
            for pid in moving {
                still.stop(pid, &namespace);
            }
            std::thread::sleep(ROUND);
        }
        still
    }

    fn stop(&mut self, pid: i32, namespace: &OsString) {
        if self.stopped.contains_key(&pid) {
            return;
        }
        // The hold comes first, so that the number cannot come to mean another process.
        let Some(handle) = hold(pid) else { return };
        if self::namespace(pid).as_ref() == Some(namespace)
            && pidfd_send_signal(&handle, Signal::STOP).is_ok()
        {
            self.stopped.insert(pid, handle);
        }
    }
}

impl Drop for StandStill {
    fn drop(&mut self) {
        for handle in self.stopped.values() {
            // One that has ended needs nothing.
            let _ = pidfd_send_signal(handle, Signal::CONT);
        }
    }
}

/// Wakes what a process that is gone may have left standing still.
pub(super) fn wake_below(init: i32) {
    let Some(namespace) = namespace(init) else { return };
    for pid in process::below(init) {
        if let Some(handle) = hold(pid)
            && self::namespace(pid).as_ref() == Some(&namespace)
        {
            let _ = pidfd_send_signal(&handle, Signal::CONT);
        }
    }
}

fn hold(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

/// What a process takes for all processes.
fn namespace(pid: i32) -> Option<OsString> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok().map(Into::into)
}

/// Whether a process does nothing: it is stopped, or has ended.
fn stands(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // Its name stands in brackets, and may hold anything.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_none_or(|state| matches!(state, 'T' | 't' | 'Z' | 'X'))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "these tests have no runtime")]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn processes_stand_still_with_all_their_children_until_they_are_let_go() {
        let mut child = Command::new("sh")
            .args(["-c", "sh -c 'while :; do sleep 0.001; done' & while :; do sleep 0.001; done"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let init = i32::try_from(child.id()).unwrap();
        while process::below(init).len() < 3 {
            std::thread::sleep(ROUND);
        }
        let still = StandStill::below(init);
        let before = process::below(init);
        assert!(before.iter().all(|&pid| stands(pid)));
        let used = process::pulse_below(init);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!((process::below(init), process::pulse_below(init)), (before, used));
        drop(still);
        while process::below(init).iter().all(|&pid| stands(pid)) {
            std::thread::sleep(ROUND);
        }
        // What was left standing is woken.
        let left = std::mem::ManuallyDrop::new(StandStill::below(init));
        assert!(!left.stopped.is_empty() && stands(init));
        wake_below(init);
        while stands(init) {
            std::thread::sleep(ROUND);
        }
        let children = process::below(init);
        child.kill().unwrap();
        child.wait().unwrap();
        children.into_iter().for_each(process::kill);
    }
}
