//! One chat on its way: the request out, the answer back byte for byte, and then its record.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::budget::{set_aside, settle};
use super::passthrough::Chat;
use super::record::{Ending, Told, record};
use crate::api::Shared;
use crate::api::error::{ApiError, Envelope};
use crate::upstream::{Answer, CallError, Completion, Reading};

/// Pieces of an answer that wait for the client. A client that takes none stops the service.
const N_PIECES: usize = 4;

/// Names the chat's record.
const TRAJECTORY_ID: HeaderName = HeaderName::from_static("x-jetty-trajectory-id");

/// The service's own id of the request. Ours is in `x-request-id`, as in every answer.
const UPSTREAM_REQUEST_ID: HeaderName = HeaderName::from_static("x-upstream-request-id");

/// Proxies that hold answers back would hold back every token.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The headers of a service that go back to the client.
const PASSED_BACK: [&str; 7] = [
    "content-type",
    "content-encoding",
    "content-length",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "request-id",
];

/// And those that begin so.
const PASSED_BACK_PREFIXES: [&str; 3] = ["x-ratelimit-", "openai-", "anthropic-"];

/// The client's end of a chat.
type Head = oneshot::Sender<Response>;

/// Passes a chat on, its answer back, and records both.
pub(super) async fn relay(api: Shared, chat: Chat, head: Head) {
    let mut told = Told::default();
    let began = Instant::now();
    let held = tokio::select! {
        biased;
        () = api.chats.stop.cancelled() => Err(None),
        held = set_aside(&chat.purse, &chat.model, chat.size) => held.map_err(Some),
    };
    told.ending = match held {
        Ok(held) => {
            told.ending = pass(&api, &chat, head, (&mut told, began)).await;
            settle(held, &chat.model, &told);
            told.ending.clone()
        }
        Err(None) => stopped(&chat, head),
        Err(Some((error, code))) => refuse(&chat, error, code, head),
    };
    told.latency = began.elapsed();
    let purse = chat.purse.clone();
    record(&api, chat, told).await;
    purse.close().await;
}

async fn pass(
    api: &Shared,
    chat: &Chat,
    mut head: Head,
    (told, began): (&mut Told, Instant),
) -> Ending {
    let chats = &api.chats;
    let asked = chats.upstream.ask(&chat.endpoint, chat.headers.clone(), chat.body.clone());
    let answer = tokio::select! {
        biased;
        () = chats.stop.cancelled() => return stopped(chat, head),
        () = head.closed() => return Ending::Cancelled,
        answer = asked => answer,
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            told.is_unsent = error.is_unsent();
            return unreached(chat, &error, head);
        }
    };
    told.status = Some(answer.status);
    told.upstream_request_id = request_id(&answer.headers);
    match answer.status {
        200..=299 => stream(api, chat, (answer, head), (told, began)).await,
        300..=399 => {
            let host = chat.endpoint.url.host_str().unwrap_or_default();
            let why = format!(
                "{host} answered with a redirect ({}), which is not followed with a key: mend its \
                 address",
                answer.status
            );
            refuse(chat, ApiError::BadGateway(why), "upstream_error", head)
        }
        _ => refusal(api, chat, (answer, head), (told, began)).await,
    }
}

/// Passes the bytes of an answer on, each piece when it comes.
async fn stream(
    api: &Shared,
    chat: &Chat,
    (mut answer, head): (Answer, Head),
    (told, began): (&mut Told, Instant),
) -> Ending {
    let content_type = answer.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let mut reading = Reading::new(content_type.unwrap_or_default());
    let (pieces, receiver) = mpsc::channel(N_PIECES);
    let is_whole = Arc::new(AtomicBool::new(false));
    let response = respond(chat, &answer, body_of(receiver, Arc::clone(&is_whole)));
    if head.send(response).is_err() {
        return Ending::Cancelled;
    }
    let ending = loop {
        let next = tokio::select! {
            biased;
            () = api.chats.stop.cancelled() => break failed("server_stopped", STOPPED.to_owned()),
            () = pieces.closed() => break gone(&reading),
            next = answer.next() => next,
        };
        let piece = match next {
            Ok(Some(piece)) => piece,
            Ok(None) => {
                is_whole.store(true, Ordering::Release);
                break Ending::Completed;
            }
            Err(error) => break failed("upstream_broke_off", error.sentence()),
        };
        told.first_byte.get_or_insert_with(|| began.elapsed());
        let sent = tokio::select! {
            biased;
            () = api.chats.stop.cancelled() => break failed("server_stopped", STOPPED.to_owned()),
            sent = pieces.send(piece.clone()) => sent,
        };
        // Only now: the client does not wait for our reading.
        reading.feed(&piece);
        if sent.is_err() {
            break gone(&reading);
        }
    };
    // The client sees the end before the record is written.
    drop(pieces);
    told.completion = reading.finish();
    judged(ending, &told.completion)
}

/// What the server says to chats that go on when it stops.
const STOPPED: &str = "the server was stopped while the answer came";

/// The client has gone. After the stream's last word that is how clients end it.
fn gone(reading: &Reading) -> Ending {
    if reading.is_done() { Ending::Completed } else { Ending::Cancelled }
}

fn failed(code: &'static str, why: String) -> Ending {
    Ending::Failed { code, why }
}

/// The pieces as a body. Where no more come and that is not the answer's end, the connection is cut, so
/// that the client sees that it is not whole.
fn body_of(pieces: mpsc::Receiver<Bytes>, is_whole: Arc<AtomicBool>) -> Body {
    let body = futures_util::stream::unfold(Some(pieces), move |pieces| {
        let is_whole = Arc::clone(&is_whole);
        async move {
            let mut pieces = pieces?;
            match pieces.recv().await {
                Some(piece) => Some((Ok(piece), Some(pieces))),
                None if is_whole.load(Ordering::Acquire) => None,
                None => Some((Err(io::Error::from(io::ErrorKind::ConnectionAborted)), None)),
            }
        }
    });
    Body::from_stream(body)
}

