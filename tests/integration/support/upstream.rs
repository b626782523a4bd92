//! A model service that speaks OpenAI's Chat Completions, on this machine. The model's name says what
//! it answers; what it was asked is kept.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Largest body that is asked with.
const MAX_BODY_BYTES: usize = 128 << 20;

/// What the models say, a word at a time.
pub(crate) const WORDS: [&str; 6] = ["Grüß", " Gott", ", ", "Welt", " 🌍", "!"];

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// The service. It ends when this is dropped.
pub(crate) struct FakeModel {
    pub(crate) address: SocketAddr,
    scene: Arc<Scene>,
    _server: JoinSet<()>,
}

struct Scene {
    asked: Mutex<Vec<Asked>>,
    /// `step` says one more word for each permit.
    steps: Semaphore,
    /// How many answers were given up by whoever asked.
    gone: watch::Sender<usize>,
    /// How many bytes `endless` has said.
    said: watch::Sender<usize>,
}

impl FakeModel {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scene = Arc::new(Scene {
            asked: Mutex::default(),
            steps: Semaphore::new(0),
            gone: watch::Sender::new(0),
            said: watch::Sender::new(0),
        });
        let router = Router::new().fallback(any(answer)).with_state(Arc::clone(&scene));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, scene, _server: server }
    }

    /// Its base URL, as OpenAI's clients have it.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.scene.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets `step` say one more word.
    pub(crate) fn step(&self) {
        self.scene.steps.add_permits(1);
    }

    /// Waits until so many answers were given up.
    pub(crate) async fn gone(&self, n: usize) {
        self.scene.gone.subscribe().wait_for(|gone| *gone >= n).await.unwrap();
    }

    /// How many bytes `endless` has said.
    pub(crate) fn said(&self) -> usize {
        *self.scene.said.borrow()
    }
}

/// Tells when it is dropped before its time.
struct Watched {
    scene: Arc<Scene>,
    is_over: bool,
}

impl Watched {
    fn end(&mut self) {
        self.is_over = true;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.is_over {
            self.scene.gone.send_modify(|gone| *gone += 1);
        }
    }
}

async fn answer(
    State(scene): State<Arc<Scene>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let body = axum::body::to_bytes(body, MAX_BODY_BYTES).await.unwrap();
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let key =
        headers.get("authorization").and_then(|key| key.to_str().ok()).unwrap_or("").to_owned();
    let one = Asked { path: uri.path().to_owned(), headers, body };
    scene.asked.lock().unwrap_or_else(PoisonError::into_inner).push(one);
    let mut watched = Watched { scene: Arc::clone(&scene), is_over: false };
    let model = asked["model"].as_str().unwrap_or_default();
    let name = model.rsplit(['/', ':']).next().unwrap_or_default().trim_start_matches("gpt-");
    let is_stream = asked["stream"] == true;
    if name == "hang" {
        std::future::pending::<()>().await;
    }
    let response = match name.split_once('-') {
        Some(("fail", status)) => refusal(status.parse().unwrap(), &key),
        Some(_) | None => match name {
            "redirect" => {
                (StatusCode::TEMPORARY_REDIRECT, [("location", "/elsewhere")]).into_response()
            }
            "html" => (StatusCode::BAD_GATEWAY, "<html>down</html>").into_response(),
            "step" | "endless" | "break" => return streaming(name, watched),
            "tools" => said(is_stream, &tool_chunks(), &tool_answer()),
            _ if is_stream => said(true, &word_chunks(&asked), &Value::Null),
            _ => said(false, &[], &word_answer(model)),
        },
    };
    watched.end();
    response
}

fn refusal(status: u16, key: &str) -> Response {
    // Some services repeat the key that they refuse.
    let error = json!({"error": {"message": format!("made-up refusal of {key}"),
        "type": "made_up", "param": null, "code": format!("made_up_{status}")}});
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .header("x-request-id", "req-made-up")
        .header("retry-after", "7")
        .header("x-made-up", "not passed on")
        .header("x-ratelimit-remaining-requests", "3")
        .body(Body::from(error.to_string()))
        .unwrap()
}

