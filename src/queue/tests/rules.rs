//! One rule each.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn a_run_goes_through_the_queue_and_its_secrets_go_at_the_end() {
    let scene = Scene::new().await;
    let queue = &scene.queue;
    let leased = scene.leased(name("acme", 1)).await;
    let grant = Grant { name: name("acme", 1), attempt: 1, fence: 1 };
    assert_eq!(
        leased,
        Leased {
            grant: grant.clone(),
            spec: "the spec".to_owned(),
            sealed: Some("sealed-made-up".to_owned()),
            session_id: Some("session".to_owned()),
            step: 0,
            used: JobUsage::default(),
            took: Duration::ZERO,
            stage: Stage::Fresh,
            cancel_requested: false,
            created: at(0),
        }
    );
    queue.started(&grant, at(10)).await.unwrap();
    queue.advance(&grant, 0, 100, at(20)).await.unwrap();
    queue.finishing(&grant, "{}", at(30)).await.unwrap();
    let usage = JobUsage { output_tokens: 4, cost: Cost::Estimated(5), ..Default::default() };
    let duration = Some(Duration::from_millis(30));
    let finish = Finish { usage, duration, ..finish(Ended::Completed, 100) };
    queue.finish(&grant, &finish, at(40)).await.unwrap();
    assert_eq!(
        queue.get(&grant.name).await.unwrap().unwrap(),
        Job {
            name: grant.name.clone(),
            kind: Kind::Run,
            status: Status::Completed,
            reason: None,
            step: 0,
            attempt: 1,
            retries: 0,
            priority: 0,
            run_at: at(0),
            worker: Some(worker(1)),
            lease_expires: None,
            cancel_requested: false,
            session_id: Some("session".to_owned()),
            exit_code: Some(0),
            triggered_by_routine: None,
            usage,
            duration_ms: Some(30),
            created: at(0),
            started: Some(at(10)),
            finished: Some(at(40)),
            updated: at(40),
        }
    );
    assert_eq!(scene.sealed().await, [None]);
    assert_eq!(queue.spec(&grant.name).await.unwrap().as_deref(), Some("the spec"));
}

#[tokio::test]
async fn an_end_without_a_worker_is_told_once_and_its_secrets_go_with_that() {
    let scene = Scene::new().await;
    let queue = &scene.queue;
    // Cancelled while it waits.
    queue.submit(job(name("acme", 1)), at(0)).await.unwrap();
    queue.cancel(&name("acme", 1), at(0)).await.unwrap();
    // Cancelled on its way back.
    let back = scene.leased(name("acme", 2)).await.grant;
    queue.cancel(&back.name, at(0)).await.unwrap();
    queue.release(&back, at(0)).await.unwrap();
    let again = scene.leased(name("acme", 3)).await.grant;
    queue.cancel(&again.name, at(0)).await.unwrap();
    queue.retry(&again, at(0), "no image", at(0)).await.unwrap();
    // Lost.
    scene.leased(name("acme", 4)).await;
    queue.expire(at(0), LOST_AFTER).await.unwrap();
    queue.expire(at(61_000), Duration::ZERO).await.unwrap();
    // Its worker tells this one.
    let own = scene.leased(name("acme", 5)).await.grant;
    queue.finish(&own, &finish(Ended::Failed, 0), at(0)).await.unwrap();
    let claim = async |now| {
        let untold = queue.untold(at(now)).await.unwrap()?;
        assert_eq!(untold.run.sealed.as_deref(), Some("sealed-made-up"));
        Some(untold)
    };
    let told = |untold: &Untold| (untold.run.grant.name.id.to_string(), untold.ended);
    let expected = |n: u32, ended| (format!("{n:08x}"), ended);
    // Whoever had a worker waits until that one has heard of the end.
    let first = claim(0).await.unwrap();
    assert_eq!(told(&first), expected(1, Ended::Cancelled));
    assert_eq!(claim(14_999).await, None);
    queue.told(&first).await.unwrap();
    // One that somebody began to tell and never told is told by the next.
    let lost = claim(15_000).await.unwrap();
    let third = claim(15_000).await.unwrap();
    assert_eq!(told(&third), expected(3, Ended::Cancelled));
    queue.told(&third).await.unwrap();
    assert_eq!(claim(34_999).await, None);
    let second = claim(35_000).await.unwrap();
    assert_eq!([told(&lost), told(&second)], [2, 2].map(|n| expected(n, Ended::Cancelled)));
    assert!(matches!(queue.told(&lost).await, Err(QueueError::Lost)));
    queue.told(&second).await.unwrap();
    let given_up = claim(76_000).await.unwrap();
    assert_eq!(told(&given_up), expected(4, Ended::Failed));
    assert_eq!(given_up.finished, at(61_000));
    queue.archive(&given_up.run.grant.name, at(76_000)).await.unwrap();
    queue.told(&given_up).await.unwrap();
    assert_eq!(claim(999_000).await, None);
    assert_eq!(scene.sealed().await, [None, None, None, None, None]);
}

