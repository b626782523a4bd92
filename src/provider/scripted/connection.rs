//! Answers the requests of one connection.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{Method, Request, Response, request, response::Builder};
use bytes::Bytes;
use http_body_util::LengthLimitError;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::auth::Auth;
use super::choice;
use super::delivery::{Courier, CutByScript};
use super::ledger::{Delivery, LedgerEntry, MAX_REQUESTS, Place};
use super::message::Message;
use super::reply::{self, Act, Addressee, Reply};
use super::request::Asked;
use super::script::{Failure, Script};
use super::server::Shared;

/// Largest request that is read, in bytes. The agent CLI sends its whole context each time.
const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;

/// From a request's head to the end of its body. The client is on this machine.
const READ_LIMIT: Duration = Duration::from_secs(120);

/// Bytes of a request that count as one token in `count_tokens`.
const BYTES_PER_TOKEN: usize = 4;

/// Date of the models that are listed. It is part of the format and means nothing here.
const MODEL_DATE: &str = "2026-01-01T00:00:00Z";

/// The model that is listed where the script names none.
const DEFAULT_MODEL: &str = "claude-sonnet-4-6";

/// What a request wants.
enum Demand {
    Message(Asked),
    CountTokens,
    Models,
    Liveness,
    /// Nothing that this server has.
    Refused(Failure),
}

/// What is done for a request, and the ledger's entry for it.
struct Recorded {
    act: Act,
    request_id: String,
    entry: usize,
}

/// Answers one request, or says that the connection is to be closed without an answer.
pub(super) async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, CutByScript> {
    let (head, body) = request.into_parts();
    let read = tokio::time::timeout(READ_LIMIT, to_bytes(Body::new(body), MAX_REQUEST_BYTES));
    let body = match read.await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if error.source().is_some_and(|e| e.is::<LengthLimitError>()) => {
            Err(refusal(413, "the request's body is larger than 64 MiB"))
        }
        Ok(Err(_)) => Err(refusal(400, "the request's body broke off")),
        Err(_) => Err(refusal(408, "the request's body did not come in time")),
    };
    let Some(Recorded { act, request_id, entry }) = record(&shared, &head, body) else {
        return Ok(ledger_full());
    };
    let mut courier = Courier::new(shared, entry);
    match act {
        Act::Reply(reply) => {
            tokio::time::sleep(reply.delay).await;
            let response = response(&reply, &request_id);
            Ok(response.body(courier.body(reply)).expect("a script's status and type are checked"))
        }
        Act::CloseUnanswered => {
            courier.end(Delivery::Cut);
            Err(CutByScript)
        }
        // The connection's own limit ends this, if the client does not.
        Act::NeverAnswer => std::future::pending().await,
    }
}

/// Decides what is done and writes it down, in one go: no other request comes between. `None` when
/// the ledger is full.
fn record(
    shared: &Shared,
    head: &request::Parts,
    body: Result<Bytes, Failure>,
) -> Option<Recorded> {
    let (demand, body) = match body {
        Ok(body) => (demand(head, &body, &shared.script), body),
        Err(failure) => (Demand::Refused(failure), Bytes::new()),
    };
    let mut ledger = shared.ledger();
    let request_id = ledger.next_request_id()?;
    let place = place(&demand);
    let attempt = ledger.ask(&place);
    let (mut act, unexpected) = decide(shared, &demand, (&place, attempt), &request_id, &body);
    if let (&Method::HEAD, Act::Reply(reply)) = (&head.method, &mut act) {
        reply.frames.clear();
    }
    let (status, usage) = match &act {
        Act::Reply(reply) => (Some(reply.status), reply.usage),
        Act::CloseUnanswered | Act::NeverAnswer => (None, None),
    };
    let asked = match &demand {
        Demand::Message(asked) => Some(asked),
        Demand::CountTokens | Demand::Models | Demand::Liveness | Demand::Refused(_) => None,
    };
    let entry = ledger.push(LedgerEntry {
        request_id: request_id.clone(),
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        auth: Auth::of(&head.headers),
        model: asked.map(|asked| asked.model.clone()),
        stream: asked.is_some_and(|asked| asked.stream),
        n_messages: asked.map_or(0, |asked| asked.n_messages),
        n_request_bytes: body.len(),
        place,
        unexpected,
        status,
        usage,
        delivery: Delivery::Pending,
        body: (!body.is_empty()).then_some(body),
    });
    Some(Recorded { act, request_id, entry })
}

