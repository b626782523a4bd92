//! A model service that answers at once, with a stream of the size of a short reply.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::DefaultBodyLimit;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::serve::ListenerExt as _;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::common::Outcome;

/// Pieces of text in an answer.
const N_PIECES: usize = 40;

/// The running service. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Model {
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Model {
    /// Starts it at an address of its own.
    pub(crate) async fn start() -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let events = events();
        let answer = move |_: Bytes| {
            let events = events.clone();
            async move { message(events) }
        };
        let app = Router::new().route("/v1/messages", post(answer));
        let app = app.layer(DefaultBodyLimit::disable());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            // Otherwise each piece of a stream waits for the client's word on the one before.
            let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
            if let Err(error) = axum::serve(listener, app).await {
                eprintln!("the model service ended: {error}");
            }
        });
        Ok(Self { address, _serving: serving })
    }

    /// Its address.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn message(events: Vec<Bytes>) -> Response {
    let events = stream::iter(events.into_iter().map(Ok::<_, Infallible>));
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}

fn events() -> Vec<Bytes> {
    let usage = json!({ "input_tokens": 12_000, "output_tokens": 1 });
    let opening = json!({
        "id": "msg_made_up", "type": "message", "role": "assistant", "model": "claude-sonnet-4-6",
        "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage,
    });
    let block = json!({ "type": "text", "text": "" });
    let piece = json!({ "type": "text_delta", "text": "a few words more, " });
    let mut events = vec![
        event("message_start", json!({ "message": opening })),
        event("content_block_start", json!({ "index": 0, "content_block": block })),
    ];
    let delta = || event("content_block_delta", json!({ "index": 0, "delta": piece }));
    events.extend(std::iter::repeat_with(delta).take(N_PIECES));
    events.push(event("content_block_stop", json!({ "index": 0 })));
    let delta = json!({ "stop_reason": "end_turn", "stop_sequence": null });
    let usage = json!({ "output_tokens": 160 });
    events.push(event("message_delta", json!({ "delta": delta, "usage": usage })));
    events.push(event("message_stop", json!({})));
    events
}

fn event(kind: &str, mut data: Value) -> Bytes {
    data["type"] = kind.into();
    format!("event: {kind}\ndata: {data}\n\n").into()
}
