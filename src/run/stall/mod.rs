//! Whether a run goes on: from what is seen of it to what it is doing, and whether that is too much of
//! nothing.
//!
//! Time is what was watched: a machine that slept, or a server that stood still, adds nothing.

#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;

use super::activity::{Activity, ActivityNow, StallLimits};

/// The longest time that one look counts. What lies further back was not watched.
const MAX_STEP: Duration = Duration::from_secs(5);

/// From this share of one processor on, a sandbox works. An agent CLI that waits takes less than half
/// of it.
const BUSY_SHARE: f64 = 0.02;

/// How long the word counts that the rate is limited. The agent CLI waits a minute at most before it
/// asks again.
const RATE_LIMIT_LASTS: Duration = Duration::from_secs(150);

/// How much longer a model may be silent whose answers are not seen as they come: the longest answer
/// comes in one piece then, and takes twenty minutes.
const BLIND_FACTOR: u32 = 2;

/// Whether a request is on its way to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// That is not seen: the run has no gateway.
    Unseen,
    /// None is.
    Nothing,
    /// One is, or several.
    InFlight,
}

/// What the sandbox's processes have done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// Processor time of all of them, those that have ended included.
    pub cpu: Duration,
    /// How many there are.
    pub n_processes: u64,
}

/// What is seen of a run at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signs {
    /// How often it was seen so far that the run goes on: words of the agent, bytes of an answer.
    pub n_signs: u64,
    /// The number of the last word of the model service that it limits the rate, unless the run went
    /// on since.
    pub rate_limit: Option<u64>,
    /// Whether a request is on its way.
    pub asking: Asking,
    /// Whether a tool was called that has given no result.
    pub has_open_call: bool,
    /// Whether the agent has given its result.
    pub has_result: bool,
    /// `None` where it is not seen.
    pub pulse: Option<Pulse>,
}

/// A time in which a run did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    /// What it should have been doing.
    pub activity: Activity,
    /// When it was last seen to go on.
    pub since: Timestamp,
    /// How long it did nothing, of which we watched.
    pub quiet: Duration,
    /// How long it may.
    pub limit: Duration,
}

/// What is to be done about a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Nothing.
    Wait,
    /// A person should know. It is said once for each time of nothing.
    Warn(Stall),
    /// Its agent is to be ended. Where that is a failure, a warning came before.
    End(Stall),
}

/// Watches one run.
#[derive(Debug, Clone)]
pub struct StallWatch {
    limits: StallLimits,
    linger: Duration,
    last: Option<Signs>,
    now: ActivityNow,
    /// When the run was last seen to go on.
    lived: Timestamp,
    /// How long it has been quiet since, while it waited for its model, for a tool, for neither.
    quiet: Quiet,
    /// How long the rate has been limited, since that was last said.
    limited: Duration,
    /// How long the result has stood.
    finished: Duration,
    was_warned: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Quiet {
    model: Duration,
    tool: Duration,
    silent: Duration,
}

/// What a run waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaits {
    Exit,
    Rate,
    Model,
    Tool,
    Nothing,
}

impl StallWatch {
    /// Begins to watch. `linger` is how long the agent may take to exit after its result.
    #[must_use]
    pub fn new(limits: StallLimits, linger: Duration, now: Timestamp) -> Self {
        Self {
            limits,
            linger,
            last: None,
            now: ActivityNow { state: Activity::Idle, since: now },
            lived: now,
            quiet: Quiet::default(),
            limited: Duration::ZERO,
            finished: Duration::ZERO,
            was_warned: false,
        }
    }

    /// What the run was doing when it was last looked at.
    #[must_use]
    pub fn activity(&self) -> ActivityNow {
        self.now
    }

