//! Runs of several steps.

use std::time::Duration;

use super::*;

impl Scene {
    async fn lease_at(&self, ms: i64) -> Option<Leased> {
        self.queue.lease(&worker(1), Uuid::new_v4(), &limits(100), at(ms)).await.unwrap()
    }

    /// Starts the agent of a leased step at a moment, ends it, and passes the run on.
    async fn step(&self, grant: &Grant, from: u64, ms: i64) -> PassedOn {
        self.queue.started(grant, at(ms)).await.unwrap();
        self.queue.advance(grant, 0, 9, at(ms)).await.unwrap();
        self.queue.finishing(grant, "{}", at(ms)).await.unwrap();
        self.queue.pass_on(grant, &next(from), at(ms)).await.unwrap()
    }
}

fn next(from: u64) -> NextStep {
    let usage = JobUsage { output_tokens: from + 1, ..JobUsage::default() };
    NextStep { from, total_bytes: 9, usage, took: Duration::from_millis(7) }
}

#[tokio::test]
async fn each_step_has_a_lease_of_its_own_and_the_run_counts_them_all() {
    let scene = Scene::new().await;
    let queue = &scene.queue;
    let first = scene.leased(name("acme", 1)).await;
    let retried = queue.retry(&first.grant, at(0), "again", at(0)).await.unwrap();
    assert_eq!(retried, Requeued::Queued);
    let first = scene.lease_at(0).await.unwrap();
    // Submitted later, and only then another's turn.
    queue.submit(job(name("acme", 2)), at(5)).await.unwrap();
    assert_eq!(scene.step(&first.grant, 0, 10).await, PassedOn::Queued);
    let between = queue.get(&first.grant.name).await.unwrap().unwrap();
    assert_eq!((between.status, between.standing()), (Status::Queued, Status::Running));
    assert_eq!((between.step, between.retries, between.reason), (1, 0, None));
    let second = scene.lease_at(20).await.unwrap();
    let usage = JobUsage { output_tokens: 1, ..JobUsage::default() };
    let expected = Leased {
        grant: Grant { name: name("acme", 1), attempt: 3, fence: 3 },
        step: 1,
        used: usage,
        took: Duration::from_millis(7),
        ..first.clone()
    };
    assert_eq!(second, expected);
    assert_eq!(scene.step(&second.grant, 1, 30).await, PassedOn::Queued);
    let third = scene.lease_at(40).await.unwrap();
    queue.started(&third.grant, at(50)).await.unwrap();
    queue.finish(&third.grant, &finish(Ended::Completed, 0), at(60)).await.unwrap();
    let ended = queue.get(&first.grant.name).await.unwrap().unwrap();
    assert_eq!((ended.started, ended.finished, ended.step), (Some(at(10)), Some(at(60)), 2));
    assert_eq!(scene.lease_at(70).await.unwrap().grant.name, name("acme", 2));
}

#[tokio::test]
async fn a_step_is_passed_on_once_however_often_it_is_said() {
    let scene = Scene::new().await;
    let queue = &scene.queue;
    let first = scene.leased(name("acme", 1)).await.grant;
    scene.step(&first, 0, 0).await;
    assert_eq!(queue.pass_on(&first, &next(0), at(0)).await.unwrap(), PassedOn::Queued);
    assert_eq!(queue.get(&first.name).await.unwrap().unwrap().step, 1);
    let second = scene.lease().await.unwrap().grant;
    let lost = queue.pass_on(&first, &next(0), at(0)).await;
    assert!(matches!(lost, Err(QueueError::Lost)), "{lost:?}");
    let early = queue.pass_on(&second, &next(1), at(0)).await;
    assert!(matches!(early, Err(QueueError::Lost)), "{early:?}");
}

#[tokio::test]
async fn a_run_that_is_to_be_stopped_is_not_passed_on() {
    let scene = Scene::new().await;
    let queue = &scene.queue;
    let first = scene.leased(name("acme", 1)).await.grant;
    queue.cancel(&first.name, at(0)).await.unwrap();
    assert_eq!(scene.step(&first, 0, 0).await, PassedOn::ToBeCancelled);
    queue.finish(&first, &finish(Ended::Cancelled, 9), at(0)).await.unwrap();
    // Between two steps nobody has it.
    let second = scene.leased(name("acme", 2)).await.grant;
    scene.step(&second, 0, 0).await;
    assert_eq!(queue.cancel(&second.name, at(0)).await.unwrap(), Cancelled::AtOnce);
    assert_eq!(queue.pass_on(&second, &next(0), at(0)).await.unwrap(), PassedOn::Queued);
    assert_eq!(scene.lease().await, None);
}

#[tokio::test]
async fn lists_and_sums_show_a_run_between_two_steps_as_one_that_goes_on() {
    let scene = Scene::new().await;
    let queue = &scene.queue;
    let first = scene.leased(name("acme", 1)).await.grant;
    scene.step(&first, 0, 0).await;
    queue.submit(job(name("acme", 2)), at(0)).await.unwrap();
    let page = Page { number: 1, limit: 9 };
    for (statuses, expected) in [
        (vec![Status::Queued, Status::Leased], name("acme", 2)),
        (vec![Status::Running, Status::Finishing], name("acme", 1)),
    ] {
        let (task, routine) = (None, None);
        let filter = ListFilter { collection: slug("acme"), task, statuses, routine };
        let (jobs, total) = queue.list(&filter, page).await.unwrap();
        let names: Vec<RunName> = jobs.into_iter().map(|job| job.name).collect();
        assert_eq!((names, total), (vec![expected], 1));
    }
    let stats = queue.stats(&slug("acme"), None).await.unwrap();
    assert_eq!(stats.by_status, [(Status::Queued, 1), (Status::Running, 1)].into());
    assert_eq!((stats.output_tokens, stats.durations), (1, None));
}
