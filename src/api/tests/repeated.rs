//! Requests that are sent again with their `Idempotency-Key`.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use super::runs::{Part, form_request, form_text, name, runnable, text, with_task};
use super::support::{Answer, Bench, new_year};

/// Sends with a key.
async fn send(bench: &Bench, path: &str, key: &str, body: &str) -> Answer {
    let request = Request::post(path)
        .header("authorization", format!("Bearer {}", bench.team.expose()))
        .header("content-type", "application/json")
        .header("idempotency-key", key)
        .body(Body::from(body.to_owned()));
    bench.send(request.unwrap()).await
}

async fn send_files(bench: &Bench, key: &str, parts: &[Part<'_>]) -> Answer {
    let body = Body::from(form_text(parts));
    let mut request = form_request(&bench.team, "/api/v1/run/team/hello", body);
    request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    bench.send(request).await
}

async fn n_runs(bench: &Bench) -> u64 {
    bench.api.queue.depth(new_year()).await.unwrap().due
}

fn ids(answers: [&Answer; 2]) -> [String; 2] {
    answers.map(|answer| {
        assert_eq!(answer.status, 200, "{answer:?}");
        text(&answer.json(), "trajectory_id").to_owned()
    })
}

#[tokio::test]
async fn the_same_request_with_the_same_key_makes_one_run() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    let path = "/api/v1/run/team/hello";
    let first = send(&bench, path, "k1", r#"{"init_params": {"vars": {"word": "a"}}}"#).await;
    let again =
        send(&bench, path, "k1", r#"{"init_params": "{\"vars\": {\"word\": \"a\"}}"}"#).await;
    let [first, again] = ids([&first, &again]);
    assert_eq!(first, again);
    let other = send(&bench, path, "k1", r#"{"init_params": {"vars": {"word": "b"}}}"#).await;
    assert_eq!(other.status, 409);
    assert!(other.text.contains("the Idempotency-Key was used for another request"), "{other:?}");
    // A wait for the same run is the same request.
    super::runs::finish_one(&bench).await;
    let sync = "/api/v1/run-sync/team/hello";
    let waited = send(&bench, sync, "k1", r#"{"init_params": {"vars": {"word": "a"}}}"#).await;
    assert_eq!(text(&waited.json(), "trajectory_id"), first);
    assert_eq!(send(&bench, sync, "k1", "{}").await.status, 409);
    assert_eq!(send(&bench, path, &"k".repeat(256), "{}").await.status, 400);
    assert_eq!(n_runs(&bench).await, 0);
}

#[tokio::test]
async fn files_that_are_sent_again_are_neither_unpacked_nor_kept_again() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    let parts: [Part<'_>; 1] = [("files", Some("a.txt"), b"one")];
    let first = send_files(&bench, "k1", &parts).await;
    let before = bench.ask(&bench.team, "GET", "/api/v1/list-files?prefix=team", "").await.text;
    // What was given once need not be there for the request to be known again, nor fit any more.
    let task = "/api/v1/tasks/team/hello";
    assert_eq!(bench.ask(&bench.team, "DELETE", task, "").await.status, 200);
    let again = send_files(&bench, "k1", &parts).await;
    let [first, again] = ids([&first, &again]);
    assert_eq!(first, again);
    bench.api.runs.intake.end().await;
    let after = bench.ask(&bench.team, "GET", "/api/v1/list-files?prefix=team", "").await.text;
    assert_eq!(before, after);
    let other: [Part<'_>; 1] = [("files", Some("a.txt"), b"other")];
    assert_eq!(send_files(&bench, "k1", &other).await.status, 409);
    let after = bench.ask(&bench.team, "GET", "/api/v1/list-files?prefix=team", "").await.text;
    assert_eq!(before, after);
}

#[tokio::test]
async fn a_routine_that_is_run_by_hand_twice_with_one_key_runs_once() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    for name in ["one", "two"] {
        let body = json!({"name": name, "cadence": {"type": "manual"}}).to_string();
        let made = bench.ask(&bench.team, "POST", "/api/v1/routines/team/hello", &body).await;
        assert_eq!(made.status, 200, "{made:?}");
    }
    let path = |name| format!("/api/v1/routines/team/hello/{name}/run-now");
    let first = send(&bench, &path("one"), "k1", "").await;
    let again = send(&bench, &path("one"), "k1", "").await;
    let [first, again] = ids([&first, &again]);
    assert_eq!(first, again);
    assert_eq!(send(&bench, &path("two"), "k1", "").await.status, 409);
    assert_eq!(n_runs(&bench).await, 1);
}

#[tokio::test]
async fn a_record_that_is_handed_in_twice_with_one_key_is_one_record() {
    let bench = Bench::new().await;
    let path = "/api/v1/trajectories/team/hello/ingest";
    let body = r#"{"input": 1, "output": {"b": 2}, "scores": {"fit": 1}}"#;
    let first = send(&bench, path, "k1", body).await;
    let [id, _] = ids([&first, &first]);
    // A crash between the index and the folder: the repeated request makes up for it.
    let document = bench.api.store.run(&name(&id)).unwrap();
    let document = document.document(crate::store::Document::Trajectory);
    let before = std::fs::read(&document).unwrap();
    std::fs::remove_file(&document).unwrap();
    for _ in 0..2 {
        let again = send(&bench, path, "k1", body).await;
        assert_eq!((again.status, again.json()), (200, first.json()));
        assert_eq!(std::fs::read(&document).unwrap(), before);
    }
    assert_eq!(send(&bench, path, "k1", r#"{"input": 2}"#).await.status, 409);
    let list = bench.ask(&bench.team, "GET", "/api/v1/db/trajectories/team/hello", "").await;
    assert_eq!(list.json()["total"], Value::from(1));
}
