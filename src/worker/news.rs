//! Tells the news of a run: on disk, where any number of watchers read it, and to the one who stands
//! by.

use tokio::time::Instant;

use super::attend::Clock;
use super::backlog::{Backlog, Pending};
use super::part::Part;
use super::report::RunReport;
use super::watch::{Phase, RunUpdate, Watcher};
use crate::run::error_chain;
use crate::store::{EventLog, StoreError};
use crate::trajectory::{FailureEvent, FinalUsage, FinishedEvent, Live, RunEvent};

/// How often the usage is told. A busy agent has news twenty times a second.
const USAGE_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// The news of one run.
pub(super) struct News<'a> {
    log: EventLog,
    clock: Clock,
    outer: Watcher<'a>,
    /// What the disk has not taken yet.
    backlog: Backlog,
    /// Updates of the agent's fold that were heard in this process.
    n_heard: u64,
    last_phase: Option<&'static str>,
    usage_at: Option<Instant>,
    /// The last usage, where it was not told yet.
    untold: Option<Live>,
    /// Whether an earlier step of the run said that it goes on.
    is_later_step: bool,
    /// Whether the disk refused a line and has taken none since: told once.
    is_broken: bool,
}

impl<'a> News<'a> {
    pub(super) fn new(log: EventLog, clock: Clock, outer: Watcher<'a>) -> Self {
        Self {
            log,
            clock,
            outer,
            backlog: Backlog::default(),
            n_heard: 0,
            last_phase: None,
            usage_at: None,
            untold: None,
            is_later_step: false,
            is_broken: false,
        }
    }

    /// Tells that a step of the run begins, unless it is told already. What the fold's updates are
    /// counted from must be written before them, so an error is one to try again after.
    pub(super) fn begin(&mut self, part: &Part) -> Result<(), StoreError> {
        self.is_later_step = part.index() > 0;
        let number = part.index() as u64 + 1;
        let event = RunEvent::StepBegins {
            name: part.step().to_owned(),
            number,
            of: part.n_steps() as u64,
        };
        self.flush()?;
        self.log.begin_part(number, (self.clock)(), &event)
    }

    /// Tells the last of a step: everything of it is written. After an error it can be told again.
    pub(super) fn end_step(&mut self) -> Result<(), StoreError> {
        if let Some(live) = self.untold.take() {
            self.write(RunEvent::from(&live));
        }
        self.flush()
    }

    /// Passes news on.
    pub(super) fn tell(&mut self, update: RunUpdate) {
        let is_old = match &update {
            RunUpdate::Step(step) => {
                self.n_heard += 1;
                // An earlier process told it before the agent's log was read again.
                let is_old = self.n_heard <= self.log.n_updates();
                if !is_old {
                    self.write_or_keep(RunEvent::from(step), true);
                }
                is_old
            }
            RunUpdate::Live(live) => {
                let is_old = self.n_heard < self.log.n_updates();
                if !is_old {
                    self.tell_usage(live);
                }
                is_old
            }
            RunUpdate::Opened { name, .. } => {
                if self.log.seq() == 0 {
                    self.write(RunEvent::Opened {
                        collection: name.collection.to_string(),
                        task: name.task.to_string(),
                        trajectory_id: name.id.to_string(),
                    });
                    self.write(RunEvent::Status { status: "pending" });
                }
                false
            }
            RunUpdate::Phase(phase) => {
                self.tell_phase(phase);
                false
            }
            RunUpdate::Note(text) => {
                self.write(RunEvent::Note { text: text.clone() });
                false
            }
            RunUpdate::Activity(now) => {
                self.write(RunEvent::Activity { state: now.state, since: now.since });
                false
            }
        };
        if !is_old {
            (self.outer)(update);
        }
    }

    /// Tells how the run ended. Nothing comes after it, and everything before it is written. After an
    /// error it can be told again.
    pub(super) fn finish(&mut self, report: &RunReport) -> Result<(), StoreError> {
        self.end_step()?;
        let event = RunEvent::Finished(Box::new(FinishedEvent {
            status: report.status.as_str(),
            failure: FailureEvent::of(&report.status, report.step.as_deref()),
            passed: report.passed,
            verdict: report.verdict.clone(),
            usage: FinalUsage {
                source: report.usage.source,
                total: report.usage.by_model.total(),
                by_model: report.usage.by_model.clone(),
            },
            duration_ms: u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX),
            n_steps: report.n_steps,
            warnings: report.warnings.clone(),
            answer: report.answer.clone(),
        }));
        let at = (self.clock)();
        self.log.close(at, &event)
    }

    fn tell_phase(&mut self, phase: &Phase) {
        let (word, status) = match phase {
            Phase::FetchingAgent { .. } => ("fetching_agent", None),
            Phase::WaitingForDownload => ("waiting_for_download", None),
            Phase::BuildingSnapshot { .. } => ("building_snapshot", None),
            Phase::Provisioning => ("provisioning", None),
            Phase::Setup => ("setup", Some("running")),
            Phase::Running => ("running", Some("running")),
            Phase::Collecting => ("collecting", None),
        };
        if self.last_phase == Some(word) {
            // A download and a build tell their progress many times.
            return;
        }
        if let Some(status) =
            status.filter(|_| !self.is_later_step && !matches!(self.last_phase, Some("setup")))
        {
            self.write(RunEvent::Status { status });
        }
        self.last_phase = Some(word);
        self.write(RunEvent::Phase { phase: word });
    }

    fn tell_usage(&mut self, live: &Live) {
        if self.usage_at.is_some_and(|at| at.elapsed() < USAGE_EVERY) {
            self.untold = Some(live.clone());
            return;
        }
        self.usage_at = Some(Instant::now());
        self.untold = None;
        // The next one says it better than one that waited.
        if self.backlog.is_empty() {
            self.write(RunEvent::from(live));
        }
    }

    fn write(&mut self, event: RunEvent) {
        self.write_or_keep(event, false);
    }

    /// News that cannot be written do not end a run; what it made is worth more. They are kept, and
    /// written before the next ones.
    fn write_or_keep(&mut self, event: RunEvent, is_update: bool) {
        let at = (self.clock)();
        self.backlog.push(Pending { at, event, is_update });
        match self.flush() {
            Ok(()) => self.is_broken = false,
            Err(e) if !std::mem::replace(&mut self.is_broken, true) => {
                tracing::warn!(error = %error_chain(&e), "the news of the run cannot be written yet");
            }
            Err(_) => {}
        }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let Self { log, backlog, .. } = self;
        backlog.flush(|news| news.append_to(log))
    }
}
