//! Looks out for a run that does not go on: three signals, read every few seconds, and what is told of
//! them.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::heard::Heard;
use super::watch::{RunUpdate, Watcher};
use super::wire::{Bygone, WireSigns, WireTail};
use crate::host::blocking;
use crate::run::{
    Activity, ActivityNow, Advice, Asking, Limits, Pulse, RunFailure, RunName, Signs, Stall,
    StallWatch,
};
use crate::runtime::StopReason;
use crate::sandbox::PulseReader;
use crate::store::{Activities, RunFolder};
use crate::telemetry::meters;

/// How often a run is looked at. Limits are minutes; a look costs a millisecond.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How often a change is told at most that nobody has to act on. An agent goes from its model to a
/// tool and back twenty times a minute.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What was read of a run.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// `None` where the run has no gateway.
    wire: Option<WireSigns>,
    /// `None` where it was not asked for, or is not known.
    pulse: Option<Pulse>,
}

/// Reads the signals that are not the agent's own words.
pub(super) struct Sampler {
    ticks: Interval,
    pulse: PulseReader,
    /// `None` while it is read, and for good when reading panicked.
    wire: Option<WireTail>,
    reading: JoinSet<(WireTail, Reading)>,
}

/// What the stream has told when a look begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream {
    pub(super) heard: Heard,
    pub(super) has_open_call: bool,
    pub(super) has_result: bool,
}

impl Sampler {
    pub(super) fn new(
        pulse: PulseReader,
        (folder, is_adopted): (RunFolder, bool),
        bygone: Bygone,
    ) -> Self {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let wire = Some(WireTail::new(folder, is_adopted, bygone));
        Self { ticks, pulse, wire, reading: JoinSet::new() }
    }

    /// The next reading. A wait that is dropped loses nothing. Processes are asked for only while a
    /// tool is called: nothing else hangs on them.
    pub(super) async fn next(&mut self, stream: Stream, has_spoken: bool) -> Reading {
        loop {
            if self.reading.is_empty() {
                self.ticks.tick().await;
                let Some(mut wire) = self.wire.take() else { return Reading::default() };
                let pulse = stream.has_open_call.then(|| self.pulse.clone());
                self.reading.spawn(async move {
                    let pulse = match pulse {
                        Some(pulse) => pulse.read().await,
                        None => None,
                    };
                    let read = blocking(move || {
                        let signs = wire.look(has_spoken);
                        (wire, signs)
                    });
                    match read.await {
                        Ok((tail, wire)) => (tail, Reading { wire, pulse }),
                        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
                    }
                });
            }
            match self.reading.join_next().await {
                Some(Ok((tail, reading))) => {
                    self.wire = Some(tail);
                    return reading;
                }
                Some(Err(e)) => tracing::error!(error = %e, "looking at a run panicked"),
                None => {}
            }
        }
    }
}

/// Weighs the signals of one run, and tells what it is doing.
pub(super) struct Lookout {
    watch: StallWatch,
    /// When it was last looked at.
    at: Instant,
    /// What was told last, and when.
    told: Option<(Activity, Instant)>,
    sign: Sign,
}

/// What everybody can see of a run while it is attended.
struct Sign {
    activities: Activities,
    run: RunName,
}

impl Sign {
    fn show(&self, now: Option<ActivityNow>) {
        self.activities.tell(&self.run, now);
        for (activity, n) in self.activities.counts() {
            meters::runs_by_activity(activity.as_str(), n);
        }
    }
}

impl Drop for Sign {
    fn drop(&mut self) {
        self.show(None);
    }
}

impl Lookout {
    pub(super) fn new(
        limits: &Limits,
        (activities, run): (&Activities, &RunName),
        now: jiff::Timestamp,
    ) -> Self {
        let sign = Sign { activities: activities.clone(), run: run.clone() };
        let watch = StallWatch::new(limits.stall, limits.linger, now);
        Self { watch, at: Instant::now(), told: None, sign }
    }

    /// Weighs a reading together with what the agent has said, and says why the agent has to end, if
    /// it has to. What a person should know is in `warnings`, too.
    pub(super) fn weigh(
        &mut self,
        reading: &Reading,
        stream: Stream,
        now: jiff::Timestamp,
        watch: Watcher<'_>,
    ) -> (Option<StopReason>, Option<String>) {
        let step = self.at.elapsed();
        self.at = Instant::now();
        let advice = self.watch.look(signs(reading, stream), step, now);
        self.tell(watch);
        match advice {
            Advice::Wait => (None, None),
            Advice::Warn(stall) => {
                let warning = warning(&stall);
                watch(RunUpdate::Note(warning.clone()));
                (None, Some(warning))
            }
            Advice::End(Stall { activity: Activity::FinishedNotExited, .. }) => {
                (Some(StopReason::Lingered), None)
            }
            Advice::End(Stall { activity, since, quiet, .. }) => {
                let failure = RunFailure::Stalled { activity, since, quiet };
                (Some(StopReason::Failed(failure)), None)
            }
        }
    }

    fn tell(&mut self, watch: Watcher<'_>) {
        let now = self.watch.activity();
        self.sign.show(Some(now));
        let is_due = match self.told {
            None => true,
            Some((told, _)) if told == now.state => false,
            Some((told, at)) => {
                now.state.is_stalled() || told.is_stalled() || at.elapsed() >= TELL_EVERY
            }
        };
        if is_due {
            self.told = Some((now.state, Instant::now()));
            watch(RunUpdate::Activity(now));
        }
    }
}

/// One account of three signals. Where there is a gateway it has the last word on the rate: it sees
/// sub-agents, too, of whose retries the stream does not tell.
fn signs(reading: &Reading, stream: Stream) -> Signs {
    let (n_answers, asking, rate_limit) = match &reading.wire {
        Some(wire) => (wire.n_signs, wire.asking(), wire.rate_limit()),
        None => (0, Asking::Unseen, stream.heard.rate_limit()),
    };
    Signs {
        n_signs: stream.heard.n_words + n_answers,
        rate_limit,
        asking,
        has_open_call: stream.has_open_call,
        has_result: stream.has_result,
        pulse: reading.pulse,
    }
}

fn warning(stall: &Stall) -> String {
    format!(
        "Nothing goes on: {} for {} s. The run is ended when that has lasted {} s.",
        stall.activity.complaint(),
        stall.quiet.as_secs(),
        stall.limit.as_secs()
    )
}