    /// Takes what is seen now, `step` after the last look.
    pub fn look(&mut self, signs: Signs, step: Duration, now: Timestamp) -> Advice {
        let last = self.last.replace(signs);
        let watched = step.min(MAX_STEP);
        let awaits = self.waits_for(&signs, last.as_ref(), watched);
        let is_limited_anew =
            signs.rate_limit.is_some() && last.is_some_and(|l| l.rate_limit != signs.rate_limit);
        let works = last.and_then(|last| works(last.pulse?, signs.pulse?, step));
        let goes_on = last.is_none_or(|last| last.n_signs != signs.n_signs)
            || awaits == Awaits::Rate
            || is_limited_anew
            || (signs.has_open_call && works != Some(false));
        if goes_on {
            self.lived = now;
            self.quiet = Quiet::default();
            self.was_warned = false;
        } else {
            match awaits {
                Awaits::Model => self.quiet.model += watched,
                Awaits::Tool => self.quiet.tool += watched,
                Awaits::Nothing => self.quiet.silent += watched,
                Awaits::Exit | Awaits::Rate => {}
            }
        }
        self.finished = match (awaits, last) {
            (Awaits::Exit, Some(last)) if last.has_result => self.finished + watched,
            (Awaits::Exit | Awaits::Rate | Awaits::Model | Awaits::Tool | Awaits::Nothing, _) => {
                Duration::ZERO
            }
        };
        self.judge(awaits, signs.asking, now)
    }

    /// What the run waits for.
    fn waits_for(&mut self, signs: &Signs, last: Option<&Signs>, watched: Duration) -> Awaits {
        let is_said_anew = last.is_none_or(|last| last.rate_limit != signs.rate_limit);
        self.limited = if is_said_anew { Duration::ZERO } else { self.limited + watched };
        let is_limited = signs.rate_limit.is_some() && self.limited < RATE_LIMIT_LASTS;
        if signs.has_result {
            return Awaits::Exit;
        }
        match signs.asking {
            Asking::InFlight => Awaits::Model,
            Asking::Unseen | Asking::Nothing if is_limited => Awaits::Rate,
            Asking::Unseen | Asking::Nothing if signs.has_open_call => Awaits::Tool,
            Asking::Unseen => Awaits::Model,
            Asking::Nothing => Awaits::Nothing,
        }
    }

    fn judge(&mut self, awaits: Awaits, asking: Asking, now: Timestamp) -> Advice {
        let model = match asking {
            Asking::Unseen => self.limits.model.saturating_mul(BLIND_FACTOR),
            Asking::Nothing | Asking::InFlight => self.limits.model,
        };
        let (fine, stalled, quiet, limit) = match awaits {
            Awaits::Model => {
                (Activity::WaitingOnModel, Activity::ModelStalled, self.quiet.model, model)
            }
            Awaits::Tool => {
                (Activity::ToolRunning, Activity::ToolStuck, self.quiet.tool, self.limits.tool)
            }
            Awaits::Nothing => {
                (Activity::Idle, Activity::Silent, self.quiet.silent, self.limits.silent)
            }
            Awaits::Rate => {
                self.stand(Activity::RateLimited, now);
                return Advice::Wait;
            }
            Awaits::Exit => return self.judge_exit(now),
        };
        let is_long = quiet >= limit / 2;
        self.stand(if is_long { stalled } else { fine }, now);
        let stall = Stall { activity: stalled, since: self.lived, quiet, limit };
        // Looks are seconds apart, so half of a short limit and its end may be seen in one. The warning
        // comes first then too, and the end with the next look.
        if is_long && !std::mem::replace(&mut self.was_warned, true) {
            Advice::Warn(stall)
        } else if quiet >= limit {
            Advice::End(stall)
        } else {
            Advice::Wait
        }
    }

    /// A result that stands for long is no failure, so nobody is warned of it.
    fn judge_exit(&mut self, now: Timestamp) -> Advice {
        self.stand(Activity::FinishedNotExited, now);
        let (quiet, limit) = (self.finished, self.linger);
        let activity = Activity::FinishedNotExited;
        if quiet >= limit {
            Advice::End(Stall { activity, since: self.now.since, quiet, limit })
        } else {
            Advice::Wait
        }
    }

    fn stand(&mut self, state: Activity, now: Timestamp) {
        if self.now.state != state {
            self.now = ActivityNow { state, since: now };
        }
    }
}

/// Whether the sandbox worked between two looks; `None` where they are too near to tell.
fn works(before: Pulse, after: Pulse, step: Duration) -> Option<bool> {
    if step.is_zero() {
        return None;
    }
    // What an ended process had used can be lost with it; that it ended is a change.
    let used = after.cpu.abs_diff(before.cpu);
    let is_busy = used.as_secs_f64() >= step.as_secs_f64() * BUSY_SHARE;
    Some(is_busy || before.n_processes != after.n_processes)
}
