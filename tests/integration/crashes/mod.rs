//! A server that is killed at any moment: no run is lost, none is doubled, nothing stays behind.

mod answers;
mod engines;
mod errand;
mod stops;
mod tunnel;
mod waiting;

use std::time::Duration;

use runbookd::database::Database;
use runbookd::queue::{Queue, Status};
use runbookd::run::{RunId, RunName, Slug};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Listening, Site, events_in, is_required, trajectory_in};
use errand::Errand;

/// Runs that are asked for and not ended at any moment.
const N_AT_A_TIME: usize = 20;

/// How often the server is killed, unless `RUNBOOKD_TEST_KILLS` says otherwise.
const N_KILLS: u64 = 12;

/// What the moments are drawn from, unless `RUNBOOKD_TEST_SEED` says otherwise.
const SEED: u64 = 20_260_501;

/// A server lives at most this long between two kills. Most runs take one to three seconds.
const MAX_LIFE: Duration = Duration::from_millis(4_000);

/// Longer than twenty runs take on a busy machine.
const LAST_RUNS: Duration = Duration::from_secs(240);

/// How often it is looked whether runs have ended.
const LOOK: Duration = Duration::from_millis(200);

/// The moments, always the same for one seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn moment(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_millis()).unwrap();
        Duration::from_millis(self.below(most))
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_be_killed_at_any_moment_under_load() {
    if !rustix::process::geteuid().is_root() {
        assert!(!is_required(), "the full promises are given to root");
        println!("SKIPPED: the full promises are given to root");
        return;
    }
    let (n_kills, seed) =
        (number("RUNBOOKD_TEST_KILLS", N_KILLS), number("RUNBOOKD_TEST_SEED", SEED));
    println!("{n_kills} kills, seed {seed}");
    let site = Site::new(&[
        ("RUNBOOKD_ENGINE", "bubblewrap"),
        ("RUNBOOKD_SLOTS", "6"),
        ("RUNBOOKD_MIN_FREE_BYTES", "0"),
    ])
    .await;
    let mut dice = Dice(seed);
    let mut errands = Vec::new();
    for _ in 0..n_kills {
        live_and_be_killed(&site, &mut errands, &mut dice).await;
    }
    let (serving, server) = site.start().await;
    top_up(&server, &mut errands).await;
    all_end(&server, &mut errands).await;
    serving.signal(Signal::TERM);
    let (code, log) = serving.ended().await;
    assert_eq!(code, Some(0), "{log}");
    let database = Database::open(&site.folder().join("runbookd.db")).await.unwrap();
    let queue = Queue::new(database.clone());
    let mut n_taken_over = 0;
    for errand in errands {
        n_taken_over += is_whole(&site, &queue, errand).await;
    }
    println!("{n_taken_over} times a run was taken over");
    assert!(n_taken_over > 0, "no kill met a run");
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

/// One life of the server, at whose end it is killed in the middle of whatever it does.
async fn live_and_be_killed(site: &Site, errands: &mut Vec<Errand>, dice: &mut Dice) {
    // Some do not even come to listen.
    if dice.below(5) == 0 {
        let serving = site.spawn();
        sleep(dice.moment(Duration::from_millis(400))).await;
        serving.kill().await;
    }
    let (serving, server) = site.start().await;
    let life = dice.moment(MAX_LIFE);
    // A request that breaks off with the server is sent again to the next one.
    let lived = timeout(life, async {
        loop {
            top_up(&server, errands).await;
            sleep(LOOK).await;
            note_ends(&server, errands).await;
        }
    });
    lived.await.expect_err("it lives on until it is killed");
    serving.kill().await;
}

/// Sees to it that there is enough to do.
async fn top_up(server: &Listening, errands: &mut Vec<Errand>) {
    let n_open = errands.iter().filter(|errand| !errand.has_ended).count();
    for _ in n_open..N_AT_A_TIME {
        errands.push(Errand::new(errands.len()).await);
    }
    for errand in errands.iter_mut().filter(|errand| errand.run.is_none()) {
        errand.submit(server).await;
    }
}

async fn note_ends(server: &Listening, errands: &mut [Errand]) {
    for errand in errands.iter_mut().filter(|errand| !errand.has_ended) {
        errand.look(server).await;
    }
}

async fn all_end(server: &Listening, errands: &mut [Errand]) {
    let limit = Instant::now() + LAST_RUNS;
    while errands.iter().any(|errand| !errand.has_ended) {
        assert!(Instant::now() < limit, "the last runs end: {errands:#?}");
        note_ends(server, errands).await;
        sleep(LOOK).await;
    }
}

/// The run is there once, ended once, and says what its model was asked and what it answered. Gives
/// how often it was taken over.
async fn is_whole(site: &Site, queue: &Queue, errand: Errand) -> usize {
    let folder = site.run_folder(&errand.path());
    let task = site.run_folder(&errand.collection()).join("story");
    assert_eq!(std::fs::read_dir(task).unwrap().count(), 1, "one request, one run");
    let name = RunName {
        collection: Slug::new(&errand.collection()).unwrap(),
        task: Slug::new("story").unwrap(),
        id: RunId::new(errand.run.as_ref().unwrap()).unwrap(),
    };
    let job = queue.get(&name).await.unwrap().expect("the run is known");
    let events = events_in(&folder);
    let context = format!("{job:#?}\n{events:#?}");
    assert_eq!((job.status, job.reason.as_deref()), (Status::Completed, None), "{context}");
    let is_end = |event: &&Value| event["kind"] == "finished";
    assert_eq!(events.iter().filter(is_end).count(), 1, "{context}");
    assert!(events.last().as_ref().is_some_and(is_end), "{context}");
    let session = job.session_id.clone().unwrap();
    let usage = (job.usage.input_tokens, job.usage.output_tokens);
    errand.agrees_with(&folder, &events, &trajectory_in(&folder), (&session, usage)).await;
    events.iter().filter(|event| event.to_string().contains("runbookd was restarted")).count()
}
