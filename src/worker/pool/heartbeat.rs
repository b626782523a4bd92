//! Renews the leases of the runs that go on, whatever their agents do, and hears who is to stop.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::held::Held;
use crate::queue::{HEARTBEAT_EVERY, Pulse, Queue, WorkerId};
use crate::run::error_chain;
use crate::worker::attend::Clock;

/// How long a heartbeat may take. It is one small write; a disk that needs longer is given up on
/// until the next one.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(5);

/// How soon after a heartbeat the next one may follow when the queue has news, such as a run to
/// cancel. A person does not feel it, and a busy queue does not make a storm of them.
const MIN_GAP: Duration = Duration::from_millis(500);

/// The heart of a worker.
pub(super) struct Heart {
    pub(super) queue: Queue,
    pub(super) worker: WorkerId,
    pub(super) held: Held,
    pub(super) clock: Clock,
}

impl Heart {
    /// Beats until it is dropped.
    pub(super) async fn beat(self, mut changed: watch::Receiver<u64>) {
        let mut tick = interval(HEARTBEAT_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut hears = true;
        loop {
            // A queue that is gone has no more news; the beat goes on for what is left.
            tokio::select! {
                _ = tick.tick() => {}
                news = changed.changed(), if hears => hears = news.is_ok(),
            }
            let next = Instant::now() + MIN_GAP;
            self.once().await;
            sleep_until(next).await;
        }
    }

    /// Renews every lease. A queue that does not answer takes nothing away: its database belongs to
    /// this process, so nobody else can have been given the runs meanwhile.
    async fn once(&self) {
        let runs = self.held.list();
        let grants: Vec<_> = runs.iter().map(|(grant, _)| grant.clone()).collect();
        let beat = self.queue.heartbeat(&self.worker, &grants, (self.clock)());
        let pulses = match timeout(HEARTBEAT_LIMIT, beat).await {
            Ok(Ok(pulses)) => pulses,
            Ok(Err(e)) => {
                tracing::warn!(error = %error_chain(&e), "the leases were not renewed");
                return;
            }
            Err(_) => {
                tracing::warn!("the leases were not renewed: the queue did not answer in time");
                return;
            }
        };
        for ((grant, stop), pulse) in runs.iter().zip(pulses) {
            match pulse {
                Pulse::Ok => {}
                Pulse::Cancel => stop.cancel.cancel(),
                Pulse::Lost => {
                    // One that ended between the question and the answer hears it no more.
                    tracing::debug!(run.id = %grant.name.id, "the lease is lost");
                    stop.lost.cancel();
                }
            }
        }
    }
}
