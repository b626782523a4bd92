//! The loop that takes runs out of the queue, and what holds it back.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use uuid::Uuid;

use super::admission::Floors;
use super::heartbeat::Heart;
use super::held::Held;
use super::job::{fail_after_panic, work};
use crate::database::Vault;
use crate::queue::{Grant, LeaseLimits, Leased, Queue, QueueError, Worker, WorkerId};
use crate::run::error_chain;
use crate::sandbox::SandboxId;
use crate::secret::Keyring;
use crate::webhook::Outbox;
use crate::worker::attend::Stop;
use crate::worker::execute::sandbox_id;
use crate::worker::model;
use crate::worker::parts::Parts;

/// How often the queue is asked when nothing was heard of it: for what comes due by the clock, and
/// for news that were missed.
const POLL: Duration = Duration::from_secs(2);

/// How often it is looked for sandboxes that no run has. They are rare (an engine was away when one was
/// to be removed), and each holds memory until then.
pub const REAP_EVERY: Duration = Duration::from_secs(5 * 60);

/// What the workers are made of.
#[derive(Debug, Clone)]
pub struct PoolParts {
    /// The parts of every run. Its keys are not used: a run has those of its job.
    pub parts: Parts,
    /// Where runs come from.
    pub queue: Queue,
    /// Opens the secrets of a job.
    pub vault: Arc<Vault>,
    /// Where the end of a run is told; `None` where nobody listens.
    pub outbox: Option<Outbox>,
}

/// How the workers work.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// The name of the worker, which stays when its process is restarted.
    pub worker: WorkerId,
    /// How many runs at a time; at least 1.
    pub slots: u32,
    /// How many of one collection, as it is now.
    pub limits: watch::Receiver<LeaseLimits>,
    /// Keys of the operator that every run may use; `None` where a run has only its collection's.
    pub shared_keys: Option<Keyring>,
    /// What must be free before another run is begun.
    pub floors: Floors,
    /// How often it is looked for sandboxes that no run has; usually [`REAP_EVERY`].
    pub reap_every: Duration,
}

/// How the workers are stopped. See the room's words for what each does.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Begins no new run, and waits for those that go on.
    pub drain: CancellationToken,
    /// Lets go of the runs that go on, without ending them.
    pub leave: CancellationToken,
    /// Ends the runs that go on and keeps their files.
    pub end: CancellationToken,
    /// Ends the runs that go on at once.
    pub force: CancellationToken,
}

impl Shutdown {
    /// Whether any of it is wanted.
    fn has_begun(&self) -> bool {
        [&self.drain, &self.leave, &self.end, &self.force].iter().any(|stop| stop.is_cancelled())
    }

    /// Waits until any of it is wanted: each begins no new run.
    async fn begun(&self) {
        tokio::select! {
            () = self.drain.cancelled() => {}
            () = self.leave.cancelled() => {}
            () = self.end.cancelled() => {}
            () = self.force.cancelled() => {}
        }
    }
}

/// How the workers are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkersStatus {
    /// How many runs they bear at a time.
    pub slots: u32,
    /// How many they work on.
    pub busy: usize,
    /// Why no new run is begun although there is a slot, as a sentence.
    pub waiting: Option<String>,
    /// Whether no new run is begun because they are being stopped.
    pub is_draining: bool,
}

/// The workers of this process.
#[derive(Debug, Clone)]
pub struct Workers {
    pub(super) shared: Arc<Shared>,
}

/// What every run of the pool shares.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) parts: Parts,
    pub(super) queue: Queue,
    pub(super) vault: Arc<Vault>,
    pub(super) outbox: Option<Outbox>,
    pub(super) shared_keys: Option<Keyring>,
    worker: WorkerId,
    slots: u32,
    limits: watch::Receiver<LeaseLimits>,
    pub(super) floors: Floors,
    reap_every: Duration,
    held: Held,
    /// The grants that this process had from an earlier one.
    adopted: Mutex<HashSet<Grant>>,
    waiting: watch::Sender<Option<String>>,
    is_draining: watch::Sender<bool>,
}

impl Shared {
    /// Whether an earlier process held this run.
    pub(super) fn was_held(&self, grant: &Grant) -> bool {
        self.adopted.lock().unwrap_or_else(PoisonError::into_inner).contains(grant)
    }
}

