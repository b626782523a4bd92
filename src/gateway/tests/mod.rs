//! A gateway between a client on its socket and the scripted provider, which speaks every wire.

mod budget;
mod hostile;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse as _;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::provider::scripted::{Listen, Script, ScriptedProvider};
use crate::provider::{Credential, Route, VertexPlace, Wire};
use crate::reach::Reach;
use crate::run::{Allowance, Caps, Rate, Slug, Usd};
use crate::secret::Secret;
use crate::spend::{Purse, Spend};

const TOKEN: &str = "sk-ant-api03-runbookd-made-up";
const KEY: &str = "sk-ant-api03-made-up-and-real";

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(20);

/// What a gateway told: the newest line of each request, whole, and what the product makes of them.
#[derive(Debug, Clone, Default)]
struct Told {
    records: BTreeMap<u64, GatewayRecord>,
    sum: Ledger,
    /// The longest line, in bytes.
    longest: usize,
}

impl Told {
    fn add(&mut self, record: &GatewayRecord) {
        self.longest = self.longest.max(serde_json::to_vec(record).unwrap().len());
        self.sum.add(record.clone());
        self.records.insert(record.seq, record.clone());
    }

    fn records(&self) -> impl Iterator<Item = &GatewayRecord> {
        self.records.values()
    }
}

impl std::ops::Deref for Told {
    type Target = Ledger;

    fn deref(&self) -> &Ledger {
        &self.sum
    }
}

/// A gateway before some service, and a client on its socket.
struct Door {
    gateway: Gateway,
    client: Client,
    ledger: Arc<Mutex<Told>>,
    folder: tempfile::TempDir,
}

impl Door {
    fn to(upstream: String, wire: Wire, credential: Credential) -> Self {
        Self::spending(upstream, (wire, credential), None)
    }

    fn spending(
        upstream: String,
        (wire, credential): (Wire, Credential),
        purse: Option<Purse>,
    ) -> Self {
        let upstreams = Upstream::new(Reach::Private).unwrap();
        Self::through(upstreams, (upstream, wire, credential), purse)
    }

    fn through(
        upstreams: Upstream,
        (upstream, wire, credential): (String, Wire, Credential),
        purse: Option<Purse>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("model.sock");
        let ledger = Arc::new(Mutex::new(Told::default()));
        let noted = Arc::clone(&ledger);
        let gateway = Gateway::start(GatewayParts {
            run: "team/story/x".to_owned(),
            socket: socket.clone(),
            route: Route { upstream, control: None, credential, wire, vertex: Some(place()) },
            token: Secret::new(TOKEN.to_owned()),
            provider_tools: [].into(),
            upstream: upstreams,
            guard: None,
            purse,
            last_seq: 0,
            note: Box::new(move |record| noted.lock().unwrap().add(record)),
            clock: || Timestamp::UNIX_EPOCH,
        });
        Self { gateway: gateway.unwrap(), client: at(&socket), ledger, folder }
    }

    fn ask(&self, path: &str, body: Value) -> RequestBuilder {
        let request = self.client.post(format!("http://localhost{path}")).timeout(SOON);
        request.header("x-api-key", TOKEN).json(&body)
    }

    /// The ledger when every request has ended.
    async fn closed(self) -> Told {
        drop(self.client);
        self.gateway.stop().await;
        self.ledger.lock().unwrap().clone()
    }
}

fn at(socket: &Path) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().unix_socket(socket).build().unwrap()
}

fn place() -> VertexPlace {
    VertexPlace { project: "p".to_owned(), location: "l".to_owned() }
}

fn key() -> Credential {
    Credential::ApiKey(Secret::new(KEY.to_owned()))
}

async fn scripted(script: &str) -> (ScriptedProvider, String) {
    let script = Script::parse(script).unwrap();
    let listen = Listen::Tcp("127.0.0.1:0".parse().unwrap());
    let server = ScriptedProvider::start(script, listen).await.unwrap();
    let Listen::Tcp(address) = server.address().clone() else { panic!("a TCP address") };
    (server, format!("http://{address}"))
}

/// A service that answers everything alike.
#[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
async fn service(answer: fn(axum::extract::Request) -> axum::response::Response) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(async move |request| answer(request));
    tokio::task::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

