//! Routines, and that each slot is run once.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::cadence::Cadence;
use crate::secret::Secret;

const HOUR: i64 = 3600;

fn cadence(document: &Value) -> Cadence {
    Cadence::parse(document).unwrap()
}

fn hourly() -> Cadence {
    cadence(&json!({"type": "hourly"}))
}

fn new(name: &str) -> NewRoutine {
    NewRoutine {
        name: name.to_owned(),
        cadence: hourly(),
        overrides: Map::new(),
        secret_params: BTreeMap::new(),
        paused: false,
        webhook_url: None,
        webhook_secret: None,
    }
}

fn secret(value: &str) -> Secret {
    Secret::new(value.to_owned())
}

async fn slots(catalog: &Catalog, now: i64) -> Vec<(String, i64)> {
    let due = catalog.due(at(now)).await.unwrap();
    assert!(due.broken.is_empty(), "{:?}", due.broken);
    let told =
        |fire: &Fire| (fire.routine.name.to_string(), fire.slot.as_second() - at(0).as_second());
    due.fires.iter().map(told).collect()
}

/// Claims everything that is due and tells which claims were won.
async fn run_due(catalog: &Catalog, now: i64) -> Vec<i64> {
    let mut won = Vec::new();
    for fire in catalog.due(at(now)).await.unwrap().fires {
        if catalog.claim_slot(&fire).await.unwrap() {
            won.push(fire.slot.as_second() - at(0).as_second());
        }
    }
    won
}

#[tokio::test]
async fn a_routine_is_kept_with_its_secrets_sealed() {
    let scene = Scene::with_task().await;
    let overrides = object(json!({"topic": "ants"}));
    let routine = NewRoutine {
        overrides: overrides.clone(),
        secret_params: [("TOKEN".to_owned(), secret("made-up-token"))].into(),
        webhook_url: Some("https://example.com/hook".to_owned()),
        webhook_secret: Some(secret("made-up-secret")),
        ..new("Every hour")
    };
    let made = scene.catalog.create_routine(&team(), "REPORT", routine, at(60)).await.unwrap();
    assert_eq!(made.task.as_str(), "Report");
    assert_eq!(made.name.as_str(), "Every hour");
    assert_eq!((made.overrides.clone(), made.has_secret_params), (overrides, true));
    assert_eq!(made.next_run, Some(at(HOUR)));
    let scene = scene.restart().await;
    let catalog = &scene.catalog;
    assert_eq!(catalog.routine(&team(), "report", "every HOUR").await.unwrap(), made);
    assert_eq!(catalog.routines(&team(), None).await.unwrap(), std::slice::from_ref(&made));
    assert_eq!(
        catalog.routines(&team(), Some("report")).await.unwrap(),
        std::slice::from_ref(&made)
    );
    assert_eq!(catalog.routines(&team(), Some("other")).await.unwrap(), []);
    let secrets = catalog.routine_secrets(&made).await.unwrap();
    assert_eq!(secrets.params["TOKEN"].expose(), "made-up-token");
    assert_eq!(secrets.webhook_secret.unwrap().expose(), "made-up-secret");
    assert!(!format!("{made:?}").contains("made-up"));
}

#[tokio::test]
async fn what_cannot_be_a_routine_is_refused() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    let create =
        async |routine| said(catalog.create_routine(&team(), "report", routine, at(0)).await);
    let undeclared = object(json!({"topic": "x", "colour": 1, "size": 2}));
    assert_eq!(
        create(NewRoutine { overrides: undeclared, ..new("a") }).await,
        "`init_params_overrides` has keys that the task's `init_params` do not declare: `colour`, \
         `size`. Declared: `instruction`, `topic`"
    );
    assert!(create(new("a/b")).await.contains("is not a usable name"));
    let params: BTreeMap<String, Secret> = [("a-b".to_owned(), secret("made-up-value"))].into();
    let error = create(NewRoutine { secret_params: params, ..new("a") }).await;
    assert!(error.contains("`a-b` cannot be an environment variable"), "{error}");
    let url = Some("example.com".to_owned());
    assert!(create(NewRoutine { webhook_url: url, ..new("a") }).await.contains("`webhook_url`"));
    catalog.create_routine(&team(), "report", new("a"), at(0)).await.unwrap();
    assert_eq!(create(new("A")).await, "the routine `A` exists already");
    assert_eq!(
        said(catalog.create_routine(&team(), "none", new("a"), at(0)).await),
        "there is no task `none`"
    );
}

