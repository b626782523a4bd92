//! Webhooks: told once where they arrive, and tried for as long as they should be.

use std::collections::BTreeSet;

use super::*;
use crate::run::{RunId, RunName};
use crate::secret::Secret;

fn run(n: u32) -> RunName {
    let id = RunId::new(&format!("{n:08x}")).unwrap();
    RunName { collection: team(), task: Slug::new("Report").unwrap(), id }
}

fn new(n: u32) -> NewDelivery {
    NewDelivery {
        run: run(n),
        url: "https://example.com/hook".to_owned(),
        secret: Some(Secret::new("made-up-secret".to_owned())),
        body: format!("{{\"run\":{n}}}"),
    }
}

fn failed() -> DeliveryOutcome {
    DeliveryOutcome::Failed { error: "the receiver answered 500".to_owned() }
}

#[tokio::test]
async fn a_run_is_told_of_once_and_with_its_secret() {
    let scene = Scene::with_task().await;
    scene.catalog.enqueue_delivery(&new(1), at(0)).await.unwrap();
    let again = NewDelivery { body: "other".to_owned(), ..new(1) };
    scene.catalog.enqueue_delivery(&again, at(0)).await.unwrap();
    let scene = scene.restart().await;
    let catalog = &scene.catalog;
    let delivery = catalog.claim_delivery(at(0)).await.unwrap().unwrap();
    assert_eq!(delivery.run, run(1));
    assert_eq!(delivery.url, "https://example.com/hook");
    assert_eq!(delivery.secret.as_ref().map(Secret::expose), Some("made-up-secret"));
    assert_eq!(delivery.body, "{\"run\":1}");
    assert_eq!(delivery.attempt, 1);
    assert!(catalog.claim_delivery(at(0)).await.unwrap().is_none(), "it is somebody's");
    let told = catalog.finish_delivery(&delivery, DeliveryOutcome::Delivered, at(1)).await;
    assert!(told.unwrap());
    assert_eq!(catalog.delivery_state(&run(1)).await.unwrap(), DeliveryState::Delivered);
    assert!(catalog.claim_delivery(at(9_999_999)).await.unwrap().is_none());
    assert_eq!(catalog.next_delivery().await.unwrap(), None);
}

#[tokio::test]
async fn a_failing_receiver_is_tried_at_growing_intervals_and_then_given_up() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    catalog.enqueue_delivery(&new(1), at(0)).await.unwrap();
    let mut now = 0;
    for wait in RETRY_AFTER {
        let delivery = catalog.claim_delivery(at(now)).await.unwrap().unwrap();
        assert!(catalog.finish_delivery(&delivery, failed(), at(now)).await.unwrap());
        let next = now + i64::try_from(wait.as_secs()).unwrap();
        assert_eq!(
            catalog.delivery_state(&run(1)).await.unwrap(),
            DeliveryState::Waiting { next: at(next) }
        );
        assert_eq!(catalog.next_delivery().await.unwrap(), Some(at(next)));
        assert!(catalog.claim_delivery(at(next - 1)).await.unwrap().is_none());
        now = next;
    }
    let last = catalog.claim_delivery(at(now)).await.unwrap().unwrap();
    assert_eq!(last.attempt, 7);
    assert!(catalog.finish_delivery(&last, failed(), at(now)).await.unwrap());
    let error = "the receiver answered 500".to_owned();
    assert_eq!(catalog.delivery_state(&run(1)).await.unwrap(), DeliveryState::Failed { error });
}

#[tokio::test]
async fn what_can_never_arrive_is_not_tried_again() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    catalog.enqueue_delivery(&new(1), at(0)).await.unwrap();
    let delivery = catalog.claim_delivery(at(0)).await.unwrap().unwrap();
    let refused = DeliveryOutcome::Refused { error: "x".repeat(10_000) };
    assert!(catalog.finish_delivery(&delivery, refused, at(0)).await.unwrap());
    let error = "x".repeat(500);
    assert_eq!(catalog.delivery_state(&run(1)).await.unwrap(), DeliveryState::Failed { error });
    assert_eq!(catalog.prune_deliveries(at(0)).await.unwrap(), 0);
    assert_eq!(catalog.prune_deliveries(at(1)).await.unwrap(), 1);
    assert!(matches!(
        catalog.delivery_state(&run(1)).await,
        Err(CatalogError::NotFound { what: Kind::Delivery, .. })
    ));
}

#[tokio::test]
async fn a_sender_that_is_silent_loses_its_delivery_and_its_word() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    catalog.enqueue_delivery(&new(1), at(0)).await.unwrap();
    let first = catalog.claim_delivery(at(0)).await.unwrap().unwrap();
    assert!(catalog.claim_delivery(at(119)).await.unwrap().is_none());
    let second = catalog.claim_delivery(at(120)).await.unwrap().unwrap();
    assert_eq!(second.attempt, 2);
    let late = catalog.finish_delivery(&first, failed(), at(121)).await;
    assert!(!late.unwrap(), "the first sender's word is void");
    let told = catalog.finish_delivery(&second, DeliveryOutcome::Delivered, at(121)).await;
    assert!(told.unwrap());
}

#[tokio::test]
async fn senders_that_die_every_time_do_not_keep_it_for_ever() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    catalog.enqueue_delivery(&new(1), at(0)).await.unwrap();
    let mut n_claims = 0;
    while catalog.claim_delivery(at(n_claims * 120)).await.unwrap().is_some() {
        n_claims += 1;
    }
    assert_eq!(n_claims, 7);
    let error = "the sender ended during the last attempt".to_owned();
    assert_eq!(catalog.delivery_state(&run(1)).await.unwrap(), DeliveryState::Failed { error });
}

#[tokio::test]
async fn many_senders_share_the_outbox_without_doubles() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    for n in 0..20 {
        catalog.enqueue_delivery(&new(n), at(0)).await.unwrap();
    }
    let claimed =
        futures_util::future::join_all((0..25).map(|_| catalog.claim_delivery(at(1)))).await;
    let claimed: Vec<RunName> =
        claimed.into_iter().filter_map(Result::unwrap).map(|delivery| delivery.run).collect();
    assert_eq!(claimed.len(), 20);
    assert_eq!(claimed.iter().collect::<BTreeSet<_>>().len(), 20);
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_without_repeating_the_address() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    for url in
        ["", "example.com/hook", "ftp://example.com/made-up-token", "https://", "file:///etc"]
    {
        let error = said(
            catalog.enqueue_delivery(&NewDelivery { url: url.to_owned(), ..new(1) }, at(0)).await,
        );
        assert!(error.starts_with("`webhook_url` is not usable"), "{error}");
        assert!(!error.contains("made-up-token"));
    }
    let long = NewDelivery { body: "x".repeat((1 << 20) + 1), ..new(1) };
    assert!(said(catalog.enqueue_delivery(&long, at(0)).await).contains("1048576 is the most"));
}