fn prompt(stream: bool) -> Value {
    json!({
        "model": "claude-sonnet-4-6", "max_tokens": 100, "stream": stream,
        "messages": [{"role": "user", "content": "Go."}],
        "tools": [{"name": "Bash", "description": "", "input_schema": {"type": "object"}}],
    })
}

/// Each record as `outcome endpoint status`.
fn outline(ledger: &Told) -> Vec<String> {
    let line = |record: &GatewayRecord| {
        let endpoint = record.endpoint.as_deref().unwrap_or("-");
        format!("{:?} {endpoint} {}", record.outcome, record.status.unwrap_or(0))
    };
    ledger.records().map(line).collect()
}

const SCRIPT: &str = "
turns:
  - {text: Hello., usage: {input: 900, output: 70, cache_read: 5}}
  - {text: Hello., usage: {input: 900, output: 70, cache_read: 5}}
";

#[tokio::test]
async fn a_stream_passes_untouched_and_its_usage_is_in_the_ledger() {
    let (direct_server, url) = scripted(SCRIPT).await;
    let direct = at_tcp().post(format!("{url}/v1/messages")).header("x-api-key", KEY);
    let direct = direct.json(&prompt(true)).send().await.unwrap().bytes().await.unwrap();
    direct_server.stop().await;
    let (server, url) = scripted(SCRIPT).await;
    let door = Door::to(url, Wire::Messages, key());
    let answer = door.ask("/v1/messages?beta=true", prompt(true)).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream; charset=utf-8");
    let passed = answer.bytes().await.unwrap();
    assert_eq!(passed, direct);
    let ledger = door.closed().await;
    assert_eq!(outline(&ledger), ["Complete message 200"]);
    let counted = ledger.counted();
    let usage = counted.get("claude-sonnet-4-6").unwrap();
    let sent = server.usage_by_model();
    let sent = sent.values().next().unwrap();
    assert_eq!((usage.input, usage.output), (sent.input, sent.output));
    let record = ledger.records().next().unwrap();
    assert_eq!(record.n_answer_bytes, passed.len() as u64);
    assert_eq!(record.provider_request_id.as_deref(), Some("req_scripted_1"));
    server.stop().await;
}

fn at_tcp() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new()
}

#[tokio::test]
async fn the_service_sees_the_real_credential_and_nothing_of_the_agents() {
    let url = service(|request| {
        let seen: Vec<String> = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .chain([request.uri().to_string()])
            .collect();
        axum::Json(seen).into_response()
    })
    .await;
    let door = Door::to(url, Wire::Messages, key());
    let request = door
        .ask("/v1/messages?beta=true&key=made-up-by-the-agent", prompt(false))
        .header("authorization", "Bearer made-up-by-the-agent")
        .header("cookie", "made-up-by-the-agent=1");
    let seen = request.send().await.unwrap().text().await.unwrap();
    assert!(seen.contains(KEY) && seen.contains("/v1/messages?beta=true"), "{seen}");
    assert!(!seen.contains("by-the-agent") && !seen.contains(TOKEN), "{seen}");
    door.closed().await;
}

#[tokio::test]
async fn what_may_not_pass_is_refused_with_the_reason_and_never_asked() {
    let (server, url) = scripted(SCRIPT).await;
    let door = Door::to(url, Wire::Messages, key());
    let mut with_search = prompt(true);
    with_search["tools"] = json!([{"type": "web_search_20250305", "name": "web_search"}]);
    let without_token = door.client.post("http://localhost/v1/messages").json(&prompt(true));
    for (request, status, word) in [
        (door.ask("/v1/files", prompt(true)), StatusCode::NOT_FOUND, "blocked by policy"),
        (door.ask("/v1/messages", with_search), StatusCode::BAD_REQUEST, "blocked by policy"),
        (door.ask("/v1/messages", json!([1])), StatusCode::BAD_REQUEST, "cannot be read"),
        (without_token, StatusCode::UNAUTHORIZED, "token"),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status);
        let body: Value = answer.json().await.unwrap();
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(word), "{message}");
    }
    let ledger = door.closed().await;
    let refused =
        outline(&ledger).into_iter().map(|line| line.split(' ').next().unwrap().to_owned());
    assert_eq!(refused.collect::<Vec<_>>(), ["Refused"; 4]);
    assert!(server.stop().await.is_empty());
}

