//! Workers that are killed between and inside their calls, that hang and come back, and the control:
//! the same with the fence taken out of the statements.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use sqlx::Row as _;

use super::*;

const N_RUNS: u32 = 80;
const N_WORKERS: u32 = 3;
/// Lines that each agent says.
const N_LINES: u64 = 4;
/// Steps after which it stops being chaos and must come to an end.
const N_CHAOTIC_STEPS: u32 = 1800;
const N_STEPS: u32 = 6000;

/// What every write leaves: the fence that was written with, beside the one that was right.
const TRACE: &str = "
    CREATE TABLE trace (id TEXT, what TEXT, wrote TEXT, held TEXT);
    CREATE TRIGGER trace_ending AFTER UPDATE OF ending ON jobs
        WHEN NEW.ending IS NOT NULL AND NEW.status = 'finishing'
        BEGIN INSERT INTO trace VALUES (NEW.id, 'wrote', NEW.ending, NEW.fence); END;
    CREATE TRIGGER trace_finish AFTER UPDATE OF status ON jobs WHEN NEW.status = 'completed'
        BEGIN INSERT INTO trace VALUES (NEW.id, 'completed', NEW.reason, NEW.fence); END;
    CREATE TRIGGER trace_start AFTER UPDATE OF status ON jobs
        WHEN NEW.status = 'running' AND OLD.status <> 'running'
        BEGIN INSERT INTO trace VALUES (NEW.id, 'started', NEW.fence, NEW.fence); END;";

/// A small generator of numbers, so that a seed tells a whole story.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// One process of a worker, as far as it knows.
struct Process {
    worker: WorkerId,
    request: Uuid,
    adopted: bool,
    work: Vec<Work>,
}

struct Work {
    grant: Grant,
    started: bool,
    next: u64,
    cancel: bool,
}

impl From<Leased> for Work {
    fn from(leased: Leased) -> Self {
        let (started, next) = match leased.stage {
            Stage::Fresh => (false, 0),
            Stage::Started { next_off, .. } | Stage::Finishing { next_off, .. } => (true, next_off),
        };
        Self { grant: leased.grant, started, next, cancel: leased.cancel_requested }
    }
}

/// What one seed did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    kills: u32,
    hangs: u32,
    adopted: u32,
    refused: u32,
    stale_accepted: usize,
    started_twice: usize,
    completed_twice: usize,
    not_ended: u64,
}

