//! The purse against a model of it, and several processes on one file.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::budget::{Amounts, Prompt};
use crate::run::{Allowance, Caps, Exhausted, Measure, Rate, Slug, Span, Usd};

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(20);

fn now() -> Timestamp {
    "2026-11-21T18:00:00Z".parse().unwrap()
}

fn team() -> Slug {
    Slug::new("team").unwrap()
}

fn run() -> (Slug, String) {
    (team(), "team/story/x".to_owned())
}

fn costs(usd: f64) -> Caps {
    Caps { cost: Usd::new(usd), ..Caps::default() }
}

fn of_run(caps: Caps) -> Allowance {
    Allowance { run: caps, ..Allowance::default() }
}

async fn spend() -> (Spend, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Spend::open(&folder.path().join(Spend::FILE)).await.unwrap(), folder)
}

fn wish<'a>(run: &'a str, allowance: &'a Allowance, collection: &'a Slug, cost: u64) -> Wish<'a> {
    let need = Amounts { cost, tokens: 0, requests: 1 };
    Wish { collection, run, model: "m", allowance, need, prompt_tokens: 0, now: now() }
}

fn took(cost: u64) -> Charge {
    Charge::Took(Took { cost: Some(Usd::from_micros(cost)), ..Took::default() })
}

/// A model's price: a millionth of a dollar for each token.
fn micro_each(input: u64, output: u64) -> Option<Usd> {
    Some(Usd::from_micros(input + output))
}

/// A request of a prompt that is estimated at 600 tokens and an answer of so many.
fn asked(max_output: u64) -> Asked<'static> {
    Asked { prompt: Prompt::default(), max_output, model: "m", price: &micro_each }
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Reserve {
        run: u8,
        cost: u16,
    },
    /// The nth of those in flight took a share of what was set aside, in percent.
    Settle {
        nth: u8,
        percent: u8,
    },
    SettleAgain {
        nth: u8,
    },
    Keep {
        nth: u8,
    },
    Nothing {
        nth: u8,
    },
    /// The process of a run died, and another one took its place.
    Die {
        run: u8,
    },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0..3_u8, 1..400_u16).prop_map(|(run, cost)| Act::Reserve { run, cost }),
        4 => (any::<u8>(), 0..=100_u8).prop_map(|(nth, percent)| Act::Settle { nth, percent }),
        1 => any::<u8>().prop_map(|nth| Act::SettleAgain { nth }),
        1 => any::<u8>().prop_map(|nth| Act::Keep { nth }),
        1 => any::<u8>().prop_map(|nth| Act::Nothing { nth }),
        1 => (0..3_u8).prop_map(|run| Act::Die { run }),
    ];
    proptest::collection::vec(act, 1..40)
}

/// What a purse should hold.
#[derive(Default)]
struct Model {
    /// In flight: the run and what was set aside.
    held: Vec<(Uuid, u8, u64)>,
    ended: Vec<Uuid>,
    spent: BTreeMap<u8, u64>,
}

impl Model {
    fn taken(&self, run: u8) -> u64 {
        let held = self.held.iter().filter(|(_, of, _)| *of == run).map(|(_, _, cost)| cost);
        self.spent.get(&run).copied().unwrap_or(0) + held.sum::<u64>()
    }

    /// Compares an answer with what should follow.
    fn hear(&mut self, answer: Answer, (run, cost): (u8, u64), (fits, closed): (bool, &mut bool)) {
        match answer {
            Answer::Reserved(id) => {
                assert!(fits && !*closed);
                self.held.push((id, run, cost));
            }
            Answer::Refused(_) => {
                assert!(!fits || *closed);
                *closed = true;
            }
            Answer::AwaitOthers(_) => assert!(!fits && !self.held.is_empty()),
            Answer::TooSoon(_) => panic!("there is no rate"),
        }
    }

    fn in_day(&self) -> u64 {
        (0..3).map(|run| self.taken(run)).sum()
    }

