//! What lives as long as the daemon, and how it is stopped: drain, then force.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long the parts may take once they were forced. They destroy sandboxes and close records.
const FORCE_LIMIT: Duration = Duration::from_secs(60);

/// How long the servers may take to end after the work has ended; they have their own, shorter limit.
const SURFACE_LIMIT: Duration = Duration::from_secs(30);

/// The two ways to stop, for each part to listen to.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// No new work from now on; what is begun goes on.
    pub drain: CancellationToken,
    /// No work any more.
    pub force: CancellationToken,
}

/// A wish to stop: the first one drains, the second forces.
pub type Signals = mpsc::Receiver<()>;

/// How the daemon came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to stop, and all work ended in time.
    Drained,
    /// It was asked to stop, and what was left was stopped.
    Forced,
    /// A part ended that should not have; the others were stopped.
    Broke(&'static str),
}

/// The daemon's parts. One that ends early stops the daemon.
#[derive(Debug, Default)]
pub struct Parts {
    /// What works: workers, the scheduler, the sender of webhooks.
    work: JoinSet<&'static str>,
    /// What answers. It goes on while the work drains, so that clients see it end.
    surface: JoinSet<&'static str>,
    stop: Stop,
    surface_stop: CancellationToken,
}

impl Parts {
    /// Adds a part that works. It ends some time after `drain`, and soon after `force`.
    pub fn work<F>(&mut self, name: &'static str, part: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.work.spawn(named(name, part(self.stop.clone())));
    }

    /// Adds a part that answers. It ends soon after its token is cancelled, which is when no work is
    /// left.
    pub fn surface<F>(&mut self, name: &'static str, part: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.surface.spawn(named(name, part(self.surface_stop.clone())));
    }

    /// Runs until it is told to stop or a part ends, then ends everything in order. `draining` is
    /// told when no new work is taken any more.
    pub async fn run(
        mut self,
        mut signals: Signals,
        drain_limit: Duration,
        draining: impl FnOnce(),
    ) -> Ending {
        let broke = tokio::select! {
            () = next(&mut signals) => None,
            Some(ended) = self.work.join_next() => Some(ended.unwrap_or("a part")),
            Some(ended) = self.surface.join_next() => Some(ended.unwrap_or("a server")),
        };
        match broke {
            None => tracing::info!("stopping: no new work is taken"),
            Some(part) => tracing::error!(part, "a part ended early, stopping"),
        }
        draining();
        self.stop.drain.cancel();
        let was_forced = !ends_in_time(&mut self.work, &mut signals, drain_limit).await;
        if was_forced {
            tracing::warn!(n_parts = self.work.len(), "the drain is over, stopping what is left");
            self.stop.force.cancel();
            end(&mut self.work, FORCE_LIMIT).await;
        }
        self.surface_stop.cancel();
        end(&mut self.surface, SURFACE_LIMIT).await;
        match (broke, was_forced) {
            (Some(part), _) => Ending::Broke(part),
            (None, true) => Ending::Forced,
            (None, false) => Ending::Drained,
        }
    }
}

/// A part with its name, even after a panic.
async fn named(name: &'static str, part: impl Future<Output = ()>) -> &'static str {
    if AssertUnwindSafe(part).catch_unwind().await.is_err() {
        tracing::error!(part = name, "a part panicked");
    }
    name
}

/// The next wish to stop. Nobody to ask for it means never.
async fn next(signals: &mut Signals) {
    if signals.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Whether all parts end before the limit and before the next wish to stop.
async fn ends_in_time(
    parts: &mut JoinSet<&'static str>,
    signals: &mut Signals,
    limit: Duration,
) -> bool {
    let all = async { while parts.join_next().await.is_some() {} };
    tokio::select! {
        () = all => true,
        () = tokio::time::sleep(limit) => false,
        () = next(signals) => false,
    }
}

async fn end(parts: &mut JoinSet<&'static str>, limit: Duration) {
    let all = async { while parts.join_next().await.is_some() {} };
    if tokio::time::timeout(limit, all).await.is_err() {
        tracing::error!(n_parts = parts.len(), "parts did not end in time and were dropped");
        parts.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Far more than any of these takes; the clock is paused.
    const DRAIN: Duration = Duration::from_secs(20);

    fn signals() -> (mpsc::Sender<()>, Signals) {
        mpsc::channel(2)
    }

    /// A part that ends `after` so long, and at once when forced.
    async fn worker(stop: Stop, after: Duration) {
        stop.drain.cancelled().await;
        tokio::select! {
            () = tokio::time::sleep(after) => {}
            () = stop.force.cancelled() => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_servers_go_on_until_the_work_has_ended() {
        let (asked, signals) = signals();
        let mut parts = Parts::default();
        let (told, mut heard) = mpsc::channel(4);
        let work_told = told.clone();
        parts.work("worker", |stop| async move {
            worker(stop, Duration::from_secs(5)).await;
            let _ = work_told.send("work").await;
        });
        parts.surface("server", |stop| async move {
            stop.cancelled().await;
            let _ = told.send("server").await;
        });
        asked.send(()).await.unwrap();
        let mut told_draining = false;
        let ending = parts.run(signals, DRAIN, || told_draining = true).await;
        assert_eq!((ending, told_draining), (Ending::Drained, true));
        assert_eq!((heard.recv().await, heard.recv().await), (Some("work"), Some("server")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_wish_and_a_long_drain_force() {
        for n_wishes in [1, 2] {
            let (asked, signals) = signals();
            let mut parts = Parts::default();
            parts.work("worker", |stop| worker(stop, DRAIN * 100));
            for _ in 0..n_wishes {
                asked.send(()).await.unwrap();
            }
            let began = tokio::time::Instant::now();
            assert_eq!(parts.run(signals, DRAIN, || ()).await, Ending::Forced);
            let expected = if n_wishes == 2 { Duration::ZERO } else { DRAIN };
            assert_eq!(began.elapsed().as_secs(), expected.as_secs(), "{n_wishes} wishes");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_ends_early_or_panics_stops_the_daemon() {
        let (_asked, signals) = signals();
        let mut parts = Parts::default();
        parts.work("worker", |stop| worker(stop, Duration::ZERO));
        parts.work("scheduler", |_| async { panic!("made up") });
        assert_eq!(parts.run(signals, DRAIN, || ()).await, Ending::Broke("scheduler"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_does_not_listen_is_dropped() {
        let (asked, signals) = signals();
        let mut parts = Parts::default();
        parts.work("deaf", |_| std::future::pending());
        asked.send(()).await.unwrap();
        let began = tokio::time::Instant::now();
        assert_eq!(parts.run(signals, DRAIN, || ()).await, Ending::Forced);
        assert_eq!(began.elapsed().as_secs(), (DRAIN + FORCE_LIMIT).as_secs());
    }
}
