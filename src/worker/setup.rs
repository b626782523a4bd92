//! The setup script of a run: waits for its end. It runs inside the agent's sandbox, before the
//! agent, which starts by itself when the script has ended well.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::attend::{LetGo, Stop};
use super::room::{RoomWatch, SharedDisk};
use crate::run::{Limits, RunFailure, RunStatus, SetupEnd};
use crate::sandbox::{Exit, Sandbox, SandboxError};

/// How often the note of the script's end is looked for. A look costs microseconds.
const LOOK: Duration = Duration::from_millis(50);

/// How many of the script's last lines stand in a failure.
const N_LAST_LINES: usize = 5;

/// Longest such line, in characters.
const MAX_LINE_CHARS: usize = 300;

/// Why a sandbox has no agent.
pub(super) enum NoAgent {
    /// What the run's status is therefore.
    Status(RunStatus),
    /// The setup script did not end well.
    Setup(SetupEnd),
}

impl NoAgent {
    /// The run's status, now that the script's log is known.
    pub(super) fn status(self, setup_log: &str) -> RunStatus {
        match self {
            Self::Status(status) => status,
            Self::Setup(end) => {
                RunStatus::Failed(RunFailure::SetupFailed { end, tail: last_lines(setup_log) })
            }
        }
    }
}

impl From<RunStatus> for NoAgent {
    fn from(status: RunStatus) -> Self {
        Self::Status(status)
    }
}

/// What a setup script has to hold.
pub(super) struct SetupBounds<'a> {
    pub(super) limits: &'a Limits,
    pub(super) stop: &'a Stop,
    /// When the sandbox was started.
    pub(super) since: Instant,
    /// The disk that all sandboxes share.
    pub(super) disk: &'a SharedDisk,
}

/// Waits until the setup script has ended well and the agent has its place.
pub(super) async fn setup(
    sandbox: &mut Sandbox,
    bounds: &SetupBounds<'_>,
) -> Result<(), SetupError> {
    let limit = bounds.limits.setup.min(bounds.limits.wall);
    let note = sandbox.setup_note();
    if note.code()? == Some(0) {
        // It had ended before the sandbox was adopted, maybe long ago.
        return Ok(());
    }
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut room = RoomWatch::new(sandbox, bounds.limits.disk, bounds.disk);
    let wait = sandbox.wait();
    tokio::pin!(wait);
    loop {
        tokio::select! {
            biased;
            let_go = bounds.stop.let_go() => return Err(SetupError::LetGo(let_go)),
            () = bounds.stop.force.cancelled() => return Err(SetupError::Cancelled),
            () = bounds.stop.cancel.cancelled() => return Err(SetupError::Cancelled),
            exit = &mut wait => return match (note.code()?, exit?) {
                // The agent has come and gone meanwhile.
                (Some(0), _) => Ok(()),
                (_, exit) => Err(SetupError::Ended(end(exit, bounds.limits))),
            },
            () = sleep_until(bounds.since + limit) => {
                return Err(SetupError::Ended(SetupEnd::Timeout { limit }));
            }
            excess = room.excess() => {
                return Err(SetupError::Ended(SetupEnd::DiskLimit { excess }));
            }
            // After a bad end the sandbox ends by itself.
            _ = look.tick() => if note.code()? == Some(0) {
                return Ok(());
            }
        }
    }
}

/// Why a setup did not lead to an agent.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetupError {
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("the run was stopped during its setup")]
    Cancelled,
    #[error("the run was let go during its setup")]
    LetGo(LetGo),
    #[error("the setup script {0}")]
    Ended(SetupEnd),
}

fn end(exit: Exit, limits: &Limits) -> SetupEnd {
    match exit.signal() {
        _ if exit.oom_killed => SetupEnd::OutOfMemory { limit_bytes: limits.memory_bytes },
        Some(signal) => SetupEnd::Signaled(signal),
        None => SetupEnd::Exited(exit.code),
    }
}

/// The last lines of a log, each of a length that a person reads.
fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(N_LAST_LINES)..];
    let clipped = last.iter().map(|line| line.chars().take(MAX_LINE_CHARS).collect::<String>());
    clipped.collect::<Vec<String>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_quotes_the_last_lines_that_say_something() {
        let log = format!("1\n2\n3\n\n4\n  \n5\n{}\n\n", "x".repeat(1_000));
        let expected = format!("2\n3\n4\n5\n{}", "x".repeat(MAX_LINE_CHARS));
        assert_eq!(last_lines(&log), expected);
        assert_eq!(last_lines(""), "");
    }
}
