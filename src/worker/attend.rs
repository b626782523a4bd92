//! Attends an agent from its start to its end: follows what it says, holds the limits, stops it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::follow::{FollowError, Follower, Progress};
use super::watch::{RunUpdate, Watcher};
use crate::run::Limits;
use crate::runtime::StopReason;
use crate::sandbox::{AgentSignal, Exit, Sandbox, SandboxError};

/// How often the agent's output is looked at. Live enough for a person; a look at a file that did
/// not grow costs microseconds.
const LOOK: Duration = Duration::from_millis(50);

/// From the request to end to the end by force. The CLI ends within 0.2 s of a SIGTERM; the rest is
/// for what it has to write.
const GRACE: Duration = Duration::from_secs(5);

/// How a run is stopped from outside.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Ends the run and keeps what it made: the agent is asked to end and its files are collected.
    pub cancel: CancellationToken,
    /// Ends the run at once.
    pub force: CancellationToken,
}

/// How an agent was attended.
pub(super) struct Attended {
    pub(super) exit: Exit,
    pub(super) stopped: Option<StopReason>,
    pub(super) follower: Follower,
}

/// What ended the attendance early.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttendError {
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error("the reader of the agent's output panicked")]
    Reader,
}

/// The clock, as the run sees it.
pub type Clock = fn() -> Timestamp;

/// Waits until the agent has ended, by itself or by one of the limits.
pub(super) async fn attend(
    sandbox: &mut Sandbox,
    follower: Follower,
    bounds: Bounds<'_>,
    watch: Watcher<'_>,
) -> Result<Attended, AttendError> {
    let mut attendance = Attendance {
        follower: Some(follower),
        wall: Instant::now() + bounds.limits.wall,
        bounds,
        stopped: None,
        result_since: None,
        kill_at: None,
    };
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let exit = loop {
        let deadline = attendance.deadline();
        let (cancel, force) = attendance.tokens();
        tokio::select! {
            biased;
            () = force.cancelled(), if !attendance.is_killed() => {
                attendance.stop(sandbox, StopReason::Cancelled).await?;
                attendance.kill(sandbox).await?;
            }
            () = cancel.cancelled(), if attendance.stopped.is_none() => {
                attendance.stop(sandbox, StopReason::Cancelled).await?;
            }
            exit = sandbox.wait() => break exit?,
            () = sleep_until(deadline) => attendance.expire(sandbox).await?,
            _ = look.tick() => attendance.look(sandbox, watch).await?,
        }
    };
    // What it said last: whoever watches sees it, and the limit on its output holds to the end.
    attendance.look(sandbox, watch).await?;
    let Attendance { follower, stopped, .. } = attendance;
    Ok(Attended { exit, stopped, follower: follower.ok_or(AttendError::Reader)? })
}

/// What an attendance has to hold.
pub(super) struct Bounds<'a> {
    pub(super) limits: &'a Limits,
    pub(super) stop: &'a Stop,
    pub(super) clock: Clock,
}

struct Attendance<'a> {
    bounds: Bounds<'a>,
    /// `None` only while a blocking thread reads with it.
    follower: Option<Follower>,
    wall: Instant,
    stopped: Option<StopReason>,
    /// When the agent's standing result arrived.
    result_since: Option<Instant>,
    /// When the agent that was asked to end is killed; `None` before and after.
    kill_at: Option<Instant>,
}

impl Attendance<'_> {
    fn tokens(&self) -> (CancellationToken, CancellationToken) {
        (self.bounds.stop.cancel.clone(), self.bounds.stop.force.clone())
    }

    /// Whether the kill has been sent: nothing is left but to wait.
    fn is_killed(&self) -> bool {
        self.stopped.is_some() && self.kill_at.is_none()
    }

    /// The next moment at which something expires.
    fn deadline(&self) -> Instant {
        if let Some(kill_at) = self.kill_at {
            return kill_at;
        }
        let linger = self.result_since.map(|since| since + self.bounds.limits.linger);
        linger.map_or(self.wall, |linger| linger.min(self.wall))
    }

    async fn expire(&mut self, sandbox: &mut Sandbox) -> Result<(), AttendError> {
        if self.stopped.is_some() {
            return self.kill(sandbox).await;
        }
        let reason = if Instant::now() >= self.wall && self.result_since.is_none() {
            StopReason::Timeout(self.bounds.limits.wall)
        } else {
            StopReason::Lingered
        };
        self.stop(sandbox, reason).await
    }

    /// Asks the agent to end. The first reason stays.
    async fn stop(&mut self, sandbox: &Sandbox, reason: StopReason) -> Result<(), AttendError> {
        if self.stopped.is_none() {
            self.stopped = Some(reason);
            self.kill_at = Some(Instant::now() + GRACE);
            sandbox.signal(AgentSignal::Terminate).await?;
        }
        Ok(())
    }

    async fn kill(&mut self, sandbox: &mut Sandbox) -> Result<(), AttendError> {
        // A kill that does not end the agent must not be sent in a loop.
        self.kill_at = None;
        self.wall = Instant::now() + Duration::from_secs(365 * 24 * 3600);
        self.result_since = None;
        Ok(sandbox.kill().await?)
    }

    /// Reads what is new and acts on it.
    async fn look(&mut self, sandbox: &Sandbox, watch: Watcher<'_>) -> Result<(), AttendError> {
        loop {
            let progress = self.advance().await?;
            let follower = self.follower.as_ref().ok_or(AttendError::Reader)?;
            let n_bytes = follower.n_bytes();
            if !progress.updates.is_empty() {
                progress.updates.iter().cloned().for_each(|step| watch(RunUpdate::Step(step)));
                watch(RunUpdate::Live(follower.recorder().live()));
            }
            self.result_since = match (progress.has_result, self.result_since) {
                (true, None) => Some(Instant::now()),
                (true, since) => since,
                (false, _) => None,
            };
            if let Some(failure) = progress.must_stop {
                self.stop(sandbox, StopReason::Failed(failure)).await?;
            }
            let limit_bytes = self.bounds.limits.output_bytes;
            if n_bytes > limit_bytes {
                return self.stop(sandbox, StopReason::OutputLimit { limit_bytes }).await;
            }
            if !progress.more {
                return Ok(());
            }
        }
    }

    /// Reads on a thread that may block: parsing a megabyte takes milliseconds.
    async fn advance(&mut self) -> Result<Progress, AttendError> {
        let mut follower = self.follower.take().ok_or(AttendError::Reader)?;
        let now = (self.bounds.clock)();
        let read = tokio::task::spawn_blocking(move || {
            let progress = follower.advance(now);
            (follower, progress)
        });
        let (follower, progress) = read.await.map_err(|_| AttendError::Reader)?;
        self.follower = Some(follower);
        Ok(progress?)
    }
}