fn said(is_stream: bool, chunks: &[Value], answer: &Value) -> Response {
    let kind = if is_stream { "text/event-stream; charset=utf-8" } else { "application/json" };
    let response = Response::builder()
        .header("content-type", kind)
        .header("x-request-id", "req-made-up")
        .header("openai-processing-ms", "12")
        .header("set-cookie", "made-up=1");
    if is_stream {
        // In pieces that end anywhere, inside a letter too.
        let text = frames(chunks);
        let pieces: Vec<Bytes> = text.as_bytes().chunks(61).map(Bytes::copy_from_slice).collect();
        let pieces = pieces.into_iter().map(Ok::<_, Infallible>);
        response.body(Body::from_stream(futures_util::stream::iter(pieces))).unwrap()
    } else {
        response.body(Body::from(answer.to_string())).unwrap()
    }
}

/// A stream that goes on as it is told.
fn streaming(name: &str, watched: Watched) -> Response {
    let name = name.to_owned();
    let begun = futures_util::stream::unfold((0, watched), move |(n, mut watched)| {
        let name = name.clone();
        async move {
            let piece: Result<Bytes, std::io::Error> = match name.as_str() {
                "step" if n == WORDS.len() => {
                    watched.end();
                    return None;
                }
                "step" => {
                    watched.scene.steps.acquire().await.unwrap().forget();
                    Ok(step(n))
                }
                "break" if n == 2 => {
                    watched.end();
                    Err(std::io::Error::other("made up"))
                }
                "break" => Ok(step(n)),
                _ => {
                    let piece = Bytes::from(format!(": {}\n\n", "x".repeat(64 << 10)));
                    watched.scene.said.send_modify(|said| *said += piece.len());
                    Ok(piece)
                }
            };
            // So that what was said is sent before the next word is looked for.
            tokio::task::yield_now().await;
            Some((piece, (n + 1, watched)))
        }
    });
    let kind = [("content-type", "text/event-stream")];
    (kind, Body::from_stream(begun)).into_response()
}

/// What `step` says as its `n`th piece.
pub(crate) fn step(n: usize) -> Bytes {
    let finish = if n + 1 == WORDS.len() { json!("stop") } else { Value::Null };
    let chunk = chunk(json!({"content": WORDS[n]}), finish);
    let done = if n + 1 == WORDS.len() { "data: [DONE]\n\n" } else { "" };
    format!("data: {chunk}\n\n{done}").into()
}

/// What a stream of `say` has, to the byte.
pub(crate) fn frames(chunks: &[Value]) -> String {
    let mut text = String::from(": a comment\n\n");
    for chunk in chunks {
        text.push_str(&format!("data: {chunk}\r\n\r\n"));
    }
    text + "data: [DONE]\n\n"
}

fn chunk(delta: Value, finish: Value) -> Value {
    json!({"id": "chatcmpl-made-up", "object": "chat.completion.chunk", "created": 1, "model": "gpt-made-up",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
}

fn usage() -> Value {
    json!({"prompt_tokens": 20, "completion_tokens": 6, "total_tokens": 26,
        "prompt_tokens_details": {"cached_tokens": 8}})
}

/// The chunks of a stream of words.
pub(crate) fn word_chunks(asked: &Value) -> Vec<Value> {
    let mut chunks = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
    chunks.extend(WORDS.map(|word| chunk(json!({"content": word}), Value::Null)));
    chunks.push(chunk(json!({}), json!("stop")));
    if asked["stream_options"]["include_usage"] == true {
        let mut last = chunk(json!({}), Value::Null);
        last["choices"] = json!([]);
        last["usage"] = usage();
        chunks.push(last);
    }
    chunks
}

fn word_answer(model: &str) -> Value {
    json!({"id": "chatcmpl-made-up", "object": "chat.completion", "created": 1, "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": WORDS.concat()},
            "finish_reason": "stop"}], "usage": usage()})
}

fn tool_chunks() -> Vec<Value> {
    let call = |part: Value| chunk(json!({"tool_calls": [part]}), Value::Null);
    vec![
        chunk(json!({"role": "assistant", "content": null}), Value::Null),
        call(
            json!({"index": 0, "id": "call-1", "type": "function", "function": {"name": "look", "arguments": ""}}),
        ),
        call(json!({"index": 0, "function": {"arguments": "{\"at\": \"the"}})),
        call(json!({"index": 0, "function": {"arguments": " sky\"}"}})),
        chunk(json!({}), json!("tool_calls")),
    ]
}

fn tool_answer() -> Value {
    let call = json!({"id": "call-1", "type": "function",
        "function": {"name": "look", "arguments": "{\"at\": \"the sky\"}"}});
    json!({"id": "chatcmpl-made-up", "object": "chat.completion", "created": 1, "model": "gpt-tools",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": null, "tool_calls": [call]},
            "finish_reason": "tool_calls"}], "usage": usage()})
}
