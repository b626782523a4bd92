//! The client against a server that fails as networks and servers do.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Client, ClientError, ClientSettings, Submission};
use crate::run::{RunId, RunName, Slug};

/// How many events the run of these stories has.
const N_EVENTS: u64 = 12;

/// What the server does to one connection.
#[derive(Debug, Clone, PartialEq)]
enum Act {
    /// It sends so many events and the beginning of another one.
    Break(u64),
    /// It sends so many events, of which some may get lost, and resets the connection.
    Reset(u64),
    /// It sends so many events and ends the answer.
    End(u64),
    /// It repeats so many events that were seen, and sends one more.
    Repeat(u64),
    /// It leaves out an event after the first.
    Skip,
    /// It refuses with this status.
    Refuse(u16),
    /// It sends everything that is left.
    All,
}

/// What the server does, and what it was asked.
#[derive(Clone, Default)]
struct Scripted {
    acts: Arc<Mutex<VecDeque<Act>>>,
    asked: Arc<Mutex<Vec<HeaderMap>>>,
    bodies: Arc<Mutex<Vec<Bytes>>>,
}

impl Scripted {
    fn of(acts: &[Act]) -> Self {
        Self { acts: Arc::new(Mutex::new(acts.iter().cloned().collect())), ..Self::default() }
    }

    fn next(&self) -> Act {
        self.acts.lock().unwrap().pop_front().unwrap_or(Act::All)
    }

    /// The headers of every request that had this one.
    fn asked(&self, name: &str) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let found = asked.iter().filter_map(|headers| headers.get(name));
        found.map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    /// Serves until the set is dropped.
    async fn serve(&self, servers: &mut JoinSet<()>) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/api/v1/trajectory/{c}/{t}/{id}/events", any(stream))
            .fallback(any(answer))
            .with_state(self.clone());
        servers.spawn(async move { axum::serve(listener, router).await.unwrap() });
        let server = format!("http://{address}").parse().unwrap();
        Client::new(ClientSettings { server, token: None, extra_ca: None }).unwrap()
    }
}

fn frame(seq: u64) -> String {
    format!("id: {seq}\ndata: {}\n\n", event(seq))
}

fn event(seq: u64) -> Value {
    json!({ "seq": seq, "kind": "note", "text": format!("№ {seq}"), "last": seq == N_EVENTS })
}

