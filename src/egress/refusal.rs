//! What the proxy says itself: why something does not pass, for a program and for whoever reads it.

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use axum::http::{Response, StatusCode};
use serde_json::json;

use super::policy::Denial;

/// Why nothing comes of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The policy denies it.
    Denied(Denial),
    /// The name leads nowhere.
    Unresolved(String),
    /// Nobody was reached.
    Unreachable(String),
    /// The other side takes too long.
    Silent,
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl Refusal {
    /// What the ledger has of it.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Denied(denial) => denial.words().to_owned(),
            Self::Unresolved(why) => format!("the name cannot be resolved: {why}"),
            Self::Unreachable(why) => format!("the host cannot be reached: {why}"),
            Self::Silent => "the host did not answer in time".to_owned(),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Denied(Denial::NotForProxy | Denial::HostMismatch) => StatusCode::BAD_REQUEST,
            Self::Denied(_) => StatusCode::FORBIDDEN,
            Self::Unresolved(_) | Self::Unreachable(_) => StatusCode::BAD_GATEWAY,
            Self::Silent => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The answer. A denial names the host that was asked for and the rule.
    pub(super) fn response(&self, asked: &str) -> Response<Body> {
        let words = self.words();
        let body = match self {
            Self::Denied(denial) => json!({ "error": {
                "type": "blocked_by_policy",
                "rule": denial.rule(),
                "host": asked,
                "message": format!("blocked by policy: {words}. Do not try to get around it."),
            } }),
            Self::Unresolved(_) | Self::Unreachable(_) | Self::Silent => json!({ "error": {
                "type": "unreachable", "host": asked, "message": words,
            } }),
        };
        let mut response = Response::new(Body::from(format!("{body}\n")));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // What follows a refused CONNECT is no request.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}
