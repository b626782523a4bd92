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

use super::auth::Auth;
use super::choice;
use super::delivery::{Courier, CutByScript};
use super::endpoints;
use super::failure;
use super::ledger::{Delivery, LedgerEntry, MAX_REQUESTS, Place};
use super::message::Message;
use super::reply::{self, Act, Addressee, Reply};
use super::request::Asked;
use super::route::{Route, Wire, Wish};
use super::script::{Failure, Script};
use super::server::Shared;

/// Largest request that is read, in bytes. The agent CLI sends its whole context each time.
const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;

/// From a request's head to the end of its body. The client is on this machine.
const READ_LIMIT: Duration = Duration::from_secs(120);

/// Where AWS names an error.
const AWS_ERROR: &str = "x-amzn-errortype";

/// What a request wants, once its body is read.
enum Demand {
    Message(Asked),
    CountTokens,
    Models,
    Profile,
    Liveness,
    Token,
    /// A page where there is none, which a wrong base URL asks for.
    Page,
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
    let route = Route::find(&head.method, head.uri.path());
    let wire = route.wire;
    let Some(Recorded { act, request_id, entry }) = record(&shared, &head, route, body) else {
        return Ok(ledger_full(wire));
    };
    let mut courier = Courier::new(shared, entry);
    match act {
        Act::Reply(reply) => {
            tokio::time::sleep(reply.delay).await;
            let response = response(&reply, wire, &request_id);
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
    route: Route,
    body: Result<Bytes, Failure>,
) -> Option<Recorded> {
    let wire = route.wire;
    let (demand, body) = match body {
        Ok(body) => (demand(head, route, &body, &shared.script), body),
        Err(failure) => (Demand::Refused(failure), Bytes::new()),
    };
    let mut ledger = shared.ledger();
    let request_id = ledger.next_request_id()?;
    let place = place(&demand);
    let attempt = ledger.ask(&place);
    let stream = matches!(&demand, Demand::Message(asked) if asked.stream);
    let to = Addressee { wire, place: &place, stream, request_id: &request_id };
    let (mut act, unexpected) = decide(&shared.script, &demand, attempt, body.len(), &to);
    if let (&Method::HEAD, Act::Reply(reply)) = (&head.method, &mut act) {
        reply.frames.clear();
    }
    let (status, usage) = match &act {
        Act::Reply(reply) => (Some(reply.status), reply.usage),
        Act::CloseUnanswered | Act::NeverAnswer => (None, None),
    };
    let asked = match &demand {
        Demand::Message(asked) => Some(asked),
        Demand::CountTokens
        | Demand::Models
        | Demand::Profile
        | Demand::Liveness
        | Demand::Token
        | Demand::Page
        | Demand::Refused(_) => None,
    };
    let entry = ledger.push(LedgerEntry {
        request_id: request_id.clone(),
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        wire,
        auth: Auth::of(&head.headers),
        model: asked.map(|asked| asked.model.clone()),
        stream,
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

fn demand(head: &request::Parts, route: Route, body: &[u8], script: &Script) -> Demand {
    match (route.wish, route.wire) {
        (Wish::Message(envelope), _) => match Asked::read(body, envelope, script) {
            Ok(asked) => Demand::Message(asked),
            Err(complaint) => Demand::Refused(refusal(400, &complaint)),
        },
        (Wish::CountTokens, _) => Demand::CountTokens,
        (Wish::Models, _) => Demand::Models,
        (Wish::Profile, _) => Demand::Profile,
        (Wish::Liveness, _) => Demand::Liveness,
        (Wish::Token, _) if endpoints::is_claim(body) => Demand::Token,
        (Wish::Token, _) => Demand::Refused(refusal(400, "this is no signed claim")),
        (Wish::Nothing, Wire::OpenRouter) => Demand::Page,
        (Wish::Nothing, Wire::Anthropic | Wire::Bedrock | Wire::Vertex) => {
            let (method, path) = (&head.method, head.uri.path());
            Demand::Refused(refusal(404, &format!("{method} {path} not found")))
        }
    }
}

fn place(demand: &Demand) -> Place {
    match demand {
        Demand::Message(asked) => choice::place(asked),
        Demand::CountTokens => Place::CountTokens,
        Demand::Models | Demand::Profile => Place::Models,
        Demand::Liveness => Place::Liveness,
        Demand::Token => Place::Token,
        Demand::Page | Demand::Refused(_) => Place::Nowhere,
    }
}

/// What is done, and whether the script did not foresee it.
fn decide(
    script: &Script,
    demand: &Demand,
    attempt: u32,
    n_body_bytes: usize,
    to: &Addressee<'_>,
) -> (Act, bool) {
    let expected = |reply| (Act::Reply(reply), false);
    let refused = |failure| Act::Reply(failure::reply(failure, to.wire, to.request_id));
    match demand {
        Demand::Message(asked) => {
            let choice = choice::choose(script, asked, attempt);
            let message = Message::new(&choice.answer, &asked.model, to.place, attempt);
            (reply::act(&choice, &message, to), choice.unexpected)
        }
        Demand::CountTokens => expected(endpoints::token_count(to.wire, n_body_bytes)),
        Demand::Models => expected(endpoints::models(to.wire, script)),
        // None is known, and the agent CLI expects as much of a role that may not look.
        Demand::Profile => (refused(&refusal(404, "there is no such inference profile")), false),
        Demand::Liveness => expected(Reply::whole(200, "text/plain", Bytes::new())),
        Demand::Token => expected(endpoints::token()),
        Demand::Page => (Act::Reply(endpoints::no_page()), true),
        Demand::Refused(failure) => (refused(failure), true),
    }
}

fn response(reply: &Reply, wire: Wire, request_id: &str) -> Builder {
    let mut response = Response::builder()
        .status(reply.status)
        .header(CONTENT_TYPE, &reply.content_type)
        .header(wire.request_id_header(), request_id);
    if let Some(length) = reply.length {
        response = response.header(CONTENT_LENGTH, length);
    } else {
        response = response.header(CACHE_CONTROL, "no-cache");
    }
    if let Some(seconds) = reply.retry_after {
        response = response.header(RETRY_AFTER, seconds);
    }
    if let Some(name) = &reply.aws_error {
        response = response.header(AWS_ERROR, name);
    }
    response
}

/// The answer to a request that is no longer written down.
fn ledger_full(wire: Wire) -> Response<Body> {
    let complaint = format!(
        "the scripted provider answered {MAX_REQUESTS} requests, which is all it does: \
         the agent seems to loop"
    );
    let request_id = "req_scripted_refused";
    let reply = failure::reply(&refusal(400, &complaint), wire, request_id);
    let body: Vec<Bytes> = reply.frames.iter().map(|frame| frame.bytes.clone()).collect();
    response(&reply, wire, request_id)
        .body(Body::from(body.concat()))
        .expect("an error's status and type are right")
}

fn refusal(status: u16, message: &str) -> Failure {
    Failure { status, kind: None, message: Some(message.to_owned()), retry_after: None }
}
