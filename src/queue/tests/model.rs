//! Random operations by several workers, and a model that says what must be accepted.

use std::collections::btree_map::Entry;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

const N_RUNS: u32 = 5;
const N_WORKERS: u32 = 2;
const PER_COLLECTION: u32 = 2;
const LOST_AFTER: Duration = Duration::from_secs(90);
const TTL_MS: i64 = 60_000;
const LOST_MS: i64 = 90_000;
const MAX_GAP_MS: i64 = 120_000;
const MAX_ATTEMPTS: u32 = 2;

/// Which grant of all that were ever given, counted from the newest.
type Back = usize;

#[derive(Debug, Clone)]
enum Op {
    Submit { run: u32, priority: i64, delay_s: i64 },
    Lease { worker: u32, again: bool },
    Adopt { worker: u32 },
    Heartbeat { worker: u32 },
    Started { grant: Back },
    Advance { grant: Back, from_recorded: bool, bytes: u64 },
    Finishing { grant: Back },
    PassOn { grant: Back, right_step: bool, all_recorded: bool },
    Finish { grant: Back, ended: Ended, all_recorded: bool },
    Retry { grant: Back, delay_s: i64 },
    Release { grant: Back },
    Cancel { run: u32 },
    Archive { run: u32 },
    Sweep,
    Clock { by_s: i64 },
}

fn op() -> impl Strategy<Value = Op> {
    let run = || 0..N_RUNS;
    let worker = || 0..N_WORKERS;
    let grant = || prop_oneof![4 => Just(0_usize), 2 => 0..3_usize, 1 => 0..9_usize];
    let delay = || prop_oneof![3 => Just(0_i64), 1 => 1..100_i64];
    let ended = prop_oneof![3 => Just(Ended::Completed), 1 => Just(Ended::Failed), 1 => Just(Ended::Cancelled)];
    prop_oneof![
        6 => (run(), 0..2_i64, delay())
            .prop_map(|(run, priority, delay_s)| Op::Submit { run, priority, delay_s }),
        9 => (worker(), prop::bool::weighted(0.3)).prop_map(|(worker, again)| Op::Lease { worker, again }),
        2 => worker().prop_map(|worker| Op::Adopt { worker }),
        2 => worker().prop_map(|worker| Op::Heartbeat { worker }),
        4 => grant().prop_map(|grant| Op::Started { grant }),
        4 => (grant(), prop::bool::weighted(0.8), 1..50_u64).prop_map(
            |(grant, from_recorded, bytes)| Op::Advance { grant, from_recorded, bytes }
        ),
        3 => grant().prop_map(|grant| Op::Finishing { grant }),
        3 => (grant(), prop::bool::weighted(0.8), prop::bool::weighted(0.8)).prop_map(
            |(grant, right_step, all_recorded)| Op::PassOn { grant, right_step, all_recorded }
        ),
        3 => (grant(), ended, prop::bool::weighted(0.8)).prop_map(
            |(grant, ended, all_recorded)| Op::Finish { grant, ended, all_recorded }
        ),
        2 => (grant(), delay()).prop_map(|(grant, delay_s)| Op::Retry { grant, delay_s }),
        1 => grant().prop_map(|grant| Op::Release { grant }),
        2 => run().prop_map(|run| Op::Cancel { run }),
        1 => run().prop_map(|run| Op::Archive { run }),
        3 => Just(Op::Sweep),
        3 => prop_oneof![5 => 1..100_i64, 1 => -4000..4000_i64].prop_map(|by_s| Op::Clock { by_s }),
    ]
}

/// A run as the model knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    status: Status,
    reason: Option<String>,
    step: u64,
    attempt: u64,
    fence: u64,
    next_off: u64,
    retries: u32,
    priority: i64,
    run_at: i64,
    created: i64,
    owner: Option<u32>,
    expires: Option<i64>,
    request: Option<(Uuid, u64)>,
    cancel: bool,
    begun: Option<i64>,
    started: Option<i64>,
    used: u64,
    finished: Option<i64>,
    ending: bool,
    /// By its worker.
    was_finished: bool,
}

#[derive(Debug, Default)]
struct Model {
    now: i64,
    last_sweep: Option<i64>,
    rows: BTreeMap<u32, Row>,
    /// Every grant that was ever given, with its run and worker; the newest last.
    grants: Vec<(u32, u32, Grant)>,
    requests: BTreeMap<u32, Uuid>,
    n_requests: u128,
}

