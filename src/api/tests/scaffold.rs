//! What holds for every path.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use super::support::Bench;
use crate::api::error::{Envelope, finish, panicked};

#[tokio::test]
async fn slashes_do_not_matter_and_nothing_is_redirected() {
    let bench = Bench::new().await;
    for path in ["/api/v1/health", "//api/v1/health", "/api/v1/health/", "///api/v1/health//"] {
        let answer = bench.get(path).await;
        assert_eq!((answer.status, answer.json()), (200, json!({ "status": "healthy" })), "{path}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_of_a_request_is_named_as_json() {
    let bench = Bench::new().await;
    let missing = bench.ask(&bench.team, "GET", "/api/v1/list-files", "").await;
    let problem = json!({ "loc": ["query", "prefix"], "msg": "Field required", "type": "missing" });
    assert_eq!((missing.status, missing.json()), (422, json!({ "detail": [problem] })));
    for path in ["/api/v1/files", "/api/v1/sandbox/upload"] {
        let formless = bench.ask(&bench.team, "POST", path, "").await;
        assert_eq!(formless.status, 400);
        let detail = formless.json()["detail"].to_string();
        assert!(detail.contains("the form cannot be read"), "{path}: {detail}");
    }
}

#[tokio::test]
async fn an_unknown_path_is_told_what_there_is() {
    let bench = Bench::new().await;
    let answer = bench.get("/api/v1/health/deep").await;
    assert_eq!(answer.status, 404);
    assert_eq!(
        answer.json(),
        json!({ "detail": "There is no GET /api/v1/health/deep: there are GET /api/v1/health; \
                           `GET /openapi.json` lists everything" })
    );
    let answer = bench.get("/api/v1/storage/x").await;
    assert!(answer.text.contains("below /api/v1/ there are"), "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test]
async fn an_unknown_path_of_openai_has_its_envelope() {
    let answer = Bench::new().await.get("/v1/engines").await;
    assert_eq!(answer.status, 404);
    let error = &answer.json()["error"];
    assert_eq!(error["type"], "invalid_request_error");
    assert!(error["message"].as_str().unwrap().starts_with("There is no GET /v1/engines"));
}

#[tokio::test]
async fn a_method_that_is_not_there_names_those_that_are() {
    let bench = Bench::new().await;
    let request = Request::delete("/api/v1/health").body(Body::empty()).unwrap();
    let answer = bench.send(request).await;
    assert_eq!((answer.status, answer.header("allow")), (405, "GET"));
    assert_eq!(
        answer.json(),
        json!({ "detail": "There is no DELETE /api/v1/health: use GET; `GET /openapi.json` \
                           lists everything" })
    );
}

#[tokio::test]
async fn a_request_keeps_a_harmless_id_and_gets_one_otherwise() {
    let bench = Bench::new().await;
    let with = |id: &str| {
        Request::get("/api/v1/health").header("x-request-id", id).body(Body::empty()).unwrap()
    };
    assert_eq!(bench.send(with("ci-42.a")).await.header("x-request-id"), "ci-42.a");
    for odd in ["a b", "", &"x".repeat(65)] {
        let given = bench.send(with(odd)).await;
        assert_eq!(given.header("x-request-id").len(), 32, "{odd:?}");
    }
}

#[tokio::test]
async fn the_pages_and_the_description_come_from_this_program() {
    let bench = Bench::new().await;
    let document = bench.get("/openapi.json").await;
    assert_eq!(document.header("content-type"), "application/json");
    assert_eq!(document.json()["info"]["title"], "runbookd");
    assert!(document.json()["paths"]["/api/v1/health"]["get"].is_object());
    let mut ids: Vec<String> = Vec::new();
    for item in document.json()["paths"].as_object().unwrap().values() {
        let operations = item.as_object().unwrap().values();
        ids.extend(operations.map(|it| it["operationId"].as_str().unwrap().to_owned()));
    }
    let n_operations = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), n_operations, "every operation has an id of its own: {ids:#?}");
    let page = bench.get("/docs/").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("swagger-ui"), "{page:?}");
    assert!(!page.text.contains("https://"), "no other host is asked: {page:?}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_the_limit() {
    let bench = Bench::new().await;
    let body = format!(r#"{{"name": "{}"}}"#, "x".repeat(64 << 10));
    let answer = bench.ask(&bench.admin, "POST", "/api/v1/collections", &body).await;
    assert_eq!(
        (answer.status, answer.json()),
        (413, json!({ "detail": "The request's body is larger than 65536 bytes" }))
    );
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_given_up() {
    let mut bench = Bench::new().await;
    Arc::get_mut(&mut bench.api).unwrap().settings.answer_limit = Duration::ZERO;
    // A body that never comes.
    let body = futures_util::stream::pending::<Result<axum::body::Bytes, std::io::Error>>();
    let request = Request::post("/api/v1/collections")
        .header("authorization", format!("Bearer {}", bench.admin.expose()))
        .body(Body::from_stream(body));
    let answer = bench.send(request.unwrap()).await;
    assert_eq!(
        (answer.status, answer.json()),
        (504, json!({ "detail": "The answer took longer than 0 s and was given up; ask again" }))
    );
}

#[test]
fn a_panic_becomes_an_answer_that_does_not_repeat_it() {
    let response = panicked(Box::new("the made-up secret"));
    let response = finish(response, Envelope::OpenAi, "r1");
    assert_eq!(response.status().as_u16(), 500);
    let body = json!({ "error": {
        "message": "Internal error. The server's log has the reason (request r1).",
        "type": "server_error", "param": null, "code": null,
    } });
    let read =
        futures_util::FutureExt::now_or_never(axum::body::to_bytes(response.into_body(), 4096));
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&read.unwrap().unwrap()).unwrap(), body);
}

#[tokio::test]
async fn readiness_says_everything_that_is_missing() {
    let bench = Bench::new().await;
    assert_eq!(bench.get("/readyz").await.json(), json!({ "status": "ready" }));
    bench.api.readiness.engine_is(false);
    bench.api.readiness.drain();
    let answer = bench.get("/readyz").await;
    assert_eq!(
        (answer.status, answer.json()),
        (503, json!({ "detail": "Not ready: the server is stopping; no sandbox engine is ready" }))
    );
    assert_eq!(bench.get("/healthz").await.status, 200);
}
