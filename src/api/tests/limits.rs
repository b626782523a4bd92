//! What a client may send and ask for, and what it is told where it is too much.

use serde_json::{Value, json};

use super::runs::{Part, runnable, send_form, with_task};
use super::support::Bench;

#[tokio::test]
async fn a_form_has_so_many_parts_with_so_long_headers_and_no_more() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    let long = "n".repeat(1 << 20);
    let many: Vec<Part<'_>> = (0..257).map(|_| ("timeout_hint", None, &b"1"[..])).collect();
    let names: Vec<String> = (0..17).map(|n| format!("unknown-{n}")).collect();
    let unknown: Vec<Part<'_>> = names.iter().map(|name| (name.as_str(), None, &b""[..])).collect();
    for (parts, words) in [
        (&[(long.as_str(), None, &b""[..])][..], "the header of one part of the form"),
        (&[("files", Some(long.as_str()), &b""[..])], "the header of one part of the form"),
        (&many, "more than 256 parts"),
        (&unknown, "more than 16 fields that are not known"),
    ] {
        for path in ["/api/v1/run/team/hello", "/api/v1/sandbox/upload"] {
            let answer = send_form(&bench, &bench.team, path, parts).await;
            if path.ends_with("upload") && words.contains("fields") {
                assert_eq!(answer.status, 422, "{answer:?}");
                continue;
            }
            assert_eq!(answer.status, 400, "{answer:?}");
            assert!(answer.text.contains(words), "{path}: {answer:?}");
            assert!(answer.text.len() < 1000, "{answer:?}");
        }
    }
    let long = "n".repeat(9000);
    let answer =
        send_form(&bench, &bench.team, "/api/v1/run/team/hello", &[(&long, None, b"x")]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.json()["notes"][0].as_str().unwrap().len() < 300, "{answer:?}");
}

#[tokio::test]
async fn what_a_record_holds_has_a_size() {
    let mut bench = Bench::new().await;
    std::sync::Arc::get_mut(&mut bench.api).unwrap().settings.max_json_bytes = 16 << 20;
    let path = "/api/v1/trajectories/team/t/ingest";
    let (fits, too_large) = ("x".repeat((1 << 20) - 2), "x".repeat((1 << 20) - 1));
    for (body, status, words) in [
        (json!({"input": fits, "output": fits}), 200, ""),
        (json!({"input": too_large}), 413, "`input` has 1048577 bytes"),
        (json!({"output": too_large}), 413, "`output` has 1048577 bytes"),
        (json!({"metadata": {"a": fits, "b": fits, "c": fits}}), 413, "larger than 3145728 bytes"),
        (json!({"metadata": {"a": vec![0; 100_001]}}), 413, "more than 100000 values"),
    ] {
        let answer = bench.ask(&bench.team, "POST", path, &body.to_string()).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.text.contains(words), "{answer:?}");
    }
    let many = json!({"init_params": {"vars": vec![0; 100_001]}}).to_string();
    with_task(&bench, runnable()).await;
    let answer = bench.ask(&bench.team, "POST", "/api/v1/run/team/hello", &many).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    let many = json!({"vars": vec![0; 100_001]}).to_string();
    let form: [Part<'_>; 1] = [("init_params", None, many.as_bytes())];
    let answer = send_form(&bench, &bench.team, "/api/v1/run/team/hello", &form).await;
    assert_eq!(answer.status, 413, "{answer:?}");
}

#[tokio::test]
async fn a_path_that_takes_little_takes_no_more() {
    let mut bench = Bench::new().await;
    std::sync::Arc::get_mut(&mut bench.api).unwrap().settings.max_json_bytes = 16 << 20;
    let body = json!({"name": "x", "description": "y".repeat(1 << 20)}).to_string();
    let answer = bench.ask(&bench.admin, "POST", "/api/v1/collections", &body).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    assert!(answer.text.contains("larger than 1048576 bytes"), "{answer:?}");
}

#[tokio::test]
async fn a_page_that_would_be_too_large_tells_its_last_runs_in_short() {
    let mut bench = Bench::new().await;
    std::sync::Arc::get_mut(&mut bench.api).unwrap().settings.max_json_bytes = 16 << 20;
    let path = "/api/v1/trajectories/team/t/ingest";
    let text = "x".repeat(1_000_000);
    // Each record tells its input twice.
    for n in 0..12 {
        let body = json!({"trajectory_id": format!("x{n}"), "input": text, "output": text});
        let answer = bench.ask(&bench.team, "POST", path, &body.to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let list = "/api/v1/db/trajectories/team/t?limit=12";
    let request = axum::http::Request::get(list)
        .header("authorization", format!("Bearer {}", bench.team.expose()))
        .body(axum::body::Body::empty());
    let response = tower::ServiceExt::oneshot(bench.router(), request.unwrap()).await.unwrap();
    let bytes = axum::body::to_bytes(response.into_body(), 64 << 20).await.unwrap();
    let page: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(json!([page["total"], page["limit"], page["has_more"]]), json!([12, 12, false]));
    let told: Vec<(bool, bool)> = page["trajectories"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| {
            assert_eq!(run["status"], "completed");
            (run["is_shortened"] == true, run["init_params"]["input"].is_string())
        })
        .collect();
    assert_eq!(told, [[(false, true); 11].as_slice(), &[(true, false)]].concat());
}

#[tokio::test]
async fn a_token_waits_for_so_many_runs_and_no_more() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    let sync = || send_form(&bench, &bench.team, "/api/v1/run-sync/team/hello", &[]);
    let (waits, refused) = (futures_util::future::join3(sync(), sync(), sync()), async {
        while bench.api.queue.depth(super::support::new_year()).await.unwrap().due < 3 {
            tokio::task::yield_now().await;
        }
        let refused = sync().await;
        // The admin has places of its own.
        let path = "/api/v1/run-sync/team/hello";
        let other = send_form(&bench, &bench.admin, path, &[("timeout_hint", None, b"0")]).await;
        assert_eq!(other.json()["status"], "pending");
        for _ in 0..4 {
            super::runs::finish_one(&bench).await;
        }
        refused
    });
    let (waited, refused) = tokio::join!(waits, refused);
    assert_eq!((refused.status, refused.header("retry-after")), (429, "10"), "{refused:?}");
    assert_eq!(waited.0.json()["status"], "completed");
}