/// Two collections, so that the limit of one leaves the other alone.
fn run_name(run: u32) -> RunName {
    name(if run.is_multiple_of(2) { "even" } else { "odd_" }, run)
}

fn run_of(name: &RunName) -> u32 {
    u32::from_str_radix(name.id.as_str(), 16).unwrap()
}

impl Row {
    fn is_held_by(&self, grant: &Grant) -> bool {
        self.fence == grant.fence && self.status.is_live()
    }

    fn leased(&self, run: u32) -> Leased {
        let ending = self.ending.then(|| "ending".to_owned());
        let started = self.started.map(at);
        Leased {
            grant: Grant { name: run_name(run), attempt: self.attempt, fence: self.fence },
            stage: match (ending, started) {
                (Some(ending), started) => {
                    Stage::Finishing { started, next_off: self.next_off, ending }
                }
                (None, Some(at)) => Stage::Started { at, next_off: self.next_off },
                (None, None) => Stage::Fresh,
            },
            cancel_requested: self.cancel,
            created: at(self.created),
            spec: "the spec".to_owned(),
            sealed: Some("sealed-made-up".to_owned()),
            session_id: Some("session".to_owned()),
            step: self.step,
            used: used(self.used),
            took: Duration::from_millis(self.used),
        }
    }

    fn end(&mut self, status: Status, now: i64) {
        self.status = status;
        self.finished = Some(now);
        self.expires = None;
    }

    /// Back to the queue, unless somebody wants it stopped.
    fn requeue(&mut self, now: i64) -> Requeued {
        self.expires = None;
        if self.cancel {
            self.end(Status::Cancelled, now);
            Requeued::Cancelled
        } else {
            self.status = Status::Queued;
            Requeued::Queued
        }
    }
}

impl Model {
    fn grant(&self, back: Back) -> Option<Grant> {
        let n = self.grants.len();
        (back < n).then(|| self.grants[n - 1 - back].2.clone())
    }

    fn row(&mut self, grant: &Grant) -> &mut Row {
        self.rows.get_mut(&run_of(&grant.name)).unwrap()
    }

    /// The run whose turn it is.
    fn next(&self) -> Option<u32> {
        let n_live = |run: u32| {
            let live = self.rows.iter().filter(|(other, row)| {
                run_name(**other).collection == run_name(run).collection && row.status.is_live()
            });
            live.count()
        };
        self.rows
            .iter()
            .filter(|(run, row)| {
                row.status == Status::Queued
                    && row.run_at <= self.now
                    && n_live(**run) < PER_COLLECTION as usize
            })
            .min_by_key(|(run, row)| (-row.priority, row.created, **run))
            .map(|(run, _)| *run)
    }

    fn give(&mut self, run: u32, worker: u32) -> Leased {
        let leased = self.rows[&run].leased(run);
        self.grants.push((run, worker, leased.grant.clone()));
        leased
    }
}

/// Does one operation on the queue, and checks its answer against the model's.
async fn step(queue: &Queue, model: &mut Model, op: &Op) {
    let now = model.now;
    match *op {
        Op::Submit { .. } => submit(queue, model, op).await,
        Op::Lease { worker: n, again } => lease(queue, model, n, again).await,
        Op::Adopt { worker: n } => adopt(queue, model, n).await,
        Op::Heartbeat { worker: n } => heartbeat(queue, model, n).await,
        Op::Sweep => sweep(queue, model).await,
        Op::Clock { by_s } => model.now += by_s * 1000,
        Op::Cancel { run } => cancel(queue, model, run).await,
        Op::Archive { run } => {
            let answer = queue.archive(&run_name(run), at(now)).await;
            match model.rows.get_mut(&run) {
                None => assert!(matches!(answer, Err(QueueError::NotFound(_))), "{answer:?}"),
                Some(row) if row.status.is_terminal() => {
                    answer.unwrap();
                    row.status = Status::Archived;
                }
                Some(row) => assert!(
                    matches!(answer, Err(QueueError::IllegalMove { from, .. }) if from == row.status)
                ),
            }
        }
        Op::Started { grant }
        | Op::Advance { grant, .. }
        | Op::Finishing { grant }
        | Op::PassOn { grant, .. }
        | Op::Finish { grant, .. }
        | Op::Retry { grant, .. }
        | Op::Release { grant } => {
            if let Some(grant) = model.grant(grant) {
                write(queue, model, &grant, op).await;
            }
        }
    }
}