#[tokio::test]
async fn a_key_makes_a_request_one_request_and_another_request_a_mistake() {
    let scene = Scene::new().await;
    let queue = &scene.queue;
    let with = |n, key: &str, fingerprint: &str| NewJob {
        idempotency: Some(Idempotency { key: key.to_owned(), fingerprint: fingerprint.to_owned() }),
        ..job(n)
    };
    let first = name("acme", 1);
    let submit = |job| queue.submit(job, at(0));
    assert_eq!(submit(with(first.clone(), "k", "a")).await.unwrap(), Submitted::New);
    let repeated = Submitted::Repeated(first.clone());
    assert_eq!(submit(with(name("acme", 2), "k", "a")).await.unwrap(), repeated);
    // The client draws the same id again, too.
    assert_eq!(submit(with(first.clone(), "k", "a")).await.unwrap(), repeated);
    let conflict = submit(with(name("acme", 3), "k", "b")).await.unwrap_err();
    assert!(matches!(conflict, QueueError::IdempotencyConflict(of) if of == first));
    // Keys belong to their collection.
    assert_eq!(submit(with(name("other", 1), "k", "b")).await.unwrap(), Submitted::New);
    let taken = submit(with(first.clone(), "new", "a")).await.unwrap_err();
    assert!(matches!(taken, QueueError::IdTaken(of) if of == first));
    assert_eq!(queue.depth(at(0)).await.unwrap().due, 2);
}

