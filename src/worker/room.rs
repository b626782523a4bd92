//! Sees to it that a run does not fill the disk: how much its sandbox holds, and what is left for all.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::run::{DiskExcess, DiskShare, error_chain};
use crate::sandbox::{DiskFinding, DiskReader, DiskRoom, Look, Sandbox, SandboxId};

/// How often the disk is asked what is left of it. That takes microseconds.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// How often a sandbox is measured. A walk through a hundred thousand files takes 0.2 s.
const MEASURE_EVERY: Duration = Duration::from_secs(10);

/// How much longer than a walk took it is until the next: one that takes long must not become all
/// that a processor does.
const REST_FACTOR: u32 = 20;

/// By how much sooner when it is pressing: the disk is short, or loses much.
const PRESSING_PART: u32 = 5;

/// It is pressing when the disk has lost this part of what the sandbox may hold since it was last
/// measured for sure. Then it is measured while it stands still.
const LOSS_PART: u64 = 8;

/// Files that a disk must still have room for: the records of all runs, and what other programs make
/// meanwhile.
const FLOOR_FILES: u64 = 100_000;

/// On a small disk it is this part of all its files.
const FLOOR_FILES_PART: u64 = 20;

/// A sandbox that holds less is not ended for the disk: that would not help it.
const WORTH: DiskShare = DiskShare { bytes: 64 << 20, n_files: 10_000 };

/// How long nobody else is ended for the disk after somebody was: removing what he held takes time.
const RELIEF: Duration = Duration::from_secs(60);

/// The disk that all sandboxes of this process share.
#[derive(Debug, Clone)]
pub struct SharedDisk {
    floor_bytes: u64,
    ceiling: DiskShare,
    held: Arc<Mutex<Held>>,
    /// One walk at a time: each takes a descriptor for each level that it goes down.
    walks: Arc<Semaphore>,
}

/// What is known of the sandboxes.
#[derive(Debug, Default)]
struct Held {
    shares: BTreeMap<SandboxId, DiskShare>,
    /// When one was ended last because the disk was short.
    relieved: Option<Instant>,
}

/// What a disk has too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Short {
    Bytes(u64),
    Files(u64),
}

impl SharedDisk {
    /// A disk that nobody bounds.
    #[must_use]
    pub fn unbounded() -> Self {
        Self::new(0, DiskShare::ALL)
    }

    /// A disk on which `floor_bytes` have to be left: below that the sandbox that holds the most is
    /// ended. No sandbox may hold more than `ceiling`.
    #[must_use]
    pub fn new(floor_bytes: u64, ceiling: DiskShare) -> Self {
        let walks = Arc::new(Semaphore::new(1));
        Self { floor_bytes, ceiling, held: Arc::default(), walks }
    }

    /// The most that any sandbox may hold.
    #[must_use]
    pub fn ceiling(&self) -> DiskShare {
        self.ceiling
    }

    fn short(&self, room: DiskRoom) -> Option<Short> {
        if room.free_bytes < self.floor_bytes {
            return Some(Short::Bytes(room.free_bytes));
        }
        let files = room.files?;
        let is_short = files.free < FLOOR_FILES.min(files.all / FLOOR_FILES_PART);
        is_short.then_some(Short::Files(files.free))
    }