async fn submit(queue: &Queue, model: &mut Model, op: &Op) {
    let Op::Submit { run, priority, delay_s } = *op else { unreachable!("not a submission") };
    let now = model.now;
    let run_at = now + delay_s * 1000;
    let new = NewJob {
        priority,
        run_at: Some(at(run_at)),
        max_attempts: MAX_ATTEMPTS,
        ..job(run_name(run))
    };
    let answer = queue.submit(new, at(now)).await;
    if let Entry::Vacant(place) = model.rows.entry(run) {
        assert_eq!(answer.unwrap(), Submitted::New);
        place.insert(fresh(priority, run_at, now));
    } else {
        assert!(matches!(answer, Err(QueueError::IdTaken(_))), "{answer:?}");
    }
}

async fn adopt(queue: &Queue, model: &mut Model, n: u32) {
    let now = model.now;
    let mut held: Vec<u32> = model
        .rows
        .iter()
        .filter(|(_, row)| row.owner == Some(n) && row.status.is_live())
        .map(|(run, _)| *run)
        .collect();
    held.sort_by_key(|run| (model.rows[run].created, run_name(*run)));
    let mut expected = Vec::new();
    for run in held {
        let row = model.rows.get_mut(&run).unwrap();
        row.fence += 1;
        row.expires = Some(now + TTL_MS);
        expected.push(model.give(run, n));
    }
    assert_eq!(queue.adopt(&worker(n), at(now)).await.unwrap(), expected);
}

/// A heartbeat for every grant that anybody was ever given.
async fn heartbeat(queue: &Queue, model: &mut Model, n: u32) {
    let now = model.now;
    let grants: Vec<Grant> = model.grants.iter().map(|(_, _, g)| g.clone()).collect();
    let mut expected = Vec::new();
    for grant in &grants {
        let row = model.row(grant);
        expected.push(if !row.is_held_by(grant) || row.owner != Some(n) {
            Pulse::Lost
        } else {
            row.expires = Some(now + TTL_MS);
            if row.cancel { Pulse::Cancel } else { Pulse::Ok }
        });
    }
    assert_eq!(queue.heartbeat(&worker(n), &grants, at(now)).await.unwrap(), expected);
}

fn fresh(priority: i64, run_at: i64, now: i64) -> Row {
    Row {
        status: Status::Queued,
        reason: None,
        step: 0,
        attempt: 0,
        fence: 0,
        next_off: 0,
        retries: 0,
        priority,
        run_at,
        created: now,
        owner: None,
        expires: None,
        request: None,
        cancel: false,
        begun: None,
        started: None,
        used: 0,
        finished: None,
        ending: false,
        was_finished: false,
    }
}

async fn lease(queue: &Queue, model: &mut Model, n: u32, again: bool) {
    let now = model.now;
    let request = match model.requests.get(&n) {
        Some(request) if again => *request,
        Some(_) | None => {
            model.n_requests += 1;
            Uuid::from_u128(model.n_requests)
        }
    };
    model.requests.insert(n, request);
    let answer = queue.lease(&worker(n), request, &limits(PER_COLLECTION), at(now)).await.unwrap();
    let answered =
        model.rows.iter().find(|(_, row)| row.request.is_some_and(|(known, _)| known == request));
    if let Some((run, row)) = answered {
        let same = row.status.is_live() && row.request == Some((request, row.fence));
        assert_eq!(answer, same.then(|| row.leased(*run)));
        return;
    }
    let Some(run) = model.next() else {
        assert_eq!(answer, None);
        return;
    };
    let row = model.rows.get_mut(&run).unwrap();
    assert!(row.started.is_none() && !row.cancel, "started or cancelled, and leased: {row:?}");
    row.status = Status::Leased;
    row.attempt += 1;
    row.fence += 1;
    row.owner = Some(n);
    row.expires = Some(now + TTL_MS);
    row.request = Some((request, row.fence));
    assert_eq!(answer, Some(model.give(run, n)));
}

