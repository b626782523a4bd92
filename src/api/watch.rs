//! What every request gets: an id, a span, a figure, and errors in the reader's shape.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;
use uuid::Uuid;

use super::Shared;
use super::error::{self, Envelope};
use crate::telemetry::meters;

/// Names a request in the answer and in the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Keeps a browser from taking an answer for something else than it says.
const CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");

/// Longest id of a client's own that is taken over, in bytes. It goes into the log.
const MAX_REQUEST_ID_BYTES: usize = 64;

/// What stands for the path where none matched, so that guesses do not fill the figures.
const UNMATCHED: &str = "unmatched";

/// Watches over one request.
pub(super) async fn watch(State(api): State<Shared>, request: Request, next: Next) -> Response {
    let id = request_id(&request);
    let envelope = Envelope::of_path(request.uri().path());
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| UNMATCHED.to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!("request", request.id = %id, http.method = %method, http.route = %route);
    let matched = route;
    let started = (api.clock)();
    async move {
        let response = error::finish(next.run(request).await, envelope, &id);
        let status = response.status().as_u16();
        let took = (api.clock)().duration_since(started).unsigned_abs();
        meters::answered(figure_of(&method), &matched, status, took);
        tracing::debug!(http.status = status, duration_ms = took.as_millis(), "answered");
        with_headers(response, &id)
    }
    .instrument(span)
    .await
}

/// The method as a label. Clients can make methods up, and every label takes memory for good.
fn figure_of(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

fn with_headers(mut response: Response, id: &str) -> Response {
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response.headers_mut().insert(CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The client's own id where it is a harmless word, else a new one.
fn request_id(request: &Request) -> String {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let own = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    own.filter(|id| !id.is_empty() && id.len() <= MAX_REQUEST_ID_BYTES && id.bytes().all(harmless))
        .map_or_else(|| Uuid::new_v4().simple().to_string(), str::to_owned)
}