    fn end(&mut self, nth: u8, cost: impl Fn(u64) -> u64) -> Option<(Uuid, u64)> {
        let n = self.held.len();
        let (id, run, reserved) = self.held.remove(usize::from(nth).checked_rem(n)?);
        *self.spent.entry(run).or_default() += cost(reserved);
        self.ended.push(id);
        Some((id, cost(reserved)))
    }
}

const RUN_CAP: u64 = 1_000;
const DAY_CAP: u64 = 2_000;

async fn play(acts: Vec<Act>) {
    let (spend, _folder) = spend().await;
    let caps = |micros| Caps { cost: Some(Usd::from_micros(micros)), ..Caps::default() };
    let allowance = Allowance { run: caps(RUN_CAP), day: caps(DAY_CAP), ..Allowance::default() };
    let (team, mut model, mut closed) = (team(), Model::default(), [false; 3]);
    for act in acts {
        match act {
            Act::Reserve { run, cost } => {
                let (name, cost) = (run.to_string(), u64::from(cost));
                let answer = spend.reserve(&wish(&name, &allowance, &team, cost)).await.unwrap();
                let fits = model.taken(run) + cost <= RUN_CAP && model.in_day() + cost <= DAY_CAP;
                model.hear(answer, (run, cost), (fits, &mut closed[usize::from(run)]));
            }
            Act::Settle { nth, percent } => {
                if let Some((id, cost)) = model.end(nth, |cost| cost * u64::from(percent) / 100) {
                    assert!(spend.settle(id, took(cost), now()).await.unwrap());
                }
            }
            Act::SettleAgain { nth } => {
                let n = model.ended.len();
                if let Some(nth) = usize::from(nth).checked_rem(n) {
                    assert!(!spend.settle(model.ended[nth], took(0), now()).await.unwrap());
                }
            }
            Act::Keep { nth } => {
                if let Some((id, _)) = model.end(nth, |cost| cost) {
                    assert!(spend.settle(id, Charge::Kept, now()).await.unwrap());
                }
            }
            Act::Nothing { nth } => {
                if let Some((id, _)) = model.end(nth, |_| 0) {
                    assert!(spend.settle(id, Charge::Nothing, now()).await.unwrap());
                }
            }
            Act::Die { run } => {
                spend.give_up(&run.to_string(), now()).await.unwrap();
                while let Some(nth) = model.held.iter().position(|(_, of, _)| *of == run) {
                    model.end(u8::try_from(nth).unwrap(), |cost| cost);
                }
            }
        }
        let (day, month) = spend.taken(&team, now()).await.unwrap();
        assert_eq!((day.cost, month.cost), (model.in_day(), model.in_day()));
        assert!(day.cost <= DAY_CAP && (0..3).all(|run| model.taken(run) <= RUN_CAP));
    }
    let usage = spend.usage(&team, (date(), date())).await.unwrap();
    let counted: u64 = usage.iter().map(|u| u.cost.micros() + u.unsettled_cost.micros()).sum();
    assert_eq!(counted, model.spent.values().sum::<u64>());
    assert_eq!(usage.iter().map(|u| u.requests).sum::<u64>(), model.ended.len() as u64);
}

fn date() -> jiff::civil::Date {
    "2026-11-21".parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_purse_never_passes_a_limit_and_loses_nothing(acts in acts()) {
        tokio::runtime::Runtime::new().unwrap().block_on(play(acts));
    }
}

#[tokio::test]
async fn requests_wait_in_order_for_what_others_leave_and_are_refused_when_none_is_in_flight() {
    let (spend, _folder) = spend().await;
    let purse = Purse::of_run(spend, run(), of_run(costs(0.003)), now).await.unwrap();
    let first = purse.admit(asked(1_400)).await.unwrap();
    assert_eq!(*first.reserved(), Amounts { cost: 2_000, tokens: 2_000, requests: 1 });
    let waiting = purse.admit(asked(1_400));
    let mut waiting = std::pin::pin!(waiting);
    let still = tokio::time::timeout(Duration::from_millis(700), waiting.as_mut()).await;
    assert!(still.is_err(), "it waits for the first one");
    first.settle(took(500));
    let second = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
    assert!(second.waited() > Duration::ZERO);
    second.settle(took(1_500));
    let refused = tokio::time::timeout(SOON, purse.admit(asked(1_400))).await.unwrap();
    let exhausted = Exhausted {
        span: Span::Run,
        measure: Measure::Cost,
        limit: 3_000,
        spent: 2_000,
        asked: 2_000,
        opens: None,
    };
    assert_eq!(refused.unwrap_err(), NotAdmitted::Exhausted(exhausted.clone()));
    let small = purse.admit(asked(1)).await.unwrap_err();
    assert_eq!(small, NotAdmitted::Exhausted(exhausted), "refused once, refused for ever");
}