async fn sweep(queue: &Queue, model: &mut Model) {
    let now = model.now;
    let even = model.last_sweep.is_some_and(|last| (0..=MAX_GAP_MS).contains(&(now - last)));
    model.last_sweep = Some(now);
    let mut expected = Vec::new();
    for (run, row) in model.rows.iter_mut().filter(|(_, row)| row.status.is_live()) {
        if !even {
            row.expires = Some(now + TTL_MS);
        } else if row.expires.is_some_and(|end| end < now - LOST_MS) {
            row.end(Status::Failed, now);
            row.reason = Some(WORKER_LOST.to_owned());
            row.ending = false;
            expected.push(run_name(*run));
        }
    }
    expected.sort();
    assert_eq!(queue.expire(at(now), LOST_AFTER).await.unwrap(), expected);
}

async fn cancel(queue: &Queue, model: &mut Model, run: u32) {
    let now = model.now;
    let answer = queue.cancel(&run_name(run), at(now)).await;
    let Some(row) = model.rows.get_mut(&run) else {
        assert!(matches!(answer, Err(QueueError::NotFound(_))), "{answer:?}");
        return;
    };
    let expected = match row.status {
        Status::Queued => {
            row.cancel = true;
            row.end(Status::Cancelled, now);
            Cancelled::AtOnce
        }
        Status::Leased | Status::Running | Status::Finishing => {
            row.cancel = true;
            Cancelled::Requested
        }
        ended @ (Status::Completed | Status::Failed | Status::Cancelled | Status::Archived) => {
            Cancelled::AlreadyEnded(ended)
        }
    };
    assert_eq!(answer.unwrap(), expected);
}

/// A write with a grant, which may be an old one.
async fn write(queue: &Queue, model: &mut Model, grant: &Grant, op: &Op) {
    let now = model.now;
    let row = model.row(grant);
    let held = row.is_held_by(grant);
    let leased = held && row.status == Status::Leased;
    let running = held && matches!(row.status, Status::Running | Status::Finishing);
    match *op {
        Op::Started { .. } => {
            let legal = leased || (held && row.status == Status::Running);
            if legal {
                row.status = Status::Running;
                row.started = row.started.or(Some(now));
            }
            assert_eq!(said(queue.started(grant, at(now)).await), lost_unless(legal));
        }
        Op::Advance { from_recorded, bytes, .. } => {
            let from = if from_recorded { row.next_off } else { row.next_off + 7 };
            let expected = match (running, from_recorded) {
                (false, _) => Said::Lost,
                (true, false) => Said::Offset(row.next_off),
                (true, true) => Said::Ok,
            };
            if expected == Said::Ok {
                row.next_off += bytes;
            }
            let answer = queue.advance(grant, from, from + bytes, at(now)).await;
            assert_eq!(said(answer), expected);
        }
        Op::Finishing { .. } => {
            if held {
                row.status = Status::Finishing;
                row.ending = true;
            }
            assert_eq!(said(queue.finishing(grant, "ending", at(now)).await), lost_unless(held));
        }
        Op::PassOn { .. } => pass_on(queue, model, grant, op).await,
        Op::Finish { .. } => end(queue, model, grant, op).await,
        Op::Retry { .. } | Op::Release { .. } => give_back(queue, model, grant, op).await,
        Op::Submit { .. }
        | Op::Lease { .. }
        | Op::Adopt { .. }
        | Op::Heartbeat { .. }
        | Op::Cancel { .. }
        | Op::Archive { .. }
        | Op::Sweep
        | Op::Clock { .. } => unreachable!("not a write"),
    }
}

async fn end(queue: &Queue, model: &mut Model, grant: &Grant, op: &Op) {
    let Op::Finish { ended, all_recorded, .. } = *op else { unreachable!("not an end") };
    let now = model.now;
    let row = model.row(grant);
    let total = if all_recorded { row.next_off } else { row.next_off + 1 };
    let same = row.fence == grant.fence
        && row.reason.is_none()
        && row.finished.is_some()
        && (row.status == ended.into() || row.status == Status::Archived)
        // Else it never had an exit code.
        && row.was_finished;
    let expected = match (row.is_held_by(grant), all_recorded) {
        (true, true) => {
            row.end(ended.into(), now);
            row.was_finished = true;
            row.reason = None;
            row.ending = false;
            Said::Ok
        }
        (true, false) => Said::Offset(row.next_off),
        (false, true) if same => Said::Ok,
        (false, _) => Said::Lost,
    };
    let finish = Finish {
        usage: used(row.used),
        duration: Some(Duration::from_millis(row.used)),
        ..finish(ended, total)
    };
    assert_eq!(said(queue.finish(grant, &finish, at(now)).await), expected);
}