/// Lets a call run for a while and then kills its caller: whether it was done, nobody knows.
async fn killed_inside<T>(call: impl Future<Output = T>, polls: u64) {
    let mut call = pin!(call);
    for _ in 0..polls {
        let done = poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_ready())).await;
        if done {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// One call of a process. It does what the protocol says, with what it believes.
async fn act(queue: &Queue, process: &mut Process, tally: &mut Tally, roll: u64, now: i64) {
    if !process.adopted {
        let adopted = queue.adopt(&process.worker, at(now)).await.unwrap();
        tally.adopted += u32::try_from(adopted.len()).unwrap();
        process.work = adopted.into_iter().map(Work::from).collect();
        process.adopted = true;
        return;
    }
    if process.work.len() < 3 && roll.is_multiple_of(3) {
        let leased = queue.lease(&process.worker, process.request, &limits(50), at(now)).await;
        process.request = Uuid::from_u128(u128::from(roll) << 64 | u128::from(now.unsigned_abs()));
        process.work.extend(leased.unwrap().map(Work::from));
        return;
    }
    if roll.is_multiple_of(7) {
        let grants: Vec<Grant> = process.work.iter().map(|work| work.grant.clone()).collect();
        let pulses = queue.heartbeat(&process.worker, &grants, at(now)).await.unwrap();
        let mut pulses = pulses.into_iter();
        process.work.retain_mut(|work| match pulses.next() {
            Some(Pulse::Cancel) => {
                work.cancel = true;
                true
            }
            Some(Pulse::Ok) => true,
            Some(Pulse::Lost) | None => false,
        });
        return;
    }
    let n = process.work.len();
    if n == 0 {
        return;
    }
    let index = usize::try_from(roll).unwrap_or(0) % n;
    match write(queue, &mut process.work[index], now).await {
        Ok(false) => {}
        Ok(true) => {
            process.work.remove(index);
        }
        Err(QueueError::Lost | QueueError::Started) => {
            tally.refused += 1;
            process.work.remove(index);
        }
        Err(QueueError::Offset { recorded }) => process.work[index].next = recorded,
        Err(error) => panic!("{error:?}"),
    }
}

/// The next write about one run; tells whether it has ended.
async fn write(queue: &Queue, work: &mut Work, now: i64) -> Result<bool, QueueError> {
    let fence = work.grant.fence.to_string();
    if !work.started {
        queue.started(&work.grant, at(now)).await?;
        work.started = true;
    } else if work.next < N_LINES && !work.cancel {
        queue.advance(&work.grant, work.next, work.next + 1, at(now)).await?;
        work.next += 1;
    } else if work.next.is_multiple_of(2) {
        // A marked write; then one byte more, so that the next step is the end.
        queue.finishing(&work.grant, &fence, at(now)).await?;
        queue.advance(&work.grant, work.next, work.next + 1, at(now)).await?;
        work.next += 1;
    } else {
        let ended = if work.cancel { Ended::Cancelled } else { Ended::Completed };
        let finish = Finish { reason: Some(fence), ..finish(ended, work.next) };
        queue.finish(&work.grant, &finish, at(now)).await?;
        return Ok(true);
    }
    Ok(false)
}

async fn chaos(seed: u64, dialect: Dialect) -> Tally {
    let scene = Scene::speaking(dialect).await;
    scene.say(TRACE).await;
    let queue = &scene.queue;
    for n in 0..N_RUNS {
        queue.submit(job(name("acme", n)), at(0)).await.unwrap();
    }
    let mut dice = Dice(seed);
    let mut tally = Tally::default();
    let mut processes: Vec<Process> = (0..N_WORKERS).map(|n| start(n, &mut dice)).collect();
    let mut hanging: Vec<Process> = Vec::new();
    let mut now = 1;
    for step in 0..N_STEPS {
        let chaotic = step < N_CHAOTIC_STEPS;
        now += i64::try_from(dice.below(2000)).unwrap();
        let roll = dice.below(u64::MAX);
        let n = usize::try_from(dice.below(u64::from(N_WORKERS))).unwrap();
        let worker = u32::try_from(n).unwrap();
        match dice.below(60) {
            0 if chaotic => {
                tally.kills += 1;
                let call = act(queue, &mut processes[n], &mut tally, roll, now);
                killed_inside(call, roll % 6).await;
                processes[n] = start(worker, &mut dice);
            }
            1 if chaotic => {
                // It hangs, is taken for dead, and a new process takes its place.
                tally.hangs += 1;
                let hung = std::mem::replace(&mut processes[n], start(worker, &mut dice));
                hanging.push(hung);
            }
            2..12 if !hanging.is_empty() => {
                let hung = usize::try_from(roll).unwrap_or(0) % hanging.len();
                act(queue, &mut hanging[hung], &mut tally, roll, now).await;
                if hanging[hung].work.is_empty() {
                    hanging.remove(hung);
                }
            }
            12 => {
                queue.expire(at(now), Duration::from_secs(600)).await.unwrap();
            }
            13 => {
                let run = u32::try_from(dice.below(u64::from(N_RUNS) * 4)).unwrap();
                if run < N_RUNS && run.is_multiple_of(5) {
                    queue.cancel(&name("acme", run), at(now)).await.unwrap();
                }
            }
            _ => act(queue, &mut processes[n], &mut tally, roll, now).await,
        }
        if !chaotic && step % 100 == 0 && n_open(queue, now).await == 0 {
            break;
        }
    }
    tally.not_ended = n_open(queue, now).await;
    count(queue, &mut tally).await;
    tally
}

fn start(n: u32, dice: &mut Dice) -> Process {
    let request = Uuid::from_u128(u128::from(dice.below(u64::MAX)));
    Process { worker: worker(n), request, adopted: false, work: Vec::new() }
}

async fn n_open(queue: &Queue, now: i64) -> u64 {
    let by_status = queue.depth(at(now)).await.unwrap().by_status;
    by_status.iter().filter(|(status, _)| !status.is_terminal()).map(|(_, n)| n).sum()
}

async fn count(queue: &Queue, tally: &mut Tally) {
    let rows = sqlx::query("SELECT id, what, wrote, held FROM trace")
        .fetch_all(queue.database.readers())
        .await
        .unwrap();
    let mut times: BTreeMap<(String, String), usize> = BTreeMap::new();
    for row in &rows {
        let (wrote, held): (String, String) = (row.get("wrote"), row.get("held"));
        if wrote != held {
            tally.stale_accepted += 1;
        }
        *times.entry((row.get("what"), row.get("id"))).or_default() += 1;
    }
    let twice = |what: &str| times.iter().filter(|((w, _), n)| w == what && **n > 1).count();
    tally.started_twice = twice("started");
    tally.completed_twice = twice("completed");
}

#[tokio::test]
async fn no_stale_write_is_accepted_whatever_is_killed_and_without_the_fence_many_are() {
    let mut stale_without_a_fence = 0;
    for seed in [11, 22, 33] {
        let tally = chaos(seed, Dialect::sqlite()).await;
        assert_eq!(
            (tally.stale_accepted, tally.started_twice, tally.completed_twice, tally.not_ended),
            (0, 0, 0, 0),
            "seed {seed}: {tally:?}"
        );
        assert!(
            tally.kills > 20 && tally.hangs > 20 && tally.adopted > 20 && tally.refused > 10,
            "too little happened: {tally:?}"
        );
        let unguarded = chaos(seed, Dialect::sqlite().with("fence = $4", "$4 = $4")).await;
        stale_without_a_fence += unguarded.stale_accepted;
    }
    assert!(stale_without_a_fence > 5, "the control shows too little: {stale_without_a_fence}");
}