#[tokio::test]
async fn what_a_dead_process_left_stays_spent_and_is_waited_for_by_nobody() {
    let (spend, _folder) = spend().await;
    let allowance = of_run(costs(0.003));
    let dead = Purse::of_run(spend.clone(), run(), allowance, now).await.unwrap();
    let held = dead.admit(asked(1_400)).await.unwrap();
    let next = Purse::of_run(spend.clone(), run(), allowance, now).await.unwrap();
    assert!(matches!(next.admit(asked(1_400)).await, Err(NotAdmitted::Exhausted(_))));
    // The dead one comes back to life.
    held.settle(Charge::Nothing);
    dead.close().await;
    assert_eq!(spend.taken(&team(), now()).await.unwrap().0.cost, 2_000);
    assert_eq!(spend.n_reserved(&run().1).await.unwrap(), 0);
}

#[tokio::test]
async fn a_request_that_is_dropped_without_a_word_stays_spent() {
    let (spend, _folder) = spend().await;
    let purse = Purse::of_run(spend.clone(), run(), of_run(costs(1.0)), now).await.unwrap();
    drop(purse.admit(asked(400)).await.unwrap());
    purse.close().await;
    let usage = spend.usage(&team(), (date(), date())).await.unwrap();
    assert_eq!((usage[0].unsettled_requests, usage[0].unsettled_cost.micros()), (1, 1_000));
    assert_eq!(spend.spent(&team(), now()).await.unwrap().in_day.cost, 1_000);
}

#[tokio::test]
async fn a_model_without_a_price_is_refused_where_money_counts_and_only_there() {
    let (spend, _folder) = spend().await;
    let unpriced = Asked { price: &|_, _| None, ..asked(1) };
    let limited = Purse::of_run(spend.clone(), run(), of_run(costs(1.0)), now).await.unwrap();
    assert_eq!(limited.admit(unpriced).await.unwrap_err(), NotAdmitted::Unpriced);
    let tokens = Caps { tokens: Some(1_000), ..Caps::default() };
    let free = Purse::of_run(spend.clone(), run(), of_run(tokens), now).await.unwrap();
    free.admit(unpriced).await.unwrap().settle(Charge::Took(Took { input: 9, ..Took::default() }));
    free.close().await;
    let usage = spend.usage(&team(), (date(), date())).await.unwrap();
    assert_eq!((usage[0].unpriced_requests, usage[0].input_tokens), (1, 9));
}

#[tokio::test]
async fn a_collection_asks_no_faster_than_it_may_over_all_its_runs() {
    fn later() -> Timestamp {
        now() + jiff::SignedDuration::from_secs(30)
    }
    let (spend, _folder) = spend().await;
    let rate = Rate { requests: Some(2), tokens: Some(10_000) };
    let allowance = Allowance { rate, ..Allowance::default() };
    let (team, first) = (team(), wish("a", &allowance, &team(), 0).now);
    let ask = async |run: &str, prompt_tokens, now| {
        let wish = Wish { prompt_tokens, now, ..wish(run, &allowance, &team, 0) };
        spend.reserve(&wish).await.unwrap()
    };
    let Answer::Reserved(one) = ask("a", 4_000, first).await else { panic!("the first goes") };
    assert!(matches!(ask("b", 4_000, first).await, Answer::Reserved(_)));
    let Answer::TooSoon(wait) = ask("c", 1, first).await else { panic!("the third waits") };
    assert_eq!(wait, Duration::from_millis(30_001));
    // Half a minute later there is room for one more request, and for 5,000 tokens more than the
    // 2,000 that are left; the first one really took 9,000.
    let took = Took { input: 8_000, output: 1_000, ..Took::default() };
    spend.settle(one, Charge::Took(took), later()).await.unwrap();
    assert!(matches!(ask("c", 2_001, later()).await, Answer::TooSoon(_)));
    assert!(matches!(ask("c", 2_000, later()).await, Answer::Reserved(_)));
}

