//! Attends an agent from its start to its end: follows what it says, holds the limits, stops it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::execute::{ASK_AGAIN, ENGINE_ABSENCE};
use super::follow::{FollowError, Follower, Progress};
use super::lookout::{Lookout, Reading, Sampler, Stream};
use super::room::{RoomWatch, SharedDisk};
use super::tenure::{Lost, Tenure};
use super::watch::{RunUpdate, Watcher};
use super::wire::Bygone;
use crate::host::blocking;
use crate::run::{Limits, RunFailure, RunName, error_chain};
use crate::runtime::StopReason;
use crate::sandbox::{AgentSignal, Exit, Sandbox, SandboxError, SandboxId};
use crate::store::{Activities, RunFolder};

/// How often the agent's output is looked at. Live enough for a person; a look at a file that did
/// not grow costs microseconds.
const LOOK: Duration = Duration::from_millis(50);

/// From the request to end to the end by force. The CLI ends within 0.2 s of a SIGTERM; the rest is
/// for what it has to write.
const GRACE: Duration = Duration::from_secs(5);

/// Later than any run.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// How often the queue is told how far the output has been read. It is a write to the disk.
const ADVANCE_EVERY: Duration = Duration::from_secs(1);

/// How long an adopted sandbox whose time is up may take to say that its agent has ended by itself
/// meanwhile. An engine answers within milliseconds.
const ADOPTION_GRACE: Duration = Duration::from_secs(5);

/// How a run is stopped from outside.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Ends the run and keeps what it made: the agent is asked to end and its files are collected.
    pub cancel: CancellationToken,
    /// Ends the run at once.
    pub force: CancellationToken,
    /// Lets go of a run that a queue knows, without ending it: the next process takes it over.
    pub(super) leave: CancellationToken,
    /// The run is somebody else's: its sandbox goes, and nothing more is written.
    pub(super) lost: CancellationToken,
}

/// A run that is not ours any more, or soon not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LetGo {
    /// The next process takes it over.
    Leave,
    /// Somebody else has it.
    Lost,
}

impl From<Lost> for LetGo {
    fn from(_: Lost) -> Self {
        Self::Lost
    }
}

impl Stop {
    /// Waits until the run has to be let go.
    pub(super) async fn let_go(&self) -> LetGo {
        tokio::select! {
            biased;
            () = self.lost.cancelled() => LetGo::Lost,
            () = self.leave.cancelled() => LetGo::Leave,
        }
    }
}

/// How an agent was attended.
pub(super) struct Attended {
    /// How it ended, or what kept us from knowing.
    pub(super) exit: Result<Exit, AttendError>,
    pub(super) stopped: Option<StopReason>,
    /// What it said until then; `None` when its reader panicked.
    pub(super) follower: Option<Follower>,
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
    #[error("the run was let go")]
    LetGo(LetGo),
}

impl From<Lost> for AttendError {
    fn from(lost: Lost) -> Self {
        Self::LetGo(lost.into())
    }
}

/// The clock, as the run sees it.
pub type Clock = fn() -> Timestamp;

/// Waits until the agent has ended, by itself or by one of the limits.
pub(super) async fn attend(
    sandbox: &mut Sandbox,
    follower: Follower,
    bounds: Bounds<'_>,
    watch: Watcher<'_>,
) -> Attended {
    let limits = bounds.limits;
    let wall = bounds.since + limits.wall;
    let lookout = Lookout::new(limits, bounds.told_to, (bounds.clock)());
    let mut attendance = Attendance {
        follower: Some(follower),
        wall: if bounds.is_adopted { wall.max(Instant::now() + ADOPTION_GRACE) } else { wall },
        advanced: Instant::now(),
        stopped: None,
        lookout,
        has_caught_up: !bounds.is_adopted,
        n_words_before: None,
        has_result: false,
        ask_at: None,
        kill_at: None,
        is_killed: false,
        refused_since: None,
        bounds,
    };
    if attendance.bounds.is_adopted {
        attendance.recall(sandbox.id());
    }
    let mut exit = attendance.last(sandbox, watch).await;
    if let Err(AttendError::LetGo(_)) = exit {
        let Attendance { follower, stopped, .. } = attendance;
        return Attended { exit, stopped, follower };
    }
    attendance.explain(&exit, wall);
    // What it said last: whoever watches sees it, and the limit on its output holds to the end.
    loop {
        match attendance.look(watch).await {
            Ok(Looked::More) => continue,
            Ok(Looked::All) => {}
            Ok(Looked::Stop(reason)) => attendance.stopped = Some(reason),
            Err(e) => exit = exit.and(Err(e)),
        }
        break;
    }
    let Attendance { follower, stopped, .. } = attendance;
    Attended { exit, stopped, follower }
}

