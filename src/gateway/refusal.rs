//! What the gateway says itself, in the form in which Anthropic's API says what is wrong: the agent
//! CLI shows the message, and so does the run.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use axum::http::{Response, StatusCode};
use serde_json::json;

use super::google::MintError;
use super::upstream::Astray;
use crate::run::clipped;
use crate::spend::Wait;

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
    /// The prompt holds what must not leave.
    Guard(String),
    /// There were too many in all.
    UsedUp,
    /// Who made the credential does not take it any more.
    Denied(String),
    /// A budget has no room for it, in words.
    Exhausted(String),
    /// Nobody knows what it would cost, and that has a limit.
    Unpriced(String),
    /// It waited in vain for others, or for its collection's rate.
    Busy {
        /// For what.
        wait: Wait,
        /// When to come again.
        retry_after: Duration,
    },
    /// There was no room for its body.
    Crowded,
    /// Nobody knows what is left of a budget.
    Uncounted,
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
            // A parser quotes what it does not like, however long it is.
            Self::Unreadable(why) => format!("the request cannot be read: {}", clipped(why)),
            Self::Rule(why) | Self::Guard(why) => {
                format!("blocked by policy: {why}; do not try to get around it")
            }
            Self::UsedUp => "this run has made too many requests".to_owned(),
            Self::Denied(why) => format!("the credential of the model service is of no use: {why}"),
            Self::Exhausted(words) => {
                format!("budget exceeded: {words}. The run ends here: nothing more can be asked")
            }
            Self::Unpriced(why) => {
                format!("blocked by policy: {why}, and what is spent has a limit")
            }
            Self::Busy { wait: Wait::Rate, .. } => {
                "this collection asks faster than it may (requests or tokens in a minute)"
                    .to_owned()
            }
            Self::Busy { wait: Wait::Others, .. } => {
                "the budget waits for what other requests of this run will leave of it".to_owned()
            }
            Self::Crowded => "the run's other requests take all room for now".to_owned(),
            Self::Uncounted => "nobody can tell now what is left of the budget".to_owned(),
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
            Self::Rule(_) | Self::Guard(_) => (StatusCode::BAD_REQUEST, "invalid_request_error"),
            Self::UsedUp => (StatusCode::BAD_REQUEST, "invalid_request_error"),
            // Not 402 or 429: it must not be tried again, and the account is not the reason.
            Self::Exhausted(_) | Self::Unpriced(_) => {
                (StatusCode::BAD_REQUEST, "invalid_request_error")
            }
            Self::Busy { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error"),
            Self::Crowded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded_error"),
            Self::Uncounted => (StatusCode::SERVICE_UNAVAILABLE, "api_error"),
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
        if let Self::Busy { retry_after, .. } = self {
            let seconds = retry_after.as_secs() + 1;
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Astray> for Refusal {
    fn from(astray: Astray) -> Self {
        Self::Unreachable(astray.to_string())
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