    /// What is wrong with a sandbox where the disk is short: that it holds the most. Nobody else is
    /// told so soon after.
    fn blame(&self, id: &SandboxId, short: Short, now: Instant) -> Option<DiskExcess> {
        let mut held = self.held();
        let weight = |share: &DiskShare| match short {
            Short::Bytes(_) => share.bytes,
            Short::Files(_) => share.n_files,
        };
        let (greatest, share) =
            held.shares.iter().max_by_key(|(id, share)| (weight(share), *id))?;
        let share = *share;
        let helps = greatest == id && weight(&share) >= weight(&WORTH);
        if !helps || held.relieved.is_some_and(|at| now.duration_since(at) < RELIEF) {
            return None;
        }
        held.relieved = Some(now);
        Some(match short {
            Short::Bytes(free) => DiskExcess::SharedBytes { free, held: share.bytes },
            Short::Files(free) => DiskExcess::SharedFiles { free, held: share.n_files },
        })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches what one sandbox holds.
pub(super) struct RoomWatch {
    id: SandboxId,
    reader: DiskReader,
    limit: DiskShare,
    disk: SharedDisk,
    ticks: Interval,
    last: Option<Measured>,
    /// What was left of the disk before the sandbox was first measured, or last while it stood still.
    sure: Option<DiskRoom>,
    measuring: JoinSet<(io::Result<DiskFinding>, Measured)>,
}

/// How the sandbox was measured last.
#[derive(Debug, Clone, Copy)]
struct Measured {
    at: Instant,
    took: Duration,
}

impl Measured {
    /// Whether the sandbox has to be measured again.
    fn is_past(&self, now: Instant, is_pressing: bool) -> bool {
        let since = now.duration_since(self.at);
        let rest = self.took * REST_FACTOR;
        if is_pressing { since >= rest / PRESSING_PART } else { since >= rest.max(MEASURE_EVERY) }
    }
}

impl RoomWatch {
    /// Begins to watch a sandbox, which may hold so much.
    pub(super) fn new(sandbox: &Sandbox, limit: DiskShare, disk: &SharedDisk) -> Self {
        let mut ticks = interval(ASK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            id: sandbox.id().clone(),
            reader: sandbox.disk_reader(),
            limit,
            disk: disk.clone(),
            ticks,
            last: None,
            sure: None,
            measuring: JoinSet::new(),
        }
    }

    /// Lasts until the sandbox takes too much of the disk. A wait that is dropped loses nothing.
    pub(super) async fn excess(&mut self) -> DiskExcess {
        loop {
            if self.measuring.is_empty() {
                self.ticks.tick().await;
                self.measure_if_due();
            } else if let Some(measured) = self.measuring.join_next().await
                && let Some(excess) = self.judge(measured)
            {
                return excess;
            }
        }
    }

    fn measure_if_due(&mut self) {
        let room = match self.reader.room() {
            Ok(room) => room,
            Err(e) => return self.cannot_see(&e),
        };
        let is_first = self.last.is_none();
        let is_pressing = self.disk.short(room).is_some() || self.has_lost_much(room);
        let now = Instant::now();
        if self.last.is_some_and(|last| !last.is_past(now, is_pressing)) {
            return;
        }
        // Somebody takes much, and may hide it by moving it about.
        let look = if is_pressing && !is_first { Look::Still } else { Look::Passing };
        if is_first || look == Look::Still {
            self.sure = Some(room);
        }
        let (reader, limit) = (self.reader.clone(), self.limit);
        let walks = Arc::clone(&self.disk.walks);
        self.measuring.spawn(async move {
            // It is never closed.
            let _turn = walks.acquire().await;
            if is_first {
                reader.wake().await;
            }
            let began = Instant::now();
            let found = reader.read(look, limit).await;
            (found, Measured { at: Instant::now(), took: began.elapsed() })
        });
    }

    /// Whether the disk has lost much since the sandbox was last measured for sure.
    fn has_lost_much(&self, room: DiskRoom) -> bool {
        let Some(sure) = self.sure else { return false };
        let files = |room: DiskRoom| room.files.map_or(0, |files| files.free);
        let bytes = sure.free_bytes.saturating_sub(room.free_bytes);
        bytes >= self.limit.bytes / LOSS_PART
            || files(sure).saturating_sub(files(room)) >= self.limit.n_files / LOSS_PART
    }

    fn judge(
        &mut self,
        measured: Result<(io::Result<DiskFinding>, Measured), JoinError>,
    ) -> Option<DiskExcess> {
        let found = match measured {
            Ok((found, measured)) => {
                self.last = Some(measured);
                found
            }
            Err(e) => {
                tracing::error!(error = %e, "measuring a sandbox panicked");
                return None;
            }
        };
        let share = match found {
            Ok(DiskFinding::Held(share)) => share,
            Ok(DiskFinding::TooDeep(limit)) => return Some(DiskExcess::Depth { limit }),
            Ok(DiskFinding::TooManyOpen(limit)) => return Some(DiskExcess::Open { limit }),
            Err(e) => {
                self.cannot_see(&e);
                return None;
            }
        };
        self.disk.held().shares.insert(self.id.clone(), share);
        share.beyond(self.limit).or_else(|| {
            let short = self.disk.short(self.reader.room().ok()?)?;
            self.disk.blame(&self.id, short, Instant::now())
        })
    }

    fn cannot_see(&self, error: &io::Error) {
        let id = &self.id;
        tracing::debug!(sandbox.id = %id, error = %error_chain(error), "what a sandbox holds is not seen");
    }
}

impl Drop for RoomWatch {
    fn drop(&mut self) {
        self.disk.held().shares.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::FileRoom;

    const MB: u64 = 1 << 20;

    fn id(name: &str) -> SandboxId {
        SandboxId::new(name).unwrap()
    }

    fn disk(shares: &[(&str, u64, u64)]) -> SharedDisk {
        let disk = SharedDisk::new(1_000 * MB, DiskShare::ALL);
        let shares = shares.iter().map(|&(name, megabytes, n_files)| {
            (id(name), DiskShare { bytes: megabytes * MB, n_files })
        });
        disk.held().shares.extend(shares);
        disk
    }

    #[test]
    fn a_disk_is_short_of_bytes_or_of_files() {
        let disk = disk(&[]);
        let short = |free_bytes, files: Option<(u64, u64)>| {
            let files = files.map(|(free, all)| FileRoom { all, free });
            disk.short(DiskRoom { free_bytes, files })
        };
        assert_eq!(short(1_000 * MB, None), None);
        assert_eq!(short(999 * MB, Some((9, 10))), Some(Short::Bytes(999 * MB)));
        assert_eq!(short(1_000 * MB, Some((100_000, 10_000_000))), None);
        assert_eq!(short(1_000 * MB, Some((99_999, 10_000_000))), Some(Short::Files(99_999)));
        // A small disk is not short from its beginning.
        assert_eq!(short(1_000 * MB, Some((50_000, 60_000))), None);
        assert_eq!(short(1_000 * MB, Some((2_999, 60_000))), Some(Short::Files(2_999)));
    }

    #[test]
    fn the_greatest_goes_and_then_nobody_for_a_while() {
        let now = Instant::now();
        let disk = disk(&[("a", 500, 90_000), ("b", 900, 20_000), ("c", 70, 30_000)]);
        let short = Short::Bytes(5);
        assert_eq!(disk.blame(&id("a"), short, now), None);
        assert_eq!(disk.blame(&id("gone"), short, now), None);
        let expected = DiskExcess::SharedBytes { free: 5, held: 900 * MB };
        assert_eq!(disk.blame(&id("b"), short, now), Some(expected));
        disk.held().shares.remove(&id("b"));
        assert_eq!(disk.blame(&id("a"), short, now + RELIEF / 2), None);
        let expected = DiskExcess::SharedFiles { free: 7, held: 90_000 };
        assert_eq!(disk.blame(&id("a"), Short::Files(7), now + RELIEF), Some(expected));
    }

    #[test]
    fn nobody_goes_whose_end_would_not_help_and_of_equals_one() {
        let now = Instant::now();
        let small = disk(&[("a", 63, 9_999), ("b", 1, 1)]);
        assert_eq!(small.blame(&id("a"), Short::Bytes(5), now), None);
        assert_eq!(small.blame(&id("a"), Short::Files(5), now), None);
        let equal = disk(&[("a", 100, 1), ("b", 100, 1)]);
        let blamed = [id("a"), id("b")].map(|id| equal.blame(&id, Short::Bytes(5), now).is_some());
        assert_eq!(blamed, [false, true]);
    }

    #[test]
    fn a_walk_that_takes_long_is_made_seldom() {
        let at = Instant::now();
        let past = |took_ms: u64, after_secs: u64, is_pressing: bool| {
            let measured = Measured { at, took: Duration::from_millis(took_ms) };
            measured.is_past(at + Duration::from_secs(after_secs), is_pressing)
        };
        assert!(!past(1, 9, false) && past(1, 10, false) && past(1, 2, true));
        assert!(!past(2_000, 39, false) && past(2_000, 40, false));
        assert!(!past(2_000, 7, true) && past(2_000, 8, true));
    }
}
