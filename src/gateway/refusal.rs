//! What the gateway says itself, in the form in which Anthropic's API says what is wrong: the agent
//! CLI shows the message, and so does the run.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Response, StatusCode};
use serde_json::json;

use super::google::MintError;

/// Why the gateway does not pass a request on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It does not show the run's token.
    Token,
    /// The path leads to nothing that an agent needs.
    Path,
    /// The body could not be had: too large, broken off, too slow.
    Body(&'static str),
    /// The body cannot be read.
    Unreadable(String),
    /// What is asked for would reach the network past the sandbox.
    Rule(String),
    /// There were too many in all.
    UsedUp,
    /// Who made the credential does not take it any more.
    Denied(String),
    /// The model service cannot be reached.
    Unreachable(String),
    /// The model service takes too long for its first byte.
    Silent,
}

impl Refusal {
    /// The sentence that the agent and the ledger get.
    pub(super) fn message(&self) -> String {
        match self {
            Self::Token => "the run's own token is missing".to_owned(),
            Self::Path => "blocked by policy: a sandbox may ask its model service for messages, \
                           token counts and models, and nothing else"
                .to_owned(),
            Self::Body(why) => (*why).to_owned(),
            Self::Unreadable(why) => format!("the request cannot be read: {why}"),
            Self::Rule(rule) => format!(
                "blocked by policy: {rule}, with a network of its own; do not try to get around it"
            ),
            Self::UsedUp => "this run has made too many requests".to_owned(),
            Self::Denied(why) => format!("the credential of the model service is of no use: {why}"),
            Self::Unreachable(why) => format!("the model service cannot be reached: {why}"),
            Self::Silent => "the model service did not begin to answer in time".to_owned(),
        }
    }

    /// The status, and the word for it in the API's own list of errors.
    fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Token | Self::Denied(_) => (StatusCode::UNAUTHORIZED, "authentication_error"),
            Self::Path => (StatusCode::NOT_FOUND, "not_found_error"),
            Self::Body(_) | Self::Unreadable(_) => {
                (StatusCode::BAD_REQUEST, "invalid_request_error")
            }
            // Not 403: the agent CLI takes that for a bad key.
            Self::Rule(_) => (StatusCode::BAD_REQUEST, "invalid_request_error"),
            Self::UsedUp => (StatusCode::BAD_REQUEST, "invalid_request_error"),
            Self::Unreachable(_) => (StatusCode::BAD_GATEWAY, "api_error"),
            Self::Silent => (StatusCode::GATEWAY_TIMEOUT, "timeout_error"),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.kind().0
    }

    pub(super) fn response(&self) -> Response<Body> {
        let (status, kind) = self.kind();
        let body = json!({
            "type": "error", "error": { "type": kind, "message": self.message() },
        });
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }
}

impl From<MintError> for Refusal {
    fn from(error: MintError) -> Self {
        match error {
            MintError::Denied(why) => Self::Denied(why),
            MintError::Unreachable(why) => {
                Self::Unreachable(format!("its access token cannot be had: {why}"))
            }
        }
    }
}