/// What an attendance has to hold.
pub(super) struct Bounds<'a> {
    pub(super) limits: &'a Limits,
    pub(super) stop: &'a Stop,
    pub(super) clock: Clock,
    /// When the sandbox was started.
    pub(super) since: Instant,
    /// Whether an earlier process started it.
    pub(super) is_adopted: bool,
    /// Who is told how far the output has been read.
    pub(super) tenure: &'a Tenure,
    /// Where it is noted why the agent is asked to end.
    pub(super) folder: &'a RunFolder,
    /// The disk that all sandboxes share.
    pub(super) disk: &'a SharedDisk,
    /// Which requests nobody will say of that they have ended.
    pub(super) bygone: Bygone,
    /// Where it is told what the run is doing, and under which name.
    pub(super) told_to: (&'a Activities, &'a RunName),
}

struct Attendance<'a> {
    bounds: Bounds<'a>,
    /// `None` only while a blocking thread reads with it.
    follower: Option<Follower>,
    wall: Instant,
    /// When the queue was told last how far the output has been read.
    advanced: Instant,
    stopped: Option<StopReason>,
    /// Sees to it that the run goes on.
    lookout: Lookout,
    /// Whether what an earlier process had read is read again.
    has_caught_up: bool,
    /// How many words of the agent were there when it was first looked at.
    n_words_before: Option<u64>,
    /// Whether the agent has given a result that stands.
    has_result: bool,
    /// When the agent that has to end is asked to; `None` before and after.
    ask_at: Option<Instant>,
    /// When the agent that was asked to end is killed; `None` before and after.
    kill_at: Option<Instant>,
    /// Whether the agent was to be killed.
    is_killed: bool,
    /// Since when the engine takes no orders, if it does not.
    refused_since: Option<Instant>,
}

/// Why an agent is asked to end. The form of `stopped.json`.
#[derive(Debug, Serialize, Deserialize)]
struct StopNote {
    /// Its sandbox: what is said of one agent is not true of another of the same run.
    sandbox: String,
    reason: StopReason,
}

/// What is looked at again and again.
struct Beats {
    /// The agent's output.
    look: Interval,
    /// The signals from elsewhere.
    sampler: Sampler,
    /// What the sandbox holds of the disk.
    room: RoomWatch,
}

/// What a look at the agent's output brought.
enum Looked {
    /// Everything was read.
    All,
    /// There may be more to read at once.
    More,
    /// The agent has to end.
    Stop(StopReason),
}

/// What comes next for the sandbox.
enum Next {
    /// The agent has ended.
    Ended(Exit),
    /// It has to end, and be asked to.
    Stop(StopReason),
    /// It has to be asked to end once more.
    Ask,
    /// It has to be killed.
    Kill,
}