#[tokio::test]
async fn an_error_passes_with_its_status_and_without_the_credential() {
    let url = service(|_| {
        let body = format!("your key {KEY} is not welcome");
        (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")], body).into_response()
    })
    .await;
    let door = Door::to(url, Wire::Messages, key());
    let answer = door.ask("/v1/messages", prompt(true)).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["retry-after"].as_bytes()),
        (429, &b"7"[..])
    );
    assert_eq!(answer.text().await.unwrap(), "your key [redacted] is not welcome");
    let ledger = door.closed().await;
    assert_eq!(outline(&ledger), ["Failed message 429"]);
    assert!(!format!("{ledger:?}").contains(KEY));
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_credential() {
    let url = service(|_| {
        (StatusCode::TEMPORARY_REDIRECT, [("location", "http://169.254.169.254/")]).into_response()
    })
    .await;
    let door = Door::to(url, Wire::Messages, key());
    let answer = door.ask("/v1/messages", prompt(true)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::TEMPORARY_REDIRECT);
    assert!(answer.headers().get("location").is_none());
    assert_eq!(outline(&door.closed().await), ["Failed message 307"]);
}

#[tokio::test]
async fn a_service_that_is_not_there_is_said_so() {
    let door = Door::to("http://127.0.0.1:1".to_owned(), Wire::Messages, key());
    let answer = door.ask("/v1/messages", prompt(true)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert!(answer.text().await.unwrap().contains("cannot be reached"));
    assert_eq!(outline(&door.closed().await), ["Unreachable message 502"]);
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_broken_and_what_it_told_is_kept() {
    let script = "turns: [{drop: mid_block}, {text: Hello there., usage: {input: 100}}]";
    let (server, url) = scripted(script).await;
    let door = Door::to(url, Wire::Messages, key());
    let answer = door.ask("/v1/messages", prompt(true)).send().await.unwrap();
    assert!(answer.bytes().await.is_err());
    let ledger = door.closed().await;
    assert_eq!(outline(&ledger), ["Broken message 200"]);
    assert!(ledger.counted().is_empty());
    assert_eq!(ledger.uncounted().total().input, 100);
    server.stop().await;
}

#[tokio::test]
async fn an_agent_that_goes_away_ends_the_request_and_leaves_its_line() {
    let url = service(|_| {
        let start = json!({"type": "message_start", "message": {"model": "m", "usage": {
            "input_tokens": 100, "output_tokens": 1}}});
        let first =
            futures_util::stream::iter([Ok::<_, std::io::Error>(format!("data: {start}\n\n"))]);
        let body = Body::from_stream(first.chain(futures_util::stream::pending()));
        ([("content-type", "text/event-stream")], body).into_response()
    })
    .await;
    let door = Door::to(url, Wire::Messages, key());
    let mut answer = door.ask("/v1/messages", prompt(true)).send().await.unwrap();
    answer.chunk().await.unwrap().unwrap();
    drop(answer);
    let ledger = door.closed().await;
    assert_eq!(outline(&ledger), ["Abandoned message 200"]);
    assert_eq!(ledger.uncounted().total().input, 100);
}

#[tokio::test]
async fn bedrock_and_vertex_are_metered_by_the_model_in_the_path() {
    let vertex = "/projects/p/locations/l/publishers/anthropic/models/m-1:streamRawPredict";
    for (wire, path) in [
        (Wire::Bedrock, "/model/us.anthropic.m-1/invoke-with-response-stream"),
        (Wire::Vertex, vertex),
    ] {
        let (server, url) = scripted(SCRIPT).await;
        let door = Door::to(url, wire, Credential::Bearer(Secret::new(KEY.to_owned())));
        let mut body = prompt(true);
        body.as_object_mut().unwrap().shift_remove("model");
        body["anthropic_version"] = json!("made-up");
        let request = door.client.post(format!("http://localhost{path}")).bearer_auth(TOKEN);
        let answer = request.json(&body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.bytes().await.unwrap();
        let ledger = door.closed().await;
        assert_eq!(outline(&ledger), ["Complete message 200"]);
        let total = ledger.counted().total();
        assert_eq!((total.input, total.output, total.cache_read), (900, 70, 5), "{wire:?}");
        server.stop().await;
    }
}