impl Workers {
    /// Workers that do not work yet.
    #[must_use]
    pub fn new(pool: PoolParts, settings: PoolSettings) -> Self {
        let PoolParts { parts, queue, vault, outbox } = pool;
        let PoolSettings { worker, slots, limits, shared_keys, floors, reap_every } = settings;
        Self {
            shared: Arc::new(Shared {
                parts,
                queue,
                vault,
                outbox,
                shared_keys,
                worker,
                slots: slots.max(1),
                limits,
                floors,
                reap_every,
                held: Held::default(),
                adopted: Mutex::default(),
                waiting: watch::Sender::new(None),
                is_draining: watch::Sender::new(false),
            }),
        }
    }

    /// How they are.
    #[must_use]
    pub fn status(&self) -> WorkersStatus {
        let shared = &self.shared;
        WorkersStatus {
            slots: shared.slots,
            busy: shared.held.len(),
            waiting: shared.waiting.borrow().clone(),
            is_draining: *shared.is_draining.borrow(),
        }
    }

    /// Works until it is stopped and its last run has ended or was let go. First it takes over what
    /// an earlier process of the same worker held, and removes the sandboxes that no run names.
    ///
    /// # Errors
    /// When the queue cannot be asked for what an earlier process held. Nothing was begun then.
    pub async fn run(&self, shutdown: &Shutdown) -> Result<(), QueueError> {
        let shared = &self.shared;
        let adopted = self.take_over().await?;
        let mut heart = JoinSet::new();
        heart.spawn(
            Heart {
                queue: shared.queue.clone(),
                worker: shared.worker.clone(),
                held: shared.held.clone(),
                clock: shared.parts.clock,
            }
            .beat(shared.queue.changed()),
        );
        heart.spawn(reap_again(Arc::clone(shared), shutdown.clone()));
        let runs = TaskTracker::new();
        let slots = Arc::new(Semaphore::new(shared.slots as usize));
        for leased in adopted {
            // With fewer slots than before, what goes on goes on.
            self.begin(&runs, leased, Arc::clone(&slots).try_acquire_owned().ok());
        }
        self.lease_until(shutdown, &slots, &runs).await;
        shared.is_draining.send_replace(true);
        runs.close();
        self.wind_up(shutdown, &runs).await;
        // The last run has ended: nothing is left to renew.
        heart.shutdown().await;
        Ok(())
    }