#[tokio::test]
async fn a_patch_changes_what_it_names() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    let old = NewRoutine {
        secret_params: [("A".to_owned(), secret("made-up-a"))].into(),
        webhook_secret: Some(secret("made-up-b")),
        ..new("r")
    };
    let old = catalog.create_routine(&team(), "report", old, at(0)).await.unwrap();
    let me = &team();
    let patch = async |patch, now| {
        catalog.update_routine((me, "report", "R"), patch, at(now)).await.unwrap()
    };
    let overrides = object(json!({"topic": "x"}));
    let changed = RoutinePatch { overrides: Some(overrides.clone()), ..RoutinePatch::default() };
    let changed = patch(changed, 10).await;
    assert_eq!(changed, Routine { overrides, updated: at(10), ..old });
    let secrets = catalog.routine_secrets(&changed).await.unwrap();
    assert_eq!(secrets.params["A"].expose(), "made-up-a");
    let removed = RoutinePatch {
        secret_params: Some(BTreeMap::new()),
        webhook_secret: Some(None),
        webhook_url: Some(Some("http://localhost/x".to_owned())),
        ..RoutinePatch::default()
    };
    let removed = patch(removed, 20).await;
    assert_eq!(removed.webhook_url.as_deref(), Some("http://localhost/x"));
    assert!(!removed.has_secret_params);
    let secrets = catalog.routine_secrets(&removed).await.unwrap();
    assert!(secrets.params.is_empty() && secrets.webhook_secret.is_none());
    catalog.delete_routine(me, "REPORT", "R").await.unwrap();
    assert_eq!(said(catalog.delete_routine(me, "report", "r").await), "there is no routine `r`");
}

#[tokio::test]
async fn a_slot_is_due_until_it_is_claimed_and_only_once() {
    let scene = Scene::with_task().await;
    scene.catalog.create_routine(&team(), "report", new("r"), at(0)).await.unwrap();
    assert_eq!(slots(&scene.catalog, HOUR - 1).await, []);
    assert_eq!(scene.catalog.next_slot().await.unwrap(), Some(at(HOUR)));
    let due = [("r".to_owned(), HOUR)];
    assert_eq!(slots(&scene.catalog, HOUR).await, due);
    assert_eq!(slots(&scene.catalog, HOUR + 5).await, due);
    let fire = scene.catalog.due(at(HOUR)).await.unwrap().fires.remove(0);
    assert_eq!(run_due(&scene.catalog, HOUR + 5).await, [HOUR]);
    let scene = scene.restart().await;
    assert!(!scene.catalog.claim_slot(&fire).await.unwrap(), "not again after a restart");
    assert_eq!(slots(&scene.catalog, 2 * HOUR - 1).await, []);
    assert_eq!(run_due(&scene.catalog, 2 * HOUR).await, [2 * HOUR]);
    assert_eq!(slots(&scene.catalog, HOUR).await, [], "a clock that is set back repeats nothing");
}

#[tokio::test]
async fn of_the_slots_that_were_missed_only_the_latest_is_run() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    catalog.create_routine(&team(), "report", new("r"), at(0)).await.unwrap();
    assert_eq!(run_due(catalog, 10 * HOUR + 7).await, [10 * HOUR]);
    assert_eq!(run_due(catalog, 10 * HOUR + 8).await, [0; 0]);
    assert_eq!(catalog.next_slot().await.unwrap(), Some(at(11 * HOUR)));
}

#[tokio::test]
async fn a_paused_routine_is_never_due_and_makes_up_for_nothing() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    catalog.create_routine(&team(), "report", new("r"), at(0)).await.unwrap();
    let me = &team();
    let pause = async |paused, now| {
        let patch = RoutinePatch { paused: Some(paused), ..RoutinePatch::default() };
        catalog.update_routine((me, "report", "r"), patch, at(now)).await.unwrap()
    };
    let fire = catalog.due(at(HOUR)).await.unwrap().fires.remove(0);
    assert_eq!(pause(true, HOUR).await.next_run, None);
    assert!(!catalog.claim_slot(&fire).await.unwrap(), "it was paused before the claim");
    assert_eq!(slots(catalog, 5 * HOUR).await, []);
    assert_eq!(catalog.next_slot().await.unwrap(), None);
    assert_eq!(pause(false, 5 * HOUR + 1).await.next_run, Some(at(6 * HOUR)));
    assert_eq!(slots(catalog, 6 * HOUR - 1).await, []);
    assert_eq!(run_due(catalog, 6 * HOUR).await, [6 * HOUR]);
}

#[tokio::test]
async fn a_new_cadence_voids_the_slots_of_the_old_one() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    catalog.create_routine(&team(), "report", new("r"), at(0)).await.unwrap();
    let fire = catalog.due(at(HOUR)).await.unwrap().fires.remove(0);
    let daily = cadence(&json!({"type": "daily", "hour_utc": 3}));
    let patch = RoutinePatch { cadence: Some(daily), ..RoutinePatch::default() };
    // At the moment of its creation, as a clock that is set back would have it.
    let changed = catalog.update_routine((&team(), "report", "r"), patch, at(0)).await.unwrap();
    assert_eq!(changed.next_run, Some(at(3 * HOUR)));
    assert!(!catalog.claim_slot(&fire).await.unwrap());
    let manual = RoutinePatch {
        cadence: Some(cadence(&json!({"type": "manual"}))),
        ..RoutinePatch::default()
    };
    let manual = catalog.update_routine((&team(), "report", "r"), manual, at(HOUR)).await.unwrap();
    assert_eq!(manual.next_run, None);
    assert_eq!(slots(catalog, 999 * HOUR).await, []);
}

