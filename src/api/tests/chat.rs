//! Runbooks by chat, before any agent works: what is kept, what a stream tells, who sees what.

use axum::body::Body;
use axum::http::Request;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::support::{Answer, Bench, new_year};
use crate::queue::{ListFilter, Page};
use crate::run::{RunId, RunName, Slug};
use crate::secret::Secret;

const PATH: &str = "/v1/chat/completions";

/// A request that can be carried out, with these fields beside.
fn request(jetty: Value, more: Value) -> String {
    let runbook = "---\nagent: claude-code\nmodel_provider: anthropic\n---\n# Greet {{name}}\n";
    let mut body = json!({
        "model": "claude-sonnet-4-6",
        "messages": [
            {"role": "system", "content": runbook}, {"role": "user", "content": "Go."},
        ],
        "jetty": {"runbook": true, "task": "greet", "template_variables": {"name": "Ada"}},
    });
    body["jetty"].as_object_mut().unwrap().extend(jetty.as_object().unwrap().clone());
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.to_string()
}

async fn bench() -> Bench {
    let bench = Bench::new().await;
    let key = json!({ "environment_variables": {"ANTHROPIC_API_KEY": "sk-ant-made-up-chat"} });
    let path = "/api/v1/collections/team/environment";
    let set = bench.ask(&bench.team, "PATCH", path, &key.to_string()).await;
    assert_eq!(set.status, 200, "{set:?}");
    bench
}

async fn chat(bench: &Bench, token: &Secret, body: &str) -> Answer {
    bench.ask(token, "POST", PATH, body).await
}

async fn n_runs(bench: &Bench) -> u64 {
    let filter = ListFilter {
        collection: Slug::new("team").unwrap(),
        task: None,
        statuses: Vec::new(),
        routine: None,
    };
    bench.api.queue.list(&filter, Page { number: 1, limit: 1 }).await.unwrap().1
}

fn name(metadata: &Value) -> RunName {
    let word = |key: &str| metadata[key].as_str().unwrap();
    RunName {
        collection: Slug::new(word("collection")).unwrap(),
        task: Slug::new(word("task")).unwrap(),
        id: RunId::new(word("trajectory_id")).unwrap(),
    }
}

/// Begins a stream and reads its first frame.
async fn stream(bench: &Bench) -> (Value, axum::body::BodyDataStream) {
    let request = Request::post(PATH)
        .header("authorization", format!("Bearer {}", bench.team.expose()))
        .body(Body::from(request(json!({}), json!({"stream": true}))));
    let response = tower::ServiceExt::oneshot(bench.router(), request.unwrap()).await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut frames = response.into_body().into_data_stream();
    let first = frames.next().await.unwrap().unwrap();
    let first = std::str::from_utf8(&first).unwrap().strip_prefix("data: ").unwrap();
    (serde_json::from_str(first).unwrap(), frames)
}

async fn rest(frames: axum::body::BodyDataStream) -> String {
    let parts: Vec<_> = frames.map(|part| part.unwrap().to_vec()).collect().await;
    String::from_utf8(parts.concat()).unwrap()
}

#[tokio::test]
async fn who_does_not_wait_is_told_which_run_goes_on_and_finds_it_again() {
    let bench = bench().await;
    let answer = chat(&bench, &bench.team, &request(json!({"timeout_hint": 0}), json!({}))).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let told = answer.json();
    let id = told["jetty_metadata"]["trajectory_id"].as_str().unwrap();
    assert_eq!(answer.header("x-jetty-trajectory-id"), id);
    let workflow_id = format!("team-greet--{id}");
    assert_eq!(
        told,
        json!({
            "id": format!("chatcmpl-{workflow_id}"),
            "object": "chat.completion",
            "created": 1_767_225_600,
            "model": "claude-sonnet-4-6",
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": "", "refusal": null},
                "logprobs": null,
                "finish_reason": null,
            }],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0,
                "prompt_tokens_details": {"cached_tokens": 0}},
            "jetty_metadata": {
                "trajectory_id": id, "workflow_id": workflow_id, "collection": "team",
                "task": "greet", "storage_path": format!("team/greet/{id}"),
                "status": "running", "verdict": null,
            },
        })
    );
    for name in [id, &workflow_id, &format!("chatcmpl-{id}"), &format!("chatcmpl-{workflow_id}")] {
        for base in [PATH, "/chat/completions"] {
            let path = format!("{base}/{name}");
            assert_eq!(bench.ask(&bench.team, "GET", &path, "").await.status, 202, "{path}");
            assert_eq!(bench.ask(&bench.other, "GET", &path, "").await.status, 404, "{path}");
            let foreign = format!("{path}?collection=team");
            assert_eq!(bench.ask(&bench.other, "GET", &foreign, "").await.status, 403, "{path}");
            let events = format!("{path}/events");
            assert_eq!(bench.ask(&bench.other, "GET", &events, "").await.status, 404, "{path}");
        }
    }
    let admin = format!("{PATH}/{id}");
    assert_eq!(bench.ask(&bench.admin, "GET", &admin, "").await.status, 404);
    let admin = format!("{admin}?collection=team");
    assert_eq!(bench.ask(&bench.admin, "GET", &admin, "").await.status, 202);
}