#[tokio::test]
async fn the_old_process_is_shut_out_when_a_new_one_adopts() {
    let scene = Scene::new().await;
    let queue = &scene.queue;
    let old = scene.leased(name("acme", 1)).await.grant;
    queue.started(&old, at(10)).await.unwrap();
    queue.advance(&old, 0, 50, at(20)).await.unwrap();
    let adopted = queue.adopt(&worker(1), at(30)).await.unwrap();
    let new = Grant { fence: 2, ..old.clone() };
    assert_eq!(adopted.len(), 1);
    assert_eq!(adopted[0].grant, new);
    assert_eq!(adopted[0].stage, Stage::Started { at: at(10), next_off: 50 });
    assert!(matches!(queue.advance(&old, 50, 60, at(40)).await, Err(QueueError::Lost)));
    assert!(matches!(queue.finishing(&old, "{}", at(40)).await, Err(QueueError::Lost)));
    let finish = finish(Ended::Completed, 50);
    assert!(matches!(queue.finish(&old, &finish, at(40)).await, Err(QueueError::Lost)));
    assert_eq!(
        queue.heartbeat(&worker(1), &[old, new.clone()], at(40)).await.unwrap(),
        [Pulse::Lost, Pulse::Ok]
    );
    queue.finish(&new, &finish, at(50)).await.unwrap();
    // The answer was lost, and it was put away since.
    queue.archive(&new.name, at(55)).await.unwrap();
    queue.finish(&new, &finish, at(60)).await.unwrap();
    assert!(queue.adopt(&worker(1), at(70)).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_silent_worker_is_shown_and_given_up_only_much_later() {
    let scene = Scene::new().await;
    let queue = &scene.queue;
    let grant = scene.leased(name("acme", 1)).await.grant;
    let silent = async |ms| queue.get(&grant.name).await.unwrap().unwrap().is_silent(at(ms));
    assert!(!silent(60_000).await);
    assert!(silent(60_001).await);
    let lost_ms = 60_000 + 15 * 60_000;
    // Sweeps every minute; the first one is the start of the server and grants a minute.
    for ms in (0..=lost_ms).step_by(60_000) {
        assert_eq!(queue.expire(at(ms), LOST_AFTER).await.unwrap(), [], "{ms}");
    }
    let lost = queue.expire(at(lost_ms + 1), LOST_AFTER).await.unwrap();
    assert_eq!(lost.iter().collect::<Vec<_>>(), [&grant.name]);
    let job = queue.get(&grant.name).await.unwrap().unwrap();
    assert_eq!((job.status, job.reason.as_deref()), (Status::Failed, Some(WORKER_LOST)));
    assert!(matches!(queue.started(&grant, at(lost_ms + 2)).await, Err(QueueError::Lost)));
    assert_eq!(scene.lease().await, None);
}

#[tokio::test]
async fn a_jump_of_the_clock_or_a_sleep_of_the_server_is_nobodys_death() {
    for jump in [3_600_000, -3_600_000, i64::from(i32::MAX) * 20] {
        let scene = Scene::new().await;
        let queue = &scene.queue;
        let grant = scene.leased(name("acme", 1)).await.grant;
        queue.expire(at(0), LOST_AFTER).await.unwrap();
        assert_eq!(queue.expire(at(jump), LOST_AFTER).await.unwrap(), []);
        let job = queue.get(&grant.name).await.unwrap().unwrap();
        assert_eq!(job.lease_expires, Some(at(jump + 60_000)), "{jump}");
        // It is watched on from there.
        let mut lost = vec![];
        for minute in 1..=17 {
            lost.extend(queue.expire(at(jump + minute * 60_000), LOST_AFTER).await.unwrap());
        }
        assert_eq!(lost, [grant.name]);
    }
}

#[tokio::test]
async fn a_collection_with_a_limit_of_its_own_is_held_to_it() {
    let scene = Scene::new().await;
    let queue = &scene.queue;
    // The first two differ only where a pattern would not tell them apart.
    for (collection, first) in [("a_b", 0), ("a-b", 10), ("closed", 20)] {
        for n in 0..4 {
            queue.submit(job(name(collection, first + n)), at(0)).await.unwrap();
        }
    }
    let exceptions = BTreeMap::from([(slug("a-b"), 3), (slug("closed"), 0)]);
    let limits = LeaseLimits { per_collection: 1, exceptions };
    let mut got = Vec::new();
    while let Some(leased) = queue.lease(&worker(1), Uuid::new_v4(), &limits, at(0)).await.unwrap()
    {
        got.push(leased.grant.name);
    }
    assert_eq!(got, [name("a_b", 0), name("a-b", 10), name("a-b", 11), name("a-b", 12)]);
}

#[tokio::test]
async fn an_idle_worker_is_told_when_there_is_something_to_do() {
    let scene = Scene::new().await;
    let mut changed = scene.queue.changed();
    assert!(!changed.has_changed().unwrap());
    scene.queue.submit(job(name("acme", 1)), at(0)).await.unwrap();
    assert!(changed.has_changed().unwrap());
    changed.mark_unchanged();
    // A repeated name changes nothing.
    scene.queue.submit(job(name("acme", 1)), at(0)).await.unwrap_err();
    assert!(!changed.has_changed().unwrap());
    scene.lease().await.unwrap();
    scene.queue.cancel(&name("acme", 1), at(0)).await.unwrap();
    assert!(changed.has_changed().unwrap());
}

#[tokio::test]
async fn how_a_run_ended_is_never_changed_from_outside() {
    let scene = Scene::new().await;
    let queue = &scene.queue;
    let grant = scene.leased(name("acme", 1)).await.grant;
    let set = |to| queue.set_status(&grant.name, to, at(1));
    assert!(matches!(
        set(Status::Archived).await,
        Err(QueueError::IllegalMove { from: Status::Leased, to: Status::Archived })
    ));
    assert!(matches!(set(Status::Completed).await, Err(QueueError::IllegalMove { .. })));
    assert_eq!(set(Status::Cancelled).await.unwrap(), Moved::Requested);
    queue.finish(&grant, &finish(Ended::Failed, 0), at(2)).await.unwrap();
    assert_eq!(set(Status::Failed).await.unwrap(), Moved::Done);
    for to in [Status::Completed, Status::Cancelled, Status::Queued, Status::Running] {
        let refused = set(to).await.unwrap_err();
        assert_eq!(refused.to_string(), format!("a run that is failed cannot become {to}"));
    }
    assert_eq!(set(Status::Archived).await.unwrap(), Moved::Done);
    let nobody = queue.set_status(&name("acme", 9), Status::Archived, at(3)).await;
    assert!(matches!(nobody, Err(QueueError::NotFound(_))));
}

fn record(n: u32, output_tokens: u64) -> RecordedRun {
    RecordedRun {
        name: name("acme", n),
        kind: RecordKind::Ingested,
        ended: Ended::Completed,
        reason: None,
        created: at(i64::from(n)),
        started: None,
        finished: at(1000),
        usage: JobUsage { output_tokens, cost: Cost::Reported(7), ..Default::default() },
        duration_ms: Some(u64::from(n)),
        spec: "{}".to_owned(),
    }
}

#[tokio::test]
async fn a_record_from_elsewhere_replaces_itself_and_never_a_run_of_ours() {
    let scene = Scene::new().await;
    let queue = &scene.queue;
    queue.record(record(1, 10), at(0)).await.unwrap();
    queue.record(record(1, 20), at(1)).await.unwrap();
    let job = queue.get(&name("acme", 1)).await.unwrap().unwrap();
    assert_eq!((job.kind, job.usage.output_tokens), (Kind::Ingested, 20));
    assert_eq!(scene.lease().await, None);
    let ours = scene.leased(name("acme", 2)).await.grant;
    let found = RecordedRun { kind: RecordKind::Run, ..record(3, 1) };
    queue.record(found.clone(), at(2)).await.unwrap();
    for known in [record(2, 1), found.clone(), record(3, 9)] {
        let name = known.name.clone();
        let taken = queue.record(known, at(3)).await.unwrap_err();
        assert!(matches!(taken, QueueError::IdTaken(of) if of == name));
    }
    assert_eq!(queue.get(&ours.name).await.unwrap().unwrap().status, Status::Leased);
    assert_eq!(queue.get(&found.name).await.unwrap().unwrap().usage.output_tokens, 1);
}

#[tokio::test]
async fn lists_are_newest_first_and_filters_and_pages_hold() {
    let scene = Scene::new().await;
    let queue = &scene.queue;
    for n in 1..=5 {
        let routine = (n == 2).then(|| "nightly".to_owned());
        let new = NewJob { triggered_by_routine: routine, ..job(name("acme", n)) };
        queue.submit(new, at(i64::from(n))).await.unwrap();
    }
    queue.submit(job(name("other", 6)), at(6)).await.unwrap();
    queue.cancel(&name("acme", 4), at(7)).await.unwrap();
    queue.record(record(8, 1), at(8)).await.unwrap();
    let all = ListFilter { collection: slug("acme"), task: None, statuses: vec![], routine: None };
    let list = async |filter: &ListFilter, number, limit| {
        let (jobs, total) = queue.list(filter, Page { number, limit }).await.unwrap();
        let names: Vec<String> = jobs.iter().map(|j| j.name.id.to_string()).collect();
        (names.iter().map(|n| n.trim_start_matches('0').to_owned()).collect::<String>(), total)
    };
    let expected = |names: &str, total| (names.to_owned(), total);
    assert_eq!(list(&all, 1, 10).await, expected("854321", 6));
    assert_eq!(list(&all, 2, 4).await, expected("21", 6));
    assert_eq!(list(&all, 9, 4).await, expected("", 6));
    let waiting = ListFilter { statuses: vec![Status::Queued, Status::Leased], ..all.clone() };
    assert_eq!(list(&waiting, 1, 10).await, expected("5321", 4));
    let nightly = ListFilter { routine: Some("nightly".to_owned()), ..all.clone() };
    assert_eq!(list(&nightly, 1, 10).await, expected("2", 1));
    let elsewhere = ListFilter { task: Some(slug("nothing")), ..all };
    assert_eq!(list(&elsewhere, 1, 10).await, expected("", 0));
}

#[tokio::test]
async fn a_workflow_id_finds_every_run_that_it_can_mean() {
    let scene = Scene::new().await;
    let one = RunName { collection: slug("a-b"), task: slug("c"), ..name("x", 1) };
    let two = RunName { collection: slug("a"), task: slug("b-c"), ..name("x", 1) };
    scene.queue.submit(job(one.clone()), at(0)).await.unwrap();
    scene.queue.submit(job(two.clone()), at(1)).await.unwrap();
    let found = scene.queue.find_by_workflow_id("a-b-c--00000001").await.unwrap();
    assert_eq!(found, [two, one]);
    assert_eq!(scene.queue.find_by_workflow_id("a-b-c").await.unwrap(), []);
}

#[tokio::test]
async fn sums_tell_what_is_known_and_how_much_is_not() {
    let scene = Scene::new().await;
    let queue = &scene.queue;
    for n in 1..=20 {
        queue.record(record(n, 100), at(0)).await.unwrap();
    }
    let grant = scene.leased(name("acme", 30)).await.grant;
    queue.finish(&grant, &finish(Ended::Failed, 0), at(2)).await.unwrap();
    queue.submit(job(name("acme", 31)), at(3)).await.unwrap();
    let expected = Stats {
        by_status: BTreeMap::from([
            (Status::Queued, 1),
            (Status::Completed, 20),
            (Status::Failed, 1),
        ]),
        output_tokens: 2000,
        cost_micros: 140,
        n_unknown_costs: 1,
        durations: Some(Durations { n: 20, p50_ms: 10, p95_ms: 19 }),
        ..Stats::default()
    };
    assert_eq!(queue.stats(&slug("acme"), None).await.unwrap(), expected);
    assert_eq!(queue.stats(&slug("acme"), Some(&slug("task"))).await.unwrap(), expected);
    assert_eq!(queue.stats(&slug("other"), None).await.unwrap(), Stats::default());
}

#[tokio::test]
async fn the_depth_tells_what_waits_and_for_how_long() {
    let scene = Scene::new().await;
    let queue = &scene.queue;
    assert_eq!(queue.depth(at(0)).await.unwrap(), Depth::default());
    queue.submit(job(name("acme", 1)), at(0)).await.unwrap();
    queue.submit(job(name("acme", 2)), at(500)).await.unwrap();
    let later = NewJob { run_at: Some(at(9000)), ..job(name("acme", 3)) };
    queue.submit(later, at(600)).await.unwrap();
    assert_eq!(
        queue.depth(at(2000)).await.unwrap(),
        Depth {
            due: 2,
            later: 1,
            oldest: Some(Duration::from_secs(2)),
            by_status: BTreeMap::from([(Status::Queued, 3)]),
        }
    );
}

#[tokio::test]
async fn workers_are_known_by_what_they_said_last() {
    let scene = Scene::new().await;
    let queue = &scene.queue;
    let introduced = |session, slots| Worker {
        id: worker(1),
        session: Uuid::from_u128(session),
        slots,
        version: "1.0".to_owned(),
    };
    queue.register(&introduced(1, 2), at(0)).await.unwrap();
    queue.register(&introduced(2, 4), at(10)).await.unwrap();
    queue.heartbeat(&worker(1), &[], at(20)).await.unwrap();
    assert_eq!(
        queue.workers().await.unwrap(),
        [WorkerSeen { worker: introduced(2, 4), started: at(10), last_seen: at(20) }]
    );
}

#[tokio::test]
async fn a_write_that_is_dropped_halfway_changes_nothing_and_blocks_nobody() {
    let scene = Scene::new().await;
    for n in 0..50 {
        let mut tx = scene.queue.write().await.unwrap();
        sqlx::query("DELETE FROM jobs").execute(&mut *tx).await.unwrap();
        drop(tx);
        scene.queue.submit(job(name("acme", n)), at(0)).await.unwrap();
    }
    assert_eq!(scene.queue.depth(at(0)).await.unwrap().due, 50);
}

#[tokio::test]
async fn a_full_disk_refuses_loudly_keeps_what_was_acknowledged_and_is_survived() {
    let scene = Scene::new().await;
    let queue = &scene.queue;
    let big = |n| NewJob { spec: "x".repeat(50_000), ..job(name("acme", n)) };
    // SQLite's own limit stands in for the disk's: the error is the same. It holds for one
    // connection, so it goes away with the one that failed.
    scene.say("PRAGMA max_page_count = 100").await;
    let mut n_kept = 0;
    let refused = loop {
        match queue.submit(big(n_kept), at(0)).await {
            Ok(_) => n_kept += 1,
            Err(error) => break error,
        }
    };
    assert!(crate::run::error_chain(&refused).contains("full"), "{refused:?}");
    assert!(n_kept > 1);
    let grant = scene.lease().await.unwrap().grant;
    queue.finish(&grant, &finish(Ended::Failed, 0), at(1)).await.unwrap();
    assert_eq!(queue.submit(big(n_kept), at(2)).await.unwrap(), Submitted::New);
    assert_eq!(queue.depth(at(2)).await.unwrap().due, u64::from(n_kept));
}