#[tokio::test]
async fn of_many_who_race_for_a_slot_exactly_one_wins() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    // As several servers on one database: each has its own catalog and its own view of what is due.
    let catalogs: Vec<Catalog> = (0..8)
        .map(|_| Catalog::new(catalog.database.clone(), Arc::clone(&catalog.vault)))
        .collect();
    for n in 0..3 {
        catalog.create_routine(&team(), "report", new(&n.to_string()), at(0)).await.unwrap();
    }
    for hour in 1..=5 {
        let races = catalogs.iter().map(async |catalog| {
            let mut won = Vec::new();
            for fire in catalog.due(at(hour * HOUR)).await.unwrap().fires {
                if catalog.claim_slot(&fire).await.unwrap() {
                    won.push(fire.idempotency_key());
                }
            }
            won
        });
        let won: Vec<String> =
            futures_util::future::join_all(races).await.into_iter().flatten().collect();
        assert_eq!(won.len(), 3, "{won:?}");
        assert_eq!(won.iter().collect::<BTreeSet<_>>().len(), 3, "{won:?}");
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_does_not_stop_the_others() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    catalog.create_routine(&team(), "report", new("bad"), at(0)).await.unwrap();
    catalog.create_routine(&team(), "report", new("good"), at(0)).await.unwrap();
    let mut tx = catalog.database.write().await.unwrap();
    sqlx::query("UPDATE routines SET cadence = '{}' WHERE folded = 'bad'")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let due = catalog.due(at(HOUR)).await.unwrap();
    assert_eq!((due.fires.len(), due.broken.len()), (1, 1));
    assert_eq!(due.fires[0].routine.name.as_str(), "good");
}

#[tokio::test]
async fn a_slot_that_new_rules_of_a_time_zone_moved_is_waited_for() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    catalog.create_routine(&team(), "report", new("r"), at(0)).await.unwrap();
    let mut tx = catalog.database.write().await.unwrap();
    sqlx::query("UPDATE routines SET next_slot = next_slot - 60000")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(slots(catalog, HOUR - 30).await, []);
    assert_eq!(catalog.next_slot().await.unwrap(), Some(at(HOUR)));
    assert_eq!(slots(catalog, HOUR).await, [("r".to_owned(), HOUR)]);
}

/// What may happen to a routine.
#[derive(Debug, Clone)]
enum Event {
    /// Time passes, by minutes; it may run backwards.
    Tick(i64),
    /// A server looks and claims at once.
    Run,
    /// A server looks now and claims only at the next `Claim`.
    Look,
    /// It claims what it saw.
    Claim,
    Pause(bool),
    Restart,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (-30..200_i64).prop_map(Event::Tick),
        4 => Just(Event::Run),
        2 => Just(Event::Look),
        2 => Just(Event::Claim),
        1 => any::<bool>().prop_map(Event::Pause),
        1 => Just(Event::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_slot_is_won_twice_or_early_and_slots_only_grow(
        events in proptest::collection::vec(any_event(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut scene = Scene::with_task().await;
            scene.catalog.create_routine(&team(), "report", new("r"), at(0)).await.unwrap();
            let (mut minute, mut seen, mut won, mut paused) = (0, Vec::new(), Vec::new(), false);
            for event in events {
                let now = at(minute * 60);
                match event {
                    Event::Tick(minutes) => minute += minutes,
                    Event::Run => {
                        for slot in run_due(&scene.catalog, minute * 60).await {
                            assert!(!paused && slot <= minute * 60);
                            won.push(slot);
                        }
                        assert_eq!(run_due(&scene.catalog, minute * 60).await, [0; 0]);
                    }
                    Event::Look => seen = scene.catalog.due(now).await.unwrap().fires,
                    Event::Claim => {
                        for fire in seen.drain(..) {
                            if scene.catalog.claim_slot(&fire).await.unwrap() {
                                assert!(!paused);
                                won.push(fire.slot.as_second() - at(0).as_second());
                            }
                        }
                    }
                    Event::Pause(pause) => {
                        paused = pause;
                        let patch = RoutinePatch { paused: Some(pause), ..RoutinePatch::default() };
                        let me = team();
                        scene.catalog.update_routine((&me, "report", "r"), patch, now).await.unwrap();
                    }
                    Event::Restart => scene = scene.restart().await,
                }
            }
            assert!(won.windows(2).all(|pair| pair[0] < pair[1]), "{won:?}");
            assert!(won.iter().all(|slot| slot % HOUR == 0));
        });
    }
}
