//! One attempt on its way: its bytes are counted, and however it ends, the ledger gets its line.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Response, StatusCode};

use super::ledger::{EgressRecord, Outcome};
use super::policy::{Denial, Grant};
use super::refusal::Refusal;
use super::server::Gate;
use crate::run::clipped;

/// Most bytes of one run, both ways together. Images and data sets have some; what is more is a
/// mistake, or somebody's backup.
pub(super) const MAX_RUN_BYTES: u64 = 256 << 30;

/// How long nothing may pass. Longer than a build server's longest silence, and short enough that
/// forgotten connections go.
pub(super) const IDLE_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

/// The bytes of one attempt.
#[derive(Debug)]
pub(super) struct Meter {
    gate: Arc<Gate>,
    since: Instant,
    up: AtomicU64,
    down: AtomicU64,
    /// Milliseconds from `since` to the last byte.
    last: AtomicU64,
}

impl Meter {
    fn new(gate: Arc<Gate>) -> Self {
        let since = Instant::now();
        Self {
            gate,
            since,
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }

    /// Counts, and says whether more may pass.
    pub(super) fn count(&self, way: Way, n: usize) -> bool {
        let n = n as u64;
        let counter = match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        };
        counter.fetch_add(n, Ordering::Relaxed);
        self.last.store(millis(self.since.elapsed()), Ordering::Relaxed);
        self.gate.count_bytes(n) <= MAX_RUN_BYTES
    }

    /// Ends when nothing has passed for too long.
    pub(super) async fn idle(&self) {
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let silent = self.since.elapsed().saturating_sub(last);
            let Some(rest) = IDLE_LIMIT.checked_sub(silent).filter(|rest| !rest.is_zero()) else {
                return;
            };
            tokio::time::sleep(rest).await;
        }
    }
}

/// An attempt. Dropped, it has ended.
pub(super) struct Attempt {
    record: EgressRecord,
    since: Instant,
    gate: Arc<Gate>,
    meter: Arc<Meter>,
}

impl Attempt {
    /// The next attempt of a run; `None` when there were too many.
    pub(super) fn begin(gate: &Arc<Gate>, method: &str, asked: &str) -> Option<Self> {
        let record = EgressRecord {
            seq: gate.next_seq()?,
            at: (gate.clock)(),
            outcome: Outcome::Failed,
            method: clipped(method),
            host: clipped(asked),
            port: 0,
            addresses: Vec::new(),
            rule: String::new(),
            status: None,
            bytes_up: 0,
            bytes_down: 0,
            duration_ms: None,
            problem: None,
        };
        let meter = Arc::new(Meter::new(Arc::clone(gate)));
        Some(Self { record, since: Instant::now(), gate: Arc::clone(gate), meter })
    }

    /// What its line will say.
    pub(super) fn record(&mut self) -> &mut EgressRecord {
        &mut self.record
    }

    /// What counts its bytes.
    pub(super) fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    /// It is let through: from here on bytes may leave.
    pub(super) fn goes_on(&mut self, grant: &Grant) {
        self.record.outcome = Outcome::InFlight;
        self.record.rule = grant.rule();
        self.gate.note(&self.record);
    }

    /// It was let through, and something went wrong.
    pub(super) fn breaks(&mut self, problem: String) {
        self.record.outcome = Outcome::Failed;
        self.record.problem = Some(clipped(&problem));
    }

    /// The policy denies it, though it may have been let through at first.
    pub(super) fn is_denied(&mut self, denial: Denial) {
        self.record.outcome = Outcome::Denied;
        self.record.rule = denial.rule().to_owned();
        self.record.problem = Some(denial.words().to_owned());
    }

    /// What the agent got.
    pub(super) fn answers(&mut self, status: StatusCode) {
        self.record.status = Some(status.as_u16());
    }

    /// Ends it with the proxy's own answer.
    pub(super) fn refuse(mut self, refusal: &Refusal) -> Response<Body> {
        match refusal {
            Refusal::Denied(denial) => self.is_denied(*denial),
            Refusal::Unresolved(_) | Refusal::Unreachable(_) | Refusal::Silent => {
                self.breaks(refusal.words());
            }
        }
        self.answers(refusal.status());
        refusal.response(&self.record.host)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let record = &mut self.record;
        if record.outcome == Outcome::InFlight {
            record.outcome = Outcome::Passed;
        }
        record.bytes_up = self.meter.up.load(Ordering::Relaxed);
        record.bytes_down = self.meter.down.load(Ordering::Relaxed);
        record.duration_ms = Some(millis(self.since.elapsed()));
        self.gate.note(record);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