#[tokio::test]
async fn a_stream_ends_with_its_run_or_says_how_to_go_on() {
    let bench = bench().await;
    let answer = chat(&bench, &bench.team, &request(json!({"timeout_hint": 0}), json!({}))).await;
    let run = name(&answer.json()["jetty_metadata"]);
    bench.api.queue.cancel(&run, new_year()).await.unwrap();
    let events = format!("{PATH}/{}/events", run.id);
    let told = bench.ask(&bench.team, "GET", &events, "").await.text;
    let (first, told) = told.split_once("\n\n").unwrap();
    assert!(first.contains(r#""role":"assistant""#), "{first}");
    let error = told.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let error: Value = serde_json::from_str(error).unwrap();
    assert_eq!(error["error"]["code"], "cancelled", "{told}");
    assert_eq!(error["jetty_metadata"]["status"], "cancelled", "{told}");
    assert!(told.ends_with("data: [DONE]\n\n"), "{told}");

    let (first, frames) = stream(&bench).await;
    assert_eq!(first["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    bench.api.runs.followers.end().await;
    let told = rest(frames).await;
    let id = first["jetty_metadata"]["trajectory_id"].as_str().unwrap();
    assert!(told.contains("stream_cut") && told.contains(&format!("chatcmpl-{id}/events?after=0")));
}

#[tokio::test]
async fn a_refused_chat_keeps_nothing_and_makes_no_task() {
    let bench = bench().await;
    for (jetty, more, status) in [
        (json!({"agent": "nobody"}), json!({}), 400),
        (json!({"files": ["file-000000000000"]}), json!({}), 400),
        (json!({"cpus": 0}), json!({}), 400),
        (json!({"runbook_url": "https://example.org/R.md"}), json!({}), 400),
        (json!({"webhook_url": "http://127.0.0.1/"}), json!({}), 400),
        (json!({"task": "search"}), json!({}), 400),
        (json!({"collection": "other-team"}), json!({}), 403),
        (json!({}), json!({"messages": [{"role": "user", "content": "Go."}]}), 404),
        (json!({}), json!({"messages": []}), 404),
    ] {
        let answer = chat(&bench, &bench.team, &request(jetty.clone(), more)).await;
        assert_eq!(answer.status, status, "{jetty}: {answer:?}");
        assert!(answer.json()["error"]["message"].is_string(), "{answer:?}");
    }
    assert_eq!(n_runs(&bench).await, 0);
    assert_eq!(bench.ask(&bench.team, "GET", "/api/v1/tasks/team", "").await.json(), json!([]));
}

#[tokio::test]
async fn a_runbook_may_be_where_its_url_says() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut bench = bench().await;
    let documents = crate::reach::Documents::new(crate::reach::Reach::Private);
    std::sync::Arc::get_mut(&mut bench.api).unwrap().runs.documents = documents;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/RUNBOOK.md", listener.local_addr().unwrap());
    let mut hosts = tokio::task::JoinSet::new();
    hosts.spawn(async move {
        for n in 1.. {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = peer.read(&mut request).await.unwrap();
            let text = format!("---\nagent: claude-code\n---\n# From afar {n}\n");
            let head = format!("content-length: {}\r\nconnection: close", text.len());
            let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{text}");
            peer.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let user = json!({"messages": [{"role": "user", "content": "Go."}]});
    let jetty = json!({"runbook": null, "runbook_url": url, "timeout_hint": 0});
    let send = async || {
        let request = Request::post(PATH)
            .header("authorization", format!("Bearer {}", bench.team.expose()))
            .header("idempotency-key", "from-afar")
            .body(Body::from(request(jetty.clone(), user.clone())));
        bench.send(request.unwrap()).await
    };
    let first = send().await;
    assert_eq!(first.status, 202, "{first:?}");
    let run = name(&first.json()["jetty_metadata"]);
    let spec = bench.api.queue.spec(&run).await.unwrap().unwrap();
    assert!(spec.contains("# From afar 1") && spec.contains(r#""prompt":"Go.""#), "{spec}");
    let again = send().await;
    assert_eq!(again.json()["id"], first.json()["id"], "what stands there may have changed");
}

#[tokio::test]
async fn a_token_that_follows_enough_begins_no_run() {
    let bench = bench().await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(stream(&bench).await);
    }
    let answer = chat(&bench, &bench.team, &request(json!({}), json!({"stream": true}))).await;
    assert_eq!((answer.status, n_runs(&bench).await), (429, 3), "{answer:?}");
    bench.api.runs.followers.end().await;
}

#[tokio::test]
async fn what_a_client_sends_again_by_itself_is_one_run() {
    let bench = bench().await;
    let body = request(json!({"timeout_hint": 0}), json!({}));
    let send = async |count: &str| {
        let request = Request::post(PATH)
            .header("authorization", format!("Bearer {}", bench.team.expose()))
            .header("x-stainless-retry-count", count)
            .body(Body::from(body.clone()));
        bench.send(request.unwrap()).await.json()["id"].clone()
    };
    let first = send("0").await;
    assert_eq!([send("1").await, send("2").await], [first.clone(), first.clone()]);
    assert_ne!(send("0").await, first);
    assert_eq!(n_runs(&bench).await, 2);
}