/// What a run used so far, by a number.
fn used(n: u64) -> JobUsage {
    let cost = if n == 0 { Cost::Unknown } else { Cost::Reported(n) };
    JobUsage { input_tokens: n, output_tokens: n, cost, ..JobUsage::default() }
}

/// On to the next step.
async fn pass_on(queue: &Queue, model: &mut Model, grant: &Grant, op: &Op) {
    let Op::PassOn { right_step, all_recorded, .. } = *op else { unreachable!("not an act of it") };
    let now = model.now;
    let row = model.row(grant);
    // What a worker says again that did not hear the answer.
    let again = row.fence == grant.fence && !row.status.is_live() && row.step > 0;
    let from = if again { row.step - 1 } else { row.step } + u64::from(!right_step) * 5;
    let next = NextStep {
        from,
        total_bytes: row.next_off + u64::from(!all_recorded),
        usage: used(row.used + 7),
        took: Duration::from_millis(row.used + 7),
    };
    let finishing = row.is_held_by(grant) && row.status == Status::Finishing;
    let expected = match (finishing, right_step) {
        (false, true) if again => Said::PassedOn(PassedOn::Queued),
        (false, _) | (true, false) => Said::Lost,
        (true, true) if row.cancel => Said::PassedOn(PassedOn::ToBeCancelled),
        (true, true) if !all_recorded => Said::Offset(row.next_off),
        (true, true) => {
            row.status = Status::Queued;
            row.step += 1;
            (row.next_off, row.retries, row.ending) = (0, 0, false);
            row.begun = row.begun.or(row.started);
            row.started = None;
            row.reason = None;
            row.run_at = now;
            row.used += 7;
            row.expires = None;
            Said::PassedOn(PassedOn::Queued)
        }
    };
    let answer = queue.pass_on(grant, &next, at(now)).await;
    assert_eq!(answer.map_or_else(refused, Said::PassedOn), expected);
}

/// A run that is given back, to be tried again or not.
async fn give_back(queue: &Queue, model: &mut Model, grant: &Grant, op: &Op) {
    let now = model.now;
    let row = model.row(grant);
    let held = row.is_held_by(grant);
    let enough = row.retries + 1 >= MAX_ATTEMPTS;
    let refused = match (held, row.status) {
        (true, Status::Running | Status::Finishing) => Some(Said::Started),
        (true, Status::Leased) => None,
        (true | false, _) => Some(Said::Lost),
    };
    if let Op::Retry { delay_s, .. } = *op {
        let run_at = now + delay_s * 1000;
        let refused = refused.or(enough.then_some(Said::OutOfAttempts));
        let expected = refused.unwrap_or_else(|| {
            row.retries += 1;
            row.reason = Some("again".to_owned());
            row.run_at = run_at;
            Said::Requeued(row.requeue(now))
        });
        assert_eq!(requeued(queue.retry(grant, at(run_at), "again", at(now)).await), expected);
    } else {
        let expected = refused.unwrap_or_else(|| Said::Requeued(row.requeue(now)));
        assert_eq!(requeued(queue.release(grant, at(now)).await), expected);
    }
}

/// What the queue said, in a form that can be compared.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Ok,
    Requeued(Requeued),
    PassedOn(PassedOn),
    Lost,
    Offset(u64),
    Started,
    OutOfAttempts,
}

fn lost_unless(legal: bool) -> Said {
    if legal { Said::Ok } else { Said::Lost }
}

fn said(answer: Result<(), QueueError>) -> Said {
    answer.map_or_else(refused, |()| Said::Ok)
}

fn requeued(answer: Result<Requeued, QueueError>) -> Said {
    answer.map_or_else(refused, Said::Requeued)
}

