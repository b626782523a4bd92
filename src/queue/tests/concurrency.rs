//! Many at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_run_is_leased_twice_however_many_ask_at_once() {
    let scene = Scene::new().await;
    for n in 0..120 {
        scene.queue.submit(job(name("acme", n)), at(0)).await.unwrap();
    }
    let mut workers = JoinSet::new();
    for n in 0..8 {
        let queue = scene.queue.clone();
        workers.spawn(async move {
            let mut got = Vec::new();
            while let Some(leased) =
                queue.lease(&worker(n), Uuid::new_v4(), &limits(1000), at(1)).await.unwrap()
            {
                got.push(leased.grant.name);
            }
            got
        });
    }
    let got: Vec<RunName> = workers.join_all().await.into_iter().flatten().collect();
    assert_eq!(got.len(), 120);
    assert_eq!(got.iter().collect::<BTreeSet<_>>().len(), 120);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_collection_never_has_more_runs_at_work_than_it_may() {
    let scene = Scene::new().await;
    for n in 0..40 {
        scene.queue.submit(job(name("acme", n)), at(0)).await.unwrap();
    }
    let n_live = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for n in 0..6 {
        let (queue, n_live) = (scene.queue.clone(), Arc::clone(&n_live));
        workers.spawn(async move {
            let mut n_done = 0;
            for _ in 0..40 {
                let leased =
                    queue.lease(&worker(n), Uuid::new_v4(), &limits(2), at(1)).await.unwrap();
                let Some(leased) = leased else {
                    tokio::task::yield_now().await;
                    continue;
                };
                assert!(n_live.fetch_add(1, Ordering::SeqCst) < 2);
                // Counted down before the queue knows, so that the count is never too high.
                n_live.fetch_sub(1, Ordering::SeqCst);
                queue.finish(&leased.grant, &finish(Ended::Completed, 0), at(2)).await.unwrap();
                n_done += 1;
            }
            n_done
        });
    }
    assert!(workers.join_all().await.into_iter().sum::<u32>() > 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_request_sent_many_times_at_once_makes_one_run() {
    let scene = Scene::new().await;
    let mut clients = JoinSet::new();
    for n in 0..16 {
        let queue = scene.queue.clone();
        let idempotency =
            Some(Idempotency { key: "key".to_owned(), fingerprint: "the request".to_owned() });
        let new = NewJob { idempotency, ..job(name("acme", n)) };
        clients.spawn(async move { (n, queue.submit(new, at(0)).await.unwrap()) });
    }
    let answers = clients.join_all().await;
    let made: Vec<u32> =
        answers.iter().filter(|(_, a)| *a == Submitted::New).map(|(n, _)| *n).collect();
    assert_eq!(made.len(), 1);
    let repeated = Submitted::Repeated(name("acme", made[0]));
    assert!(answers.iter().all(|(n, answer)| *n == made[0] || *answer == repeated));
}
