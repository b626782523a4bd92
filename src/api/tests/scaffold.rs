//! What holds for every path.

use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use super::support::Bench;

#[tokio::test]
async fn slashes_do_not_matter_and_nothing_is_redirected() {
    let bench = Bench::new().await;
    for path in ["/api/v1/health", "//api/v1/health", "/api/v1/health/", "///api/v1/health//"] {
        let answer = bench.get(path).await;
        assert_eq!((answer.status, answer.json()), (200, json!({ "status": "healthy" })), "{path}");
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
    let page = bench.get("/docs/").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("swagger-ui"), "{page:?}");
    assert!(!page.text.contains("https://"), "no other host is asked: {page:?}");
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
        (503, json!({ "detail": "not ready: the server is stopping; no sandbox engine is ready" }))
    );
    assert_eq!(bench.get("/healthz").await.status, 200);
}