impl Attendance<'_> {
    /// Lasts until the agent has ended.
    async fn last(
        &mut self,
        sandbox: &mut Sandbox,
        watch: Watcher<'_>,
    ) -> Result<Exit, AttendError> {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let record = (self.bounds.folder.clone(), self.bounds.is_adopted);
        let bygone = self.bounds.bygone.clone();
        let sampler = Sampler::new(sandbox.pulse_reader(), record, bygone);
        let room = RoomWatch::new(sandbox, self.bounds.limits.disk, self.bounds.disk);
        let mut beats = Beats { look, sampler, room };
        loop {
            match self.until_next(sandbox, &mut beats, watch).await? {
                Next::Ended(exit) => return Ok(exit),
                Next::Stop(reason) => {
                    self.decide(sandbox.id(), reason).await;
                    self.ask(sandbox).await?;
                }
                Next::Ask => self.ask(sandbox).await?,
                Next::Kill => self.kill(sandbox).await?,
            }
        }
    }

    /// Waits and reads until something has to be done. One wait lasts all the time: to begin it
    /// anew costs the engine a few requests.
    async fn until_next(
        &mut self,
        sandbox: &mut Sandbox,
        beats: &mut Beats,
        watch: Watcher<'_>,
    ) -> Result<Next, AttendError> {
        let stop = self.bounds.stop;
        let (cancel, force) = (stop.cancel.clone(), stop.force.clone());
        let wait = sandbox.wait();
        tokio::pin!(wait);
        loop {
            let deadline = self.deadline();
            let stream = self.stream()?;
            let has_spoken = self.n_words_before.is_some_and(|n| stream.heard.n_words > n);
            tokio::select! {
                biased;
                let_go = stop.let_go() => return Err(AttendError::LetGo(let_go)),
                () = force.cancelled(), if !self.is_killed => return Ok(Next::Kill),
                () = cancel.cancelled(), if self.stopped.is_none() => {
                    return Ok(Next::Stop(StopReason::Cancelled));
                }
                exit = &mut wait => return Ok(Next::Ended(exit?)),
                () = sleep_until(deadline) => return Ok(self.expired()),
                excess = beats.room.excess(), if self.stopped.is_none() => {
                    return Ok(Next::Stop(StopReason::Failed(RunFailure::DiskLimit { excess })));
                }
                reading = beats.sampler.next(stream, has_spoken),
                        if self.stopped.is_none() && self.has_caught_up => {
                    if let Some(reason) = self.weigh(&reading, watch)? {
                        return Ok(Next::Stop(reason));
                    }
                }
                // The last: in a flood it is due at any time.
                _ = beats.look.tick() => match self.look(watch).await? {
                    Looked::All => self.has_caught_up = true,
                    Looked::More => beats.look.reset_immediately(),
                    Looked::Stop(reason) => return Ok(Next::Stop(reason)),
                },
            }
        }
    }

    /// What the agent has told so far.
    fn stream(&self) -> Result<Stream, AttendError> {
        let follower = self.follower.as_ref().ok_or(AttendError::Reader)?;
        Ok(Stream {
            heard: follower.heard(),
            has_open_call: follower.recorder().has_open_call(),
            has_result: self.has_result,
        })
    }

    /// Weighs whether the run goes on, and says why the agent has to end, if it has to.
    fn weigh(
        &mut self,
        reading: &Reading,
        watch: Watcher<'_>,
    ) -> Result<Option<StopReason>, AttendError> {
        let stream = self.stream()?;
        self.n_words_before.get_or_insert(stream.heard.n_words);
        let now = (self.bounds.clock)();
        let (reason, warning) = self.lookout.weigh(reading, stream, now, watch);
        if let (Some(warning), Some(follower)) = (warning, self.follower.as_mut()) {
            follower.note(warning);
        }
        Ok(reason)
    }

    /// The next moment at which something expires.
    fn deadline(&self) -> Instant {
        if let Some(at) = self.ask_at.or(self.kill_at) {
            return at;
        }
        if self.stopped.is_some() {
            // The kill has been sent, and nothing is left but to wait. The engine's own limits end a
            // kill that does not work.
            return Instant::now() + NEVER;
        }
        self.wall
    }

    /// What the deadline that has passed calls for.
    fn expired(&self) -> Next {
        if self.ask_at.is_some() {
            Next::Ask
        } else if self.stopped.is_some() {
            Next::Kill
        } else {
            Next::Stop(StopReason::Timeout(self.bounds.limits.wall))
        }
    }

    /// Why an adopted agent ended by a signal that this process did not send: the one before it did,
    /// when the run's time was up.
    fn explain(&mut self, exit: &Result<Exit, AttendError>, wall: Instant) {
        let by_signal = exit.as_ref().is_ok_and(|exit| exit.signal().is_some() && !exit.oom_killed);
        if self.bounds.is_adopted && self.stopped.is_none() && by_signal && wall <= Instant::now() {
            self.stopped = Some(StopReason::Timeout(self.bounds.limits.wall));
        }
    }

    /// Takes over what an earlier process had decided: it may have died before the agent was asked.
    fn recall(&mut self, sandbox: &SandboxId) {
        let note = self.bounds.folder.stop_note();
        let note: Option<StopNote> = note.and_then(|note| serde_json::from_slice(&note).ok());
        if let Some(note) = note.filter(|note| note.sandbox == sandbox.as_str()) {
            self.stopped = Some(note.reason);
            self.ask_at = Some(Instant::now());
        }
    }

    /// The agent has to end. The first reason stays, and is known to the next process before the
    /// agent hears of it: its end would be a riddle otherwise.
    async fn decide(&mut self, sandbox: &SandboxId, reason: StopReason) {
        if self.stopped.is_some() {
            return;
        }
        let note = StopNote { sandbox: sandbox.as_str().to_owned(), reason: reason.clone() };
        let note = serde_json::to_vec(&note).expect("our own types have string keys");
        let folder = self.bounds.folder.clone();
        match blocking(move || folder.note_stop(&note)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => {
                tracing::warn!(error = %error_chain(&e), "why the agent is stopped is not noted");
            }
            Err(e) => tracing::error!(error = %e, "noting why the agent is stopped panicked"),
        }
        self.stopped = Some(reason);
    }

    /// Asks the agent to end, and once more soon where its engine is away.
    async fn ask(&mut self, sandbox: &Sandbox) -> Result<(), AttendError> {
        let asked = sandbox.signal(AgentSignal::Terminate).await;
        (self.ask_at, self.kill_at) = match self.again_at(asked)? {
            Some(again) => (Some(again), None),
            None => (None, Some(Instant::now() + GRACE)),
        };
        Ok(())
    }

    async fn kill(&mut self, sandbox: &mut Sandbox) -> Result<(), AttendError> {
        self.stopped.get_or_insert(StopReason::Cancelled);
        self.is_killed = true;
        let killed = sandbox.kill().await;
        (self.ask_at, self.kill_at) = (None, self.again_at(killed)?);
        Ok(())
    }

    /// When an order is to be given again that an engine did not take; `None` where it did.
    fn again_at(
        &mut self,
        given: Result<(), SandboxError>,
    ) -> Result<Option<Instant>, AttendError> {
        let Err(error) = given else {
            self.refused_since = None;
            return Ok(None);
        };
        if self.refused_since.get_or_insert_with(Instant::now).elapsed() >= ENGINE_ABSENCE {
            return Err(error.into());
        }
        tracing::warn!(error = %error_chain(&error), "the agent cannot be ended yet");
        Ok(Some(Instant::now() + ASK_AGAIN))
    }

    /// Reads a piece of what is new.
    async fn look(&mut self, watch: Watcher<'_>) -> Result<Looked, AttendError> {
        let progress = self.advance().await?;
        let follower = self.follower.as_ref().ok_or(AttendError::Reader)?;
        let n_bytes = follower.n_bytes();
        if !progress.updates.is_empty() {
            progress.updates.iter().cloned().for_each(|step| watch(RunUpdate::Step(step)));
            watch(RunUpdate::Live(follower.recorder().live()));
        }
        self.has_result = progress.has_result;
        if self.advanced.elapsed() >= ADVANCE_EVERY {
            self.advanced = Instant::now();
            self.bounds.tenure.advance(n_bytes, (self.bounds.clock)()).await?;
        }
        let limit_bytes = self.bounds.limits.output_bytes;
        if self.stopped.is_none() {
            if let Some(failure) = progress.must_stop {
                return Ok(Looked::Stop(StopReason::Failed(failure)));
            }
            if n_bytes > limit_bytes {
                return Ok(Looked::Stop(StopReason::OutputLimit { limit_bytes }));
            }
        }
        Ok(if progress.more { Looked::More } else { Looked::All })
    }

    /// Reads on a thread that may block: parsing a megabyte takes milliseconds.
    async fn advance(&mut self) -> Result<Progress, AttendError> {
        let mut follower = self.follower.take().ok_or(AttendError::Reader)?;
        let now = (self.bounds.clock)();
        let read = blocking(move || {
            let progress = follower.advance(now);
            (follower, progress)
        });
        let (follower, progress) = read.await.map_err(|_| AttendError::Reader)?;
        self.follower = Some(follower);
        Ok(progress?)
    }
}