#[tokio::test]
async fn a_run_without_a_gateway_is_counted_once() {
    let (spend, _folder) = spend().await;
    let took = Took { input: 7, output: 2, cost: Usd::new(0.5), ..Took::default() };
    let used = [("m".to_owned(), 3, took)];
    for _ in 0..2 {
        spend.count_run(&team(), ("a/", true), &used, now()).await.unwrap();
    }
    spend.count_run(&team(), ("b/", false), &used, now()).await.unwrap();
    let usage = spend.usage(&team(), (date(), date())).await.unwrap();
    assert_eq!((usage.len(), usage[0].requests, usage[0].cost), (1, 6, Usd::new(1.0).unwrap()));
    assert_eq!(spend.spent(&team(), now()).await.unwrap().in_day.cost, 500_000);
}

#[tokio::test]
async fn no_number_is_so_large_that_what_is_spent_cannot_be_read_again() {
    let (spend, _folder) = spend().await;
    let (team, limited) = (team(), of_run(costs(1.0)));
    let need = Amounts { cost: u64::MAX, tokens: u64::MAX, requests: 1 };
    let huge = Took { input: u64::MAX, output: u64::MAX, ..Took::default() };
    let huge = Took { cost: Some(Usd::from_micros(u64::MAX)), ..huge };
    for settle in [true, true, true, false, false, false] {
        let free = Allowance::default();
        let wish = Wish { need, prompt_tokens: u64::MAX, ..wish("a", &free, &team, 0) };
        let Answer::Reserved(id) = spend.reserve(&wish).await.unwrap() else { panic!("no limit") };
        if settle {
            assert!(spend.settle(id, Charge::Took(huge), now()).await.unwrap());
        }
    }
    spend.count_run(&team, ("b/", true), &[("m".to_owned(), 1, huge)], now()).await.unwrap();
    // Still everything can be read, added up, refused and given up.
    let most = 1_000_000_000_000_000;
    let (day, month) = spend.taken(&team, now()).await.unwrap();
    assert_eq!((day, month.tokens), (Amounts { cost: most, tokens: most, requests: 7 }, most));
    let balances = spend.balances(&team, &Allowance { day: costs(1.0), ..limited }, now()).await;
    assert_eq!(balances.unwrap().day.held.cost, most);
    let answer = spend.reserve(&wish("a", &limited, &team, 1)).await.unwrap();
    assert!(!matches!(answer, Answer::Reserved(_)), "{answer:?}");
    assert_eq!(spend.give_up("a", now()).await.unwrap(), 3);
    let used = spend.usage(&team, (date(), date())).await.unwrap();
    assert_eq!(used[0].input_tokens, most);
    assert_eq!(used[0].unsettled_requests, 3);
}

#[tokio::test]
async fn days_and_collections_are_apart() {
    let (spend, _folder) = spend().await;
    let allowance = Allowance { day: costs(0.001), ..Allowance::default() };
    let tomorrow = now() + jiff::SignedDuration::from_hours(24);
    let (team, other) = (team(), Slug::new("other").unwrap());
    let of_team = wish("a", &allowance, &team, 1_000);
    assert!(matches!(spend.reserve(&of_team).await.unwrap(), Answer::Reserved(_)));
    let Answer::AwaitOthers(_) =
        spend.reserve(&Wish { run: "b", ..of_team.clone() }).await.unwrap()
    else {
        panic!("the first may leave something")
    };
    let of_other = wish("c", &allowance, &other, 1_000);
    assert!(matches!(spend.reserve(&of_other).await.unwrap(), Answer::Reserved(_)));
    let of_tomorrow = Wish { now: tomorrow, run: "b", ..of_team };
    assert!(matches!(spend.reserve(&of_tomorrow).await.unwrap(), Answer::Reserved(_)));
}

