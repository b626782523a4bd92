//! Who is let in, and what the others are told.

use axum::body::Body;
use axum::http::Request;
use expect_test::expect;
use serde_json::json;

use super::support::{Bench, TEAM};
use crate::api::{ConnectionLimits, OperatorDoor, operator_router, serve};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn whoever_has_no_good_token_is_told_which_kind_of_no() {
    let bench = Bench::new().await;
    let unknown = format!("Bearer mlc_{}", "a1".repeat(16));
    let good = format!("bearer  {}", bench.team.expose());
    let mut told = String::new();
    for header in
        ["", "Bearer", "Bearer mlc_short", &unknown, "Bearer eyJhbGciOi", "Basic YTpi", &good]
    {
        let mut request = Request::get("/api/v1/auth/whoami");
        if !header.is_empty() {
            request = request.header("authorization", header);
        }
        let answer = bench.send(request.body(Body::empty()).unwrap()).await;
        let challenge = answer.header("www-authenticate");
        assert_eq!(challenge, if answer.status == 401 { "Bearer" } else { "" });
        told.push_str(&format!("{} {}\n", answer.status, answer.text));
    }
    expect![[r#"
        401 {"detail":"Invalid API key or JWT token"}
        401 {"detail":"Invalid API key or JWT token"}
        401 {"detail":"Invalid API key format"}
        401 {"detail":"Invalid or inactive API key"}
        401 {"detail":"Invalid API key or JWT token"}
        401 {"detail":"Invalid API key or JWT token"}
        200 {"type":"api_key","name":"made up","scope":"collection","collection_name":"team"}
    "#]]
    .assert_eq(&told);
}

#[tokio::test]
async fn a_token_that_was_switched_off_opens_nothing() {
    let bench = Bench::new().await;
    let keys = bench.ask(&bench.admin, "GET", "/api/v1/api-keys/collection/team", "").await.json();
    let path = format!("/api/v1/api-keys/{}", keys[0]["id"]);
    let off = bench.ask(&bench.admin, "PUT", &path, r#"{"is_active": false}"#).await;
    assert_eq!(off.json()["is_active"], false);
    let answer = bench.ask(&bench.team, "GET", "/api/v1/auth/whoami", "").await;
    assert_eq!(
        (answer.status, answer.json()),
        (401, json!({ "detail": "Invalid or inactive API key" }))
    );
}

#[tokio::test]
async fn while_the_database_is_away_nobody_is_let_in() {
    let bench = Bench::new().await;
    bench.database.close().await.unwrap();
    let answer = bench.ask(&bench.team, "GET", "/api/v1/auth/whoami", "").await;
    assert_eq!(
        (answer.status, answer.json()),
        (503, json!({ "detail": "Authentication service temporarily unavailable" }))
    );
    let ready = bench.get("/readyz").await;
    assert_eq!(
        (ready.status, ready.json()),
        (503, json!({ "detail": "Not ready: the database does not answer" }))
    );
    assert_eq!(bench.get("/api/v1/health").await.status, 200);
}

#[tokio::test]
async fn the_operator_needs_no_token_at_the_socket_and_nobody_can_claim_to_be_it() {
    let bench = Bench::new().await;
    let socket = bench.folder.path().join("operator.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let stop = CancellationToken::new();
    let mut server = tokio::task::JoinSet::new();
    let limits = ConnectionLimits { max: 4, max_per_address: 4 };
    server.spawn(serve(listener, operator_router(bench.api.clone()), limits, stop.clone()));
    for door in [OperatorDoor::Socket(socket), OperatorDoor::Here(bench.api.clone())] {
        let reply = door.ask("GET", "/api/v1/auth/whoami", None).await.unwrap();
        assert!(reply.is_success);
        assert_eq!(
            reply.body,
            json!({ "type": "api_key", "name": "operator", "scope": "admin", "collection_name": null })
        );
        let refused = door.ask("POST", "/api/v1/api-keys", Some(&json!({}))).await.unwrap();
        assert!(!refused.is_success, "{refused:?}");
    }
    stop.cancel();
    server.join_next().await.unwrap().unwrap();
    assert_eq!(bench.get(&format!("/api/v1/collections/{TEAM}")).await.status, 401);
}

#[tokio::test]
async fn figures_are_for_admins_and_count_what_was_asked() {
    let bench = Bench::new().await;
    crate::telemetry::meters::start();
    assert_eq!(bench.ask(&bench.team, "GET", "/metrics", "").await.status, 403);
    let figures = bench.ask(&bench.admin, "GET", "/metrics", "").await;
    assert_eq!(figures.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        r#"runbookd_http_request_seconds_count{method="GET",route="/metrics",status="403"} 1"#,
        r#"runbookd_queue_jobs{status="queued"} 0"#,
        "runbookd_queue_oldest_seconds 0",
    ] {
        assert!(figures.text.contains(line), "{line} is not in\n{}", figures.text);
    }
}