/// A success is one only if the service says nothing else in it.
fn judged(ending: Ending, completion: &Completion) -> Ending {
    match (ending, &completion.error) {
        (Ending::Completed, Some(error)) => {
            Ending::Failed { code: "upstream_error", why: error.clone() }
        }
        (Ending::Completed, None) if !completion.is_whole() => Ending::Failed {
            code: "upstream_broke_off",
            why: "the answer ended before it was whole, or is no completion".to_owned(),
        },
        (ending, _) => ending,
    }
}

/// Passes the answer of a service on that refuses. It may repeat the key that it was sent.
async fn refusal(
    api: &Shared,
    chat: &Chat,
    (mut answer, mut head): (Answer, Head),
    (told, began): (&mut Told, Instant),
) -> Ending {
    let body = tokio::select! {
        biased;
        () = api.chats.stop.cancelled() => return stopped(chat, head),
        () = head.closed() => return Ending::Cancelled,
        body = answer.refusal() => body,
    };
    let body = match body {
        Ok(body) => Bytes::from(chat.redactor.redact(&body).into_owned()),
        Err(error) => return unreached(chat, &error, head),
    };
    told.first_byte = Some(began.elapsed());
    let mut reading = Reading::new("application/json");
    reading.feed(&body);
    told.completion = reading.finish();
    let status = answer.status;
    let said = told.completion.error.clone();
    let why = said.unwrap_or_else(|| format!("the service answered {status}"));
    let mut response = respond(chat, &answer, Body::from(body));
    // Its length is another one where a key was masked.
    response.headers_mut().remove(CONTENT_LENGTH);
    let _ = head.send(response);
    Ending::Failed { code: "upstream_error", why }
}

/// The service was not reached, or said nothing.
fn unreached(chat: &Chat, error: &CallError, head: Head) -> Ending {
    let why = error.sentence();
    let api_error = match error {
        CallError::Tls(_) | CallError::Client(_) | CallError::Gone(_) => {
            tracing::error!(error = why, "model services cannot be called");
            ApiError::internal("could not call a model service", why.clone())
        }
        CallError::Reach { .. } | CallError::Silent { .. } | CallError::BrokeOff { .. }
            if error.is_timeout() =>
        {
            ApiError::TooSlow(why)
        }
        CallError::Reach { .. } | CallError::Silent { .. } | CallError::BrokeOff { .. } => {
            ApiError::BadGateway(why)
        }
    };
    let code = if error.is_timeout() { "upstream_timeout" } else { "upstream_unreachable" };
    refuse(chat, api_error, code, head)
}

fn stopped(chat: &Chat, head: Head) -> Ending {
    let detail = STOPPED.to_owned();
    refuse(chat, ApiError::Unavailable { detail, source: None }, "server_stopped", head)
}

/// Answers in the service's place.
fn refuse(chat: &Chat, error: ApiError, code: &'static str, head: Head) -> Ending {
    let why = chat.redactor.redact_str(&error.to_string());
    let mut body = error.body(Envelope::OpenAi, None);
    body["error"]["code"] = code.into();
    body["jetty_metadata"] = json!({
        "trajectory_id": chat.name.id.as_str(), "workflow_id": chat.name.workflow_id(),
        "collection": chat.name.collection.as_str(), "task": chat.name.task.as_str(),
    });
    let body = chat.redactor.redact_str(&body.to_string());
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = error.status();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    with_id(chat, response.headers_mut());
    // A client that has gone does not hear it.
    let _ = head.send(response);
    Ending::Failed { code, why }
}

/// The head of a service's answer, as the client gets it.
fn respond(chat: &Chat, answer: &Answer, body: Body) -> Response {
    let mut response = Response::new(body);
    if let Ok(status) = answer.status.try_into() {
        *response.status_mut() = status;
    }
    let headers = response.headers_mut();
    for (name, value) in &answer.headers {
        let begins = |prefix: &str| name.as_str().starts_with(prefix);
        if PASSED_BACK.contains(&name.as_str()) || PASSED_BACK_PREFIXES.iter().any(|p| begins(p)) {
            headers.append(name.clone(), value.clone());
        }
    }
    let id = request_id(&answer.headers).and_then(|id| HeaderValue::from_str(&id).ok());
    headers.extend(id.map(|id| (UPSTREAM_REQUEST_ID, id)));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    with_id(chat, headers);
    response
}

fn with_id(chat: &Chat, headers: &mut HeaderMap) {
    if let Ok(id) = HeaderValue::from_str(chat.name.id.as_str()) {
        headers.insert(TRAJECTORY_ID, id);
    }
}

fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = ["x-request-id", "request-id"].iter().find_map(|name| headers.get(*name));
    id.and_then(|id| id.to_str().ok()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn an_answer_that_is_cut_ends_with_an_error_behind_its_pieces() {
        for is_whole in [true, false] {
            let (pieces, receiver) = mpsc::channel(N_PIECES);
            // The client has taken nothing yet, and there is no room for another word.
            for _ in 0..N_PIECES {
                pieces.try_send(Bytes::from_static(b"x")).unwrap();
            }
            let body = body_of(receiver, Arc::new(AtomicBool::new(is_whole)));
            drop(pieces);
            let came: Vec<bool> =
                body.into_data_stream().map(|piece| piece.is_ok()).collect().await;
            let mut expected = vec![true; N_PIECES];
            expected.extend((!is_whole).then_some(false));
            assert_eq!(came, expected);
        }
    }
}