async fn stream(State(server): State<Scripted>, headers: HeaderMap) -> Response {
    let after = headers.get("last-event-id").map_or(0, |id| id.to_str().unwrap().parse().unwrap());
    server.asked.lock().unwrap().push(headers);
    let frames = |from: u64, to: u64| (from..=to.min(N_EVENTS)).map(frame).collect::<String>();
    let begun = |seq: u64| frame(seq).split_at(14).0.to_owned();
    let (frames, breaks) = match server.next() {
        Act::Refuse(status) => return StatusCode::from_u16(status).unwrap().into_response(),
        Act::Break(n) => (frames(after + 1, after + n) + &begun(after + n + 1), false),
        Act::Reset(n) => (frames(after + 1, after + n), true),
        Act::End(n) => (frames(after + 1, after + n), false),
        Act::Repeat(n) => (frames((after + 1).saturating_sub(n).max(1), after + 1), false),
        Act::Skip => (frames(after + 1, after + 1) + &frames(after + 3, N_EVENTS), false),
        Act::All => (frames(after + 1, N_EVENTS), false),
    };
    let text = format!(": keep-alive\n\n{frames}");
    // In small pieces, so that letters and frames are cut anywhere.
    let mut parts: Vec<Result<Bytes, std::io::Error>> =
        text.as_bytes().chunks(7).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
    if breaks {
        parts.push(Err(std::io::Error::other("the connection broke")));
    }
    let body = Body::from_stream(futures_util::stream::iter(parts));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

async fn answer(State(server): State<Scripted>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    server.asked.lock().unwrap().push(head.headers);
    server.bodies.lock().unwrap().push(body);
    match server.next() {
        Act::Refuse(status) => {
            let status = StatusCode::from_u16(status).unwrap();
            (status, axum::Json(json!({ "detail": "made up" }))).into_response()
        }
        Act::Break(_) | Act::Reset(_) => {
            let parts = [Ok("{\"half"), Err("broken")];
            let parts = parts.map(|part| part.map_err(std::io::Error::other));
            let body = Body::from_stream(futures_util::stream::iter(parts));
            ([(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Act::End(_) | Act::Repeat(_) | Act::Skip | Act::All => {
            let parts = futures_util::stream::iter([Ok::<_, Infallible>(
                json!({ "trajectory_id": "1a2b3c4d", "status": "ok" }).to_string(),
            )]);
            ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(parts)).into_response()
        }
    }
}

fn run() -> RunName {
    let slug = |name| Slug::new(name).unwrap();
    let id = RunId::new("1a2b3c4d").unwrap();
    RunName { collection: slug("team"), task: slug("my task"), id }
}

/// Follows a run over these connections.
async fn follow(acts: &[Act], after: u64) -> (Result<Vec<Value>, ClientError>, Vec<String>) {
    let mut servers = JoinSet::new();
    let server = Scripted::of(acts);
    let client = server.serve(&mut servers).await;
    let mut follow = client.follow(&run(), after);
    let mut events = Vec::new();
    let ended = loop {
        match follow.next().await {
            Ok(Some(event)) => events.push(event.json),
            Ok(None) => break Ok(events),
            Err(error) => break Err(error),
        }
    };
    (ended, server.asked("last-event-id"))
}

fn all_after(after: u64) -> Vec<Value> {
    (after + 1..=N_EVENTS).map(event).collect()
}

#[tokio::test]
async fn a_run_is_followed_over_broken_connections_from_where_they_broke() {
    let acts = [Act::Break(3), Act::Refuse(503), Act::End(2), Act::Repeat(4), Act::Skip];
    let (events, asked) = follow(&acts, 0).await;
    assert_eq!(events.unwrap(), all_after(0));
    assert_eq!(asked, ["3", "3", "5", "6", "7"]);
}

#[tokio::test]
async fn a_run_is_followed_from_the_middle() {
    assert_eq!(follow(&[], 7).await.0.unwrap(), all_after(7));
}

#[tokio::test]
async fn a_refusal_ends_it_and_so_does_an_event_that_the_server_does_not_have() {
    let (refused, _) = follow(&[Act::Break(1), Act::Refuse(404)], 0).await;
    assert_eq!(refused.unwrap_err().status(), Some(404));
    let mut servers = JoinSet::new();
    let hole = Router::new()
        .fallback(any(async || ([(header::CONTENT_TYPE, "text/event-stream")], frame(3))));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    servers.spawn(async move { axum::serve(listener, hole).await.unwrap() });
    let client = Client::new(ClientSettings { server, token: None, extra_ca: None }).unwrap();
    let gap = client.follow(&run(), 1).next().await.unwrap_err();
    assert!(matches!(gap, ClientError::Gap { expected: 2, got: 3 }), "{gap:?}");
}

#[tokio::test]
async fn a_submission_is_repeated_with_its_key_and_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.txt");
    std::fs::write(&file, "made-up notes").unwrap();
    let mut servers = JoinSet::new();
    let server = Scripted::of(&[Act::Refuse(503), Act::Break(0), Act::All]);
    let client = server.serve(&mut servers).await;
    let RunName { collection, task, .. } = run();
    let wish = Submission {
        collection,
        task,
        init_params: json!({ "vars": { "a": "b" } }).as_object().unwrap().clone(),
        files: vec![file],
        secrets: Default::default(),
        key: Uuid::from_u128(7),
    };
    let submitted = client.submit(&wish).await.unwrap();
    assert_eq!(submitted.run, run());
    assert_eq!(server.asked("idempotency-key"), vec![wish.key.to_string(); 3]);
    for body in server.bodies.lock().unwrap().iter() {
        let body = String::from_utf8_lossy(body);
        assert!(
            body.contains("made-up notes") && body.contains("filename=\"notes.txt\""),
            "{body}"
        );
    }
}

#[tokio::test]
async fn what_must_not_be_done_twice_is_asked_once() {
    let mut servers = JoinSet::new();
    let server = Scripted::of(&[Act::Refuse(503), Act::All]);
    let client = server.serve(&mut servers).await;
    let refused = client.create_collection("team").await.unwrap_err();
    assert_eq!((refused.status(), refused.to_string().as_str()), (Some(503), "made up"));
    assert_eq!(server.bodies.lock().unwrap().len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever happens to the connections, every event comes once and in its order.
    #[test]
    fn events_are_neither_lost_nor_doubled(acts in prop::collection::vec(prop_oneof![
        (1..5_u64).prop_map(Act::Break),
        (1..5_u64).prop_map(Act::Reset),
        (1..5_u64).prop_map(Act::End),
        (0..5_u64).prop_map(Act::Repeat),
        Just(Act::Skip),
    ], 0..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (events, _) = runtime.block_on(follow(&acts, 0));
        prop_assert_eq!(events.unwrap(), all_after(0));
    }
}
