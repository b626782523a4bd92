//! One rule each.

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
            stage: Stage::Fresh,
            cancel_requested: false,
            created: at(0),
        }
    );
    queue.started(&grant, at(10)).await.unwrap();
    queue.advance(&grant, 0, 100, at(20)).await.unwrap();
    queue.finishing(&grant, "{}", at(30)).await.unwrap();
    let usage = JobUsage {
        input_tokens: 3,
        output_tokens: 4,
        cost: Cost::Estimated(5),
        ..Default::default()
    };
    let finish = Finish { usage, ..finish(Ended::Completed, 100) };
    queue.finish(&grant, &finish, at(40)).await.unwrap();
    let job = queue.get(&grant.name).await.unwrap().unwrap();
    assert_eq!(
        (job.status, job.usage, job.started, job.finished, job.exit_code),
        (Status::Completed, usage, Some(at(10)), Some(at(40)), Some(0))
    );
    let sealed: Option<String> = sqlx::query_scalar("SELECT sealed FROM jobs")
        .fetch_one(queue.database.readers())
        .await
        .unwrap();
    assert_eq!(sealed, None);
}