    /// Takes over what an earlier process held.
    async fn take_over(&self) -> Result<Vec<Leased>, QueueError> {
        let shared = &self.shared;
        let now = (shared.parts.clock)();
        let introduction = Worker {
            id: shared.worker.clone(),
            session: Uuid::new_v4(),
            slots: shared.slots,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        shared.queue.register(&introduction, now).await?;
        let adopted = shared.queue.adopt(&shared.worker, now).await?;
        let grants = adopted.iter().map(|leased| leased.grant.clone());
        shared.adopted.lock().unwrap_or_else(PoisonError::into_inner).extend(grants);
        if !adopted.is_empty() {
            tracing::info!(n_runs = adopted.len(), "taking over the runs of an earlier process");
        }
        let named: HashSet<SandboxId> = adopted.iter().filter_map(sandbox_of).collect();
        reap(shared, |id| named.contains(id)).await;
        Ok(adopted)
    }

    /// Leases runs while there is room for them.
    async fn lease_until(&self, shutdown: &Shutdown, slots: &Arc<Semaphore>, runs: &TaskTracker) {
        let mut changed = self.shared.queue.changed();
        loop {
            let permit = tokio::select! {
                biased;
                () = shutdown.begun() => return,
                permit = Arc::clone(slots).acquire_owned() => permit,
            };
            // The semaphore is never closed.
            let Ok(permit) = permit else { return };
            let Some(leased) = self.next(&mut changed, shutdown).await else { return };
            self.begin(runs, leased, Some(permit));
        }
    }

    /// Waits for the next run that this machine bears; `None` where no more are wanted. A lease that
    /// was asked for is always heard, so that no run is held by nobody.
    async fn next(
        &self,
        changed: &mut watch::Receiver<u64>,
        shutdown: &Shutdown,
    ) -> Option<Leased> {
        let shared = &self.shared;
        let mut request = Uuid::new_v4();
        loop {
            changed.borrow_and_update();
            let why_not = shared.floors.why_not();
            let may_begin = why_not.is_none();
            shared.waiting.send_if_modified(|waiting| {
                let is_new = *waiting != why_not;
                *waiting = why_not;
                is_new
            });
            if may_begin {
                let now = (shared.parts.clock)();
                let limits = shared.limits.borrow().clone();
                match shared.queue.lease(&shared.worker, request, &limits, now).await {
                    Ok(Some(leased)) => return Some(leased),
                    Ok(None) => request = Uuid::new_v4(),
                    Err(e) => {
                        tracing::warn!(error = %error_chain(&e), "the queue was not asked for a run");
                    }
                }
            }
            tokio::select! {
                biased;
                () = shutdown.begun() => return None,
                _ = changed.changed() => {}
                () = sleep(POLL) => {}
            }
        }
    }

    /// Begins to work on a run.
    fn begin(&self, runs: &TaskTracker, leased: Leased, permit: Option<OwnedSemaphorePermit>) {
        let shared = Arc::clone(&self.shared);
        let stop = Stop::default();
        let grant = leased.grant.clone();
        let holding = shared.held.add(&leased, stop.clone());
        let span = tracing::info_span!("run", run.id = %grant.name.id);
        runs.spawn(
            async move {
                let worked = work(&shared, leased.clone(), &stop);
                // A panic beside the sandbox is caught further in.
                if AssertUnwindSafe(worked).catch_unwind().await.is_err() {
                    tracing::error!("the work on a run panicked, and fails it");
                    let failed = fail_after_panic(&shared, &leased, &stop);
                    if AssertUnwindSafe(failed).catch_unwind().await.is_err() {
                        // Its lease is not renewed any more, so that it is given up in time.
                        tracing::error!("so did failing it");
                    }
                }
                drop((holding, permit));
            }
            .instrument(span),
        );
    }

    /// Waits for the last run, and passes on how they are to be stopped.
    async fn wind_up(&self, shutdown: &Shutdown, runs: &TaskTracker) {
        let (mut left, mut ended, mut forced) = (false, false, false);
        loop {
            tokio::select! {
                biased;
                () = runs.wait() => return,
                () = shutdown.force.cancelled(), if !forced => forced = true,
                () = shutdown.end.cancelled(), if !ended => ended = true,
                () = shutdown.leave.cancelled(), if !left => left = true,
            }
            for (_, stop) in self.shared.held.list() {
                if forced {
                    stop.force.cancel();
                }
                if ended || forced {
                    stop.cancel.cancel();
                } else if left {
                    stop.leave.cancel();
                }
            }
        }
    }
}

/// Removes sandboxes that nobody wants and nobody has claimed.
async fn reap(shared: &Shared, is_wanted: impl Fn(&SandboxId) -> bool) {
    let claims = &shared.parts.claims;
    let is_kept = |id: &SandboxId| is_wanted(id) || claims.is_held(id);
    match shared.parts.engine.reap(is_kept).await {
        Ok(reaped) if reaped.is_empty() => {}
        Ok(reaped) => {
            tracing::info!(n_sandboxes = reaped.len(), "reaped sandboxes that no run names");
        }
        Err(e) => {
            tracing::warn!(error = %error_chain(&e), "could not look for old sandboxes");
        }
    }
    if let Err(e) = model::sweep(&shared.parts.sockets, is_kept).await {
        tracing::warn!(error = %e, "the sockets of old runs were not removed");
    }
}

/// Reaps from time to time, until the workers are being stopped: a run that is let go then has nobody
/// who names its sandbox, and the next process wants it.
async fn reap_again(shared: Arc<Shared>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            biased;
            () = shutdown.begun() => return,
            () = sleep(shared.reap_every) => {}
        }
        reap(&shared, |id| shared.held.names(id) || shutdown.has_begun()).await;
    }
}

/// The sandbox of a run, as far as it can have one.
pub(super) fn sandbox_of(leased: &Leased) -> Option<SandboxId> {
    let session = Uuid::parse_str(leased.session_id.as_deref()?).ok()?;
    sandbox_id(&leased.grant.name, session, Some(leased.grant.attempt)).ok()
}