#[tokio::test]
async fn what_nobody_settles_is_counted_and_old_runs_are_forgotten() {
    let (spend, _folder) = spend().await;
    let allowance = of_run(costs(1.0));
    let team = team();
    for run in ["", "team/story/x"] {
        let answer = spend.reserve(&wish(run, &allowance, &team, 100)).await.unwrap();
        assert!(matches!(answer, Answer::Reserved(_)));
    }
    let unsettled = async || {
        let usage = spend.usage(&team, (date(), date())).await.unwrap();
        usage.first().map_or(0, |used| used.unsettled_requests)
    };
    let later = |hours| now() + jiff::SignedDuration::from_hours(hours);
    spend.tidy(later(2)).await.unwrap();
    assert_eq!((unsettled().await, spend.n_reserved("team/story/x").await.unwrap()), (1, 1));
    spend.tidy(later(24 * 9)).await.unwrap();
    assert_eq!((unsettled().await, spend.n_reserved("team/story/x").await.unwrap()), (2, 0));
    assert_eq!(spend.taken(&team, now()).await.unwrap().0.cost, 200, "and stays spent");
    spend.tidy(later(24 * 61)).await.unwrap();
    let fresh = of_run(costs(0.0001));
    let answer = spend.reserve(&wish("team/story/x", &fresh, &team, 100)).await.unwrap();
    assert!(matches!(answer, Answer::Reserved(_)), "nothing is known of the run any more");
}

/// The variable that makes this test binary one of the processes of the test below.
const CHILD: &str = "RUNBOOKD_SPEND_CHILD";

#[test]
#[expect(clippy::disallowed_methods, reason = "it tells one of several processes what it is")]
fn several_processes_that_are_killed_never_pass_a_limit_together() {
    if let Ok(path) = std::env::var(CHILD) {
        tokio::runtime::Runtime::new().unwrap().block_on(spend_for_ever(Path::new(&path)));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(Spend::FILE);
    let name = "spend::tests::several_processes_that_are_killed_never_pass_a_limit_together";
    let start = || {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let child = child.args(["--exact", name, "--nocapture"]).env(CHILD, &path);
        child.stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let taken = async |spend: &Spend| spend.taken(&team(), now()).await.unwrap().0.cost;
    let mut children: Vec<_> = (0..4).map(|_| start()).collect();
    runtime.block_on(async {
        let spend = Spend::open(&path).await.unwrap();
        let began = std::time::Instant::now();
        let mut killed = 0;
        while taken(&spend).await < CHILDREN_CAP && began.elapsed() < SOON {
            // Each at another moment of its work.
            if taken(&spend).await > killed * (CHILDREN_CAP / 8) {
                let nth = usize::try_from(killed).unwrap() % children.len();
                children[nth].kill().unwrap();
                children[nth].wait().unwrap();
                children[nth] = start();
                killed += 1;
            }
            assert!(taken(&spend).await <= CHILDREN_CAP);
        }
        assert!(killed >= 4, "{killed}");
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // What was set aside and not settled is a part of what was taken, and nothing is lost.
        let usage = spend.usage(&team(), (date(), date())).await.unwrap();
        let settled: u64 = usage.iter().map(|u| u.cost.micros()).sum();
        let n_left = spend.give_up("shared", now()).await.unwrap() as u64;
        assert_eq!(taken(&spend).await, settled + n_left * EACH);
        assert!(taken(&spend).await <= CHILDREN_CAP);
    });
}

/// What the processes may spend together, and each at a time.
const CHILDREN_CAP: u64 = 200_000;
const EACH: u64 = 1_000;

async fn spend_for_ever(path: &Path) {
    let spend = Spend::open(path).await.unwrap();
    let allowance = Allowance { day: costs(0.2), ..Allowance::default() };
    let team = team();
    loop {
        if let Answer::Reserved(id) =
            spend.reserve(&wish("shared", &allowance, &team, EACH)).await.unwrap()
        {
            spend.settle(id, took(EACH / 2), now()).await.unwrap();
        }
    }
}
