//! Every answer that is not a success, and the only place that knows status codes.

use std::any::Any;
use std::error::Error;
use std::sync::Arc;

use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::run::error_chain;
use crate::secret::Redactor;

/// What a client is told after a failure of ours. The reason stands in the log alone.
const INTERNAL: &str = "Internal error. The server's log has the reason";

/// When to come again while a part is not there, in seconds: a restart takes less.
const UNAVAILABLE_SECONDS: u64 = 10;

/// Why a request is not answered as it was wished. The texts are what a client's user sees.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No token, a malformed one, or one that is not known.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// The token is good, but not for this.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The path is there, the method is not.
    #[error("{detail}")]
    MethodNotAllowed {
        /// What to do instead.
        detail: String,
        /// The methods that are there, as the `Allow` header writes them.
        allow: String,
    },
    /// It is already there, or its state forbids it.
    #[error("{0}")]
    Conflict(String),
    /// The request is understood and wrong.
    #[error("{0}")]
    BadRequest(String),
    /// The request does not have the shape that is asked for: everything that is wrong with it.
    #[error("the request has {} faults", .0.len())]
    Invalid(Vec<Problem>),
    /// The request is larger than is read.
    #[error("{0}")]
    TooLarge(String),
    /// Too much is going on for this client.
    #[error("{detail}")]
    TooMany {
        /// What is the limit.
        detail: String,
        /// When to come again, in seconds.
        retry_after: u64,
    },
    /// A part that the answer needs is not there for now.
    #[error("{detail}")]
    Unavailable {
        /// What is missing, for the client.
        detail: String,
        /// Why, for the log.
        source: Option<BoxError>,
    },
    /// A service that had to be asked did not answer.
    #[error("{0}")]
    BadGateway(String),
    /// The answer took too long.
    #[error("{0}")]
    TooSlow(String),
    /// A failure of ours. Nothing of it reaches the client.
    #[error("{act}")]
    Internal {
        /// What failed, such as `could not list the tasks`.
        act: &'static str,
        /// Why.
        source: BoxError,
    },
}

/// Any error, for the log.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// One fault of a request, in the form that FastAPI gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Where, such as `["body", "name"]`.
    pub loc: Vec<Value>,
    /// What is wrong and what to write instead.
    pub msg: String,
    /// The kind of fault, such as `missing`.
    pub kind: &'static str,
}

impl Problem {
    /// A fault of a field of the body.
    #[must_use]
    pub fn of_field(field: &str, kind: &'static str, msg: impl Into<String>) -> Self {
        Self { loc: vec![json!("body"), json!(field)], msg: msg.into(), kind }
    }
}

/// The answer after something was made.
#[derive(Debug)]
pub struct Created(
    /// What was made.
    pub Value,
);

impl IntoResponse for Created {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, axum::Json(self.0)).into_response()
    }
}

/// Marks an answer as a part of what was asked for.
pub(super) fn is_a_part(response: &mut Response) {
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
}

/// Who reads an error: its shape differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Envelope {
    /// `{"detail": …}`, as FastAPI writes it.
    Detail,
    /// `{"error": {"message", "type", "param", "code"}}`, as OpenAI's clients read it.
    OpenAi,
}

impl Envelope {
    /// The shape that the clients of a path read.
    pub(super) fn of_path(path: &str) -> Self {
        let is_below = |folder: &str| {
            path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if is_below("/v1") || is_below("/chat") || path == "/models" {
            Self::OpenAi
        } else {
            Self::Detail
        }
    }
}

impl ApiError {
    /// A failure of ours while doing `act`.
    pub fn internal(act: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Internal { act, source: source.into() }
    }