fn demand(head: &request::Parts, body: &[u8], script: &Script) -> Demand {
    match (&head.method, head.uri.path()) {
        (&Method::POST, "/v1/messages") => match Asked::read(body, script) {
            Ok(asked) => Demand::Message(asked),
            Err(complaint) => Demand::Refused(refusal(400, &complaint)),
        },
        (&Method::POST, "/v1/messages/count_tokens") => Demand::CountTokens,
        (&Method::GET, "/v1/models") => Demand::Models,
        (&Method::HEAD, "/") => Demand::Liveness,
        (method, path) => Demand::Refused(refusal(404, &format!("{method} {path} not found"))),
    }
}

fn place(demand: &Demand) -> Place {
    match demand {
        Demand::Message(asked) => choice::place(asked),
        Demand::CountTokens => Place::CountTokens,
        Demand::Models => Place::Models,
        Demand::Liveness => Place::Liveness,
        Demand::Refused(_) => Place::Nowhere,
    }
}

/// What is done, and whether the script did not foresee it.
fn decide(
    shared: &Shared,
    demand: &Demand,
    (place, attempt): (&Place, u32),
    request_id: &str,
    body: &[u8],
) -> (Act, bool) {
    match demand {
        Demand::Message(asked) => {
            let choice = choice::choose(&shared.script, asked, attempt);
            let message = Message::new(&choice.answer, &asked.model, place, attempt);
            let to = Addressee { place, stream: asked.stream, request_id };
            (reply::act(&choice, &message, &to), choice.unexpected)
        }
        Demand::CountTokens => {
            let count = json!({ "input_tokens": (body.len() / BYTES_PER_TOKEN).max(1) });
            (Act::Reply(Reply::json(200, &count)), false)
        }
        Demand::Models => (Act::Reply(Reply::json(200, &models(&shared.script))), false),
        Demand::Liveness => (Act::Reply(Reply::whole(200, "text/plain", Bytes::new())), false),
        Demand::Refused(failure) => (Act::Reply(Reply::error(failure, request_id)), true),
    }
}

fn models(script: &Script) -> Value {
    let id = script.model().unwrap_or(DEFAULT_MODEL);
    json!({
        "data": [{ "type": "model", "id": id, "display_name": id, "created_at": MODEL_DATE }],
        "has_more": false,
        "first_id": id,
        "last_id": id,
    })
}

fn response(reply: &Reply, request_id: &str) -> Builder {
    let mut response = Response::builder()
        .status(reply.status)
        .header(CONTENT_TYPE, &reply.content_type)
        .header("request-id", request_id);
    if let Some(length) = reply.length {
        response = response.header(CONTENT_LENGTH, length);
    } else {
        response = response.header(CACHE_CONTROL, "no-cache");
    }
    if let Some(seconds) = reply.retry_after {
        response = response.header(RETRY_AFTER, seconds);
    }
    response
}

/// The answer to a request that is no longer written down.
fn ledger_full() -> Response<Body> {
    let complaint = format!(
        "the scripted provider answered {MAX_REQUESTS} requests, which is all it does: \
         the agent seems to loop"
    );
    let request_id = "req_scripted_refused";
    let reply = Reply::error(&refusal(400, &complaint), request_id);
    let body: Vec<Bytes> = reply.frames.iter().map(|frame| frame.bytes.clone()).collect();
    response(&reply, request_id)
        .body(Body::from(body.concat()))
        .expect("an error's status and type are right")
}

fn refusal(status: u16, message: &str) -> Failure {
    Failure::new(status, None, Some(message.to_owned()))
}