fn refused(error: QueueError) -> Said {
    if let QueueError::Lost = error {
        Said::Lost
    } else if let QueueError::Offset { recorded } = error {
        Said::Offset(recorded)
    } else if let QueueError::Started = error {
        Said::Started
    } else if let QueueError::OutOfAttempts { .. } = error {
        Said::OutOfAttempts
    } else {
        panic!("{error:?}")
    }
}

/// The rows are what the model says.
async fn check(queue: &Queue, model: &Model) {
    for (run, row) in &model.rows {
        let job = queue.get(&run_name(*run)).await.unwrap().unwrap();
        let found = (
            (job.status, job.reason, job.attempt, job.retries, job.cancel_requested),
            (job.step, job.usage, job.duration_ms.unwrap_or_default()),
            (job.worker, job.lease_expires, job.started, job.finished, job.run_at),
        );
        let expected = (
            (row.status, row.reason.clone(), row.attempt, row.retries, row.cancel),
            (row.step, used(row.used), row.used),
            (
                row.owner.map(worker),
                row.expires.map(at),
                row.begun.or(row.started).map(at),
                row.finished.map(at),
                at(row.run_at),
            ),
        );
        assert_eq!(found, expected, "run {run}");
    }
}

/// Runs the model against the queue with its statements said in one way.
fn compare(dialect: &Dialect, config: Config) -> Result<(), String> {
    let tokio =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let scene = tokio.block_on(Scene::new());
    let ops = prop::collection::vec(op(), 20..90);
    let ran = TestRunner::new(config).run(&ops, |ops| {
        tokio.block_on(async {
            scene.say("DELETE FROM jobs").await;
            // A process of its own: it has never swept.
            let queue = Queue::speaking(scene.queue.database.clone(), dialect.clone());
            let mut model = Model::default();
            for op in &ops {
                step(&queue, &mut model, op).await;
            }
            check(&queue, &model).await;
        });
        Ok(())
    });
    ran.map_err(|error| error.to_string())
}

#[test]
fn whatever_the_workers_do_the_queue_does_what_the_model_says() {
    let config = Config {
        cases: 100,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    };
    if let Err(difference) = compare(&Dialect::sqlite(), config) {
        panic!("{difference}");
    }
}

/// Parts of statements that look as if they could go, and what is said without them.
const GUARDS: &[(&str, &str)] = &[
    ("fence = $4", "$4 = $4"),
    ("AND lease_owner = $7", ""),
    ("AND status IN ('leased', 'running')", "AND status IN ('leased', 'running', 'finishing')"),
    ("AND status IN ('running', 'finishing') AND next_off = $6", "AND next_off = $6"),
    ("AND next_off = $6", ""),
    ("AND next_off = $9", ""),
    ("AND status = 'leased' AND retries", "AND retries"),
    ("AND retries + 1 < max_attempts", ""),
    ("CASE WHEN cancel_requested = 0 THEN 'queued' ELSE 'cancelled' END", "'queued'"),
    ("WHERE status = 'queued' AND run_at <= $3", "WHERE status = 'queued'"),
    ("AND replace($5, '/' || collection || '/', '') = $5", ""),
    ("ORDER BY priority DESC, created_at, id", "ORDER BY created_at, id"),
    ("claim_fence = fence + 1", "claim_fence = fence"),
    ("AND lease_expires < $1", ""),
    ("AND status = 'finishing' AND step = $6", "AND step = $6"),
    ("AND step = $6", ""),
    ("AND next_off = $7", ""),
    ("AND cancel_requested = 0", ""),
    ("next_off = 0, retries = 0,", "retries = 0,"),
    ("started_at = NULL, ending = NULL", "ending = NULL"),
    ("ending = NULL, reason = NULL", "reason = NULL"),
    ("AND status IN ('completed', 'failed', 'cancelled', 'archived')", ""),
];

#[test]
fn the_model_notices_each_guard_that_is_taken_out() {
    let missed: Vec<&str> = GUARDS
        .iter()
        .filter(|(guard, instead)| {
            let config = Config {
                cases: 250,
                max_shrink_iters: 0,
                failure_persistence: None,
                ..Config::default()
            };
            compare(&Dialect::sqlite().with(guard, instead), config).is_ok()
        })
        .map(|(guard, _)| *guard)
        .collect();
    assert!(missed.is_empty(), "nobody would miss these: {missed:#?}");
}