    /// Nothing new fits on the disk.
    pub(super) fn no_room() -> Self {
        let detail = "The server's disk is nearly full: it takes nothing new until there is room; \
                      its operator can remove old runs";
        Self::Unavailable { detail: detail.to_owned(), source: None }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::BadGateway(_) => StatusCode::BAD_GATEWAY,
            Self::TooSlow(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What OpenAI's clients read as `type` and `code`.
    fn open_ai_words(&self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Unauthorized(_) => ("invalid_request_error", Some("invalid_api_key")),
            Self::Forbidden(_) => ("permission_error", None),
            Self::NotFound(_) => ("invalid_request_error", Some("not_found")),
            Self::MethodNotAllowed { .. } => ("invalid_request_error", Some("method_not_allowed")),
            Self::Conflict(_) => ("invalid_request_error", Some("conflict")),
            Self::BadRequest(_) | Self::Invalid(_) => ("invalid_request_error", None),
            Self::TooLarge(_) => ("invalid_request_error", Some("request_too_large")),
            Self::TooMany { .. } => ("rate_limit_error", Some("rate_limit_exceeded")),
            Self::Unavailable { .. }
            | Self::BadGateway(_)
            | Self::TooSlow(_)
            | Self::Internal { .. } => ("server_error", None),
        }
    }

    fn header(&self) -> Option<(axum::http::HeaderName, HeaderValue)> {
        match self {
            Self::Unauthorized(_) => Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            Self::MethodNotAllowed { allow, .. } => {
                HeaderValue::from_str(allow).ok().map(|allow| (ALLOW, allow))
            }
            Self::TooMany { retry_after, .. } => Some((RETRY_AFTER, (*retry_after).into())),
            Self::Unavailable { .. } => Some((RETRY_AFTER, UNAVAILABLE_SECONDS.into())),
            Self::Forbidden(_)
            | Self::NotFound(_)
            | Self::Conflict(_)
            | Self::BadRequest(_)
            | Self::Invalid(_)
            | Self::TooLarge(_)
            | Self::BadGateway(_)
            | Self::TooSlow(_)
            | Self::Internal { .. } => None,
        }
    }

    /// The reason, where it is not for the client.
    pub(super) fn hidden_reason(&self) -> Option<&BoxError> {
        match self {
            Self::Unavailable { source, .. } => source.as_ref(),
            Self::Internal { source, .. } => Some(source),
            Self::Unauthorized(_)
            | Self::Forbidden(_)
            | Self::NotFound(_)
            | Self::MethodNotAllowed { .. }
            | Self::Conflict(_)
            | Self::BadRequest(_)
            | Self::Invalid(_)
            | Self::TooLarge(_)
            | Self::TooMany { .. }
            | Self::BadGateway(_)
            | Self::TooSlow(_) => None,
        }
    }

    fn detail(&self, request_id: Option<&str>) -> Value {
        match (self, request_id) {
            (Self::Invalid(problems), _) => problems.iter().map(Problem::to_json).collect(),
            (Self::Internal { .. }, Some(id)) => json!(format!("{INTERNAL} (request {id}).")),
            (Self::Internal { .. }, None) => json!(format!("{INTERNAL}.")),
            (told, _) => json!(told.to_string()),
        }
    }

    pub(super) fn body(&self, envelope: Envelope, request_id: Option<&str>) -> Value {
        let detail = self.detail(request_id);
        let body = match envelope {
            Envelope::Detail => json!({ "detail": detail }),
            Envelope::OpenAi => {
                let (kind, code) = self.open_ai_words();
                let (message, param) = if let Self::Invalid(problems) = self {
                    (in_one_line(problems), first_field(problems))
                } else {
                    (detail, Value::Null)
                };
                json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
            }
        };
        without_credentials(body)
    }

    fn render(&self, envelope: Envelope, request_id: Option<&str>) -> Response {
        let mut response =
            (self.status(), self.body(envelope, request_id).to_string()).into_response();
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        if let Some((name, value)) = self.header() {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// An error can repeat what the client sent. Its form stays: a mask stands inside of texts.
fn without_credentials(body: Value) -> Value {
    let text = body.to_string();
    let masked = Redactor::shapes().redact_str(&text);
    if masked == text { body } else { serde_json::from_str(&masked).unwrap_or(Value::Null) }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.render(Envelope::Detail, None);
        // The layer that knows the path and the request's id finishes it.
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

impl Problem {
    fn to_json(&self) -> Value {
        json!({ "loc": self.loc, "msg": self.msg, "type": self.kind })
    }
}

/// Gives an error the shape that its reader expects, and tells the log what the client is not told.
pub(super) fn finish(response: Response, envelope: Envelope, request_id: &str) -> Response {
    let Some(error) = response.extensions().get::<Arc<ApiError>>().cloned() else {
        return response;
    };
    if let Some(reason) = error.hidden_reason() {
        tracing::error!(error = error_chain(reason.as_ref()), "{error}");
    }
    if matches!(*error, ApiError::TooSlow(_)) {
        tracing::warn!("{error}");
    }
    error.render(envelope, Some(request_id))
}

/// The answer after a panic of a handler.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let words = match panic.downcast::<String>() {
        Ok(words) => *words,
        Err(panic) => match panic.downcast::<&'static str>() {
            Ok(words) => (*words).to_owned(),
            Err(_) => "a panic without words".to_owned(),
        },
    };
    ApiError::internal("a request's handler panicked", words).into_response()
}

fn in_one_line(problems: &[Problem]) -> Value {
    let lines = problems.iter().map(|problem| {
        let place: Vec<String> = problem
            .loc
            .iter()
            .skip(1)
            .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
            .collect();
        if place.is_empty() {
            problem.msg.clone()
        } else {
            format!("{}: {}", place.join("."), problem.msg)
        }
    });
    json!(lines.collect::<Vec<_>>().join("; "))
}

fn first_field(problems: &[Problem]) -> Value {
    problems.first().and_then(|problem| problem.loc.get(1)).cloned().unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_inside_is_not_told_to_the_client() {
        let error = ApiError::internal("could not list the tasks", "disk on fire at /var/secret");
        let body = error.body(Envelope::Detail, Some("r1")).to_string();
        assert_eq!(
            body,
            r#"{"detail":"Internal error. The server's log has the reason (request r1)."}"#
        );
    }

    #[test]
    fn faults_of_a_request_are_a_list_for_fastapi_and_a_line_for_openai() {
        let error = ApiError::Invalid(vec![
            Problem::of_field("name", "missing", "Field required"),
            Problem::of_field("workflow", "missing", "Field required"),
        ]);
        assert_eq!(
            error.body(Envelope::Detail, None),
            json!({ "detail": [
                { "loc": ["body", "name"], "msg": "Field required", "type": "missing" },
                { "loc": ["body", "workflow"], "msg": "Field required", "type": "missing" },
            ] })
        );
        assert_eq!(
            error.body(Envelope::OpenAi, None),
            json!({ "error": {
                "message": "name: Field required; workflow: Field required",
                "type": "invalid_request_error", "param": "name", "code": null,
            } })
        );
    }

    #[test]
    fn only_the_paths_of_openai_have_its_envelope() {
        for (path, envelope) in [
            ("/v1/chat/completions", Envelope::OpenAi),
            ("/chat/completions", Envelope::OpenAi),
            ("/chat/completions/chatcmpl-1/events", Envelope::OpenAi),
            ("/models", Envelope::OpenAi),
            ("/chats", Envelope::Detail),
            ("/v1", Envelope::OpenAi),
            ("/v1x", Envelope::Detail),
            ("/api/v1/files", Envelope::Detail),
        ] {
            assert_eq!(Envelope::of_path(path), envelope, "{path}");
        }
    }
}
