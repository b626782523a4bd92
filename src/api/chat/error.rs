//! What a chat client hears when its request is not answered as it wished: OpenAI's envelope, and
//! with it the run, where there is one.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::api::error::{ApiError, Envelope};
use crate::run::error_chain;

/// OpenAI's clients send a request again after 408, 409, 429 and every 5xx, unless this says no.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Why a chat request is not answered as it was wished.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChatError {
    /// What any path can answer.
    #[error("{0}")]
    Api(ApiError),
    /// A field of the request is wrong.
    #[error("{field}: {problem}")]
    Field {
        /// The field, such as `jetty.timeout_sec` or `messages[0].content`.
        field: String,
        /// What is wrong and what to write instead.
        problem: String,
    },
    /// The answer failed after the run was taken in. It goes on, so the client must not send the
    /// request again.
    #[error("{error}")]
    AfterStart {
        /// What failed.
        error: ApiError,
        /// Which run it is.
        metadata: Value,
    },
    /// The run has ended, and not well.
    #[error("{}", .0.message)]
    Run(Box<FailedRun>),
}

/// A run that did not end well.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FailedRun {
    /// The failure's stable word, or the run's status.
    pub(super) code: String,
    /// What happened and what to do, as sentences.
    pub(super) message: String,
    /// Which run it is.
    pub(super) metadata: Value,
}

/// Whose failure it was that a run did not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blame {
    /// The request or the collection's settings: the same request fails again.
    Request,
    /// What happened while the agent worked.
    Run,
    /// This server.
    Server,
}

impl From<ApiError> for ChatError {
    fn from(error: ApiError) -> Self {
        match error {
            // OpenAI's clients know a wrong field as a 400.
            ApiError::Invalid(problems) => match problems.into_iter().next() {
                Some(problem) => {
                    let parts =
                        problem.loc.iter().skip(1).map(|part| {
                            part.as_str().map_or_else(|| part.to_string(), str::to_owned)
                        });
                    let field = parts.collect::<Vec<_>>().join(".");
                    Self::Field { field, problem: problem.msg }
                }
                None => Self::Api(ApiError::BadRequest("The request cannot be read".to_owned())),
            },
            other @ (ApiError::Unauthorized(_)
            | ApiError::Forbidden(_)
            | ApiError::NotFound(_)
            | ApiError::MethodNotAllowed { .. }
            | ApiError::Conflict(_)
            | ApiError::BadRequest(_)
            | ApiError::TooLarge(_)
            | ApiError::TooMany { .. }
            | ApiError::Unavailable { .. }
            | ApiError::BadGateway(_)
            | ApiError::TooSlow(_)
            | ApiError::Internal { .. }) => Self::Api(other),
        }
    }
}

impl ChatError {
    /// A field that is wrong.
    pub(super) fn field(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Field { field: field.into(), problem: problem.into() }
    }
}

impl FailedRun {
    /// The error of OpenAI's envelope, with the run beside it. A stream sends it as a frame.
    pub(super) fn body(&self) -> Value {
        let (_, kind) = blame(&self.code).words();
        json!({
            "error": { "message": self.message, "type": kind, "param": null, "code": self.code },
            "jetty_metadata": self.metadata,
        })
    }
}

impl Blame {
    /// The status and OpenAI's `type`. None of the statuses but 500 is one that clients try again.
    fn words(self) -> (StatusCode, &'static str) {
        match self {
            Self::Request => (StatusCode::BAD_REQUEST, "invalid_request_error"),
            Self::Run => (StatusCode::UNPROCESSABLE_ENTITY, "run_error"),
            Self::Server => (StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
        }
    }
}

/// Whose failure a run's failure is, by its word. What is not known here is ours.
fn blame(code: &str) -> Blame {
    match code {
        "refused" | "no_credentials" | "auth_refused" | "out_of_credit" | "model_not_found"
        | "prompt_too_long" | "setup_failed" | "snapshot_failed" | "unfit_image" => Blame::Request,
        "rate_limited"
        | "overloaded"
        | "provider_unreachable"
        | "provider_error"
        | "model_refused"
        | "turn_limit"
        | "budget_exceeded"
        | "agent_failed"
        | "agent_crashed"
        | "no_result"
        | "did_nothing"
        | "timeout"
        | "stalled"
        | "disk_limit"
        | "output_limit"
        | "out_of_memory"
        | "cancelled"
        | "archived" => Blame::Run,
        _ => Blame::Server,
    }
}

impl IntoResponse for ChatError {
    fn into_response(self) -> Response {
        match self {
            Self::Api(error) => error.into_response(),
            Self::Field { field, problem } => {
                let message =
                    if field.is_empty() { problem } else { format!("{field}: {problem}") };
                let kind = "invalid_request_error";
                let error =
                    json!({ "message": message, "type": kind, "param": field, "code": null });
                json_response(StatusCode::BAD_REQUEST, &json!({ "error": error }))
            }
            Self::AfterStart { error, metadata } => {
                if let Some(reason) = error.hidden_reason() {
                    tracing::error!(error = error_chain(reason.as_ref()), "{error}");
                }
                let mut body = error.body(Envelope::OpenAi, None);
                body["jetty_metadata"] = metadata;
                once(json_response(error.status(), &body))
            }
            Self::Run(run) => {
                let (status, _) = blame(&run.code).words();
                once(json_response(status, &run.body()))
            }
        }
    }
}

/// The answer for a run that goes on after the client's wait is over.
pub(super) fn accepted(body: &Value) -> Response {
    json_response(StatusCode::ACCEPTED, body)
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    let mut response = (status, body.to_string()).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The request was carried out: sent again it would start a second run.
fn once(mut response: Response) -> Response {
    response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_failed_run_says_whose_failure_it_was() {
        let answer = |code: &str| {
            let run = FailedRun {
                code: code.to_owned(),
                message: "M".to_owned(),
                metadata: json!({"trajectory_id": "x"}),
            };
            let response = ChatError::Run(Box::new(run)).into_response();
            assert_eq!(response.headers()[SHOULD_RETRY], "false", "{code}");
            response.status().as_u16()
        };
        for (code, status) in [
            ("auth_refused", 400),
            ("refused", 400),
            ("timeout", 422),
            ("cancelled", 422),
            ("sandbox_failed", 500),
            ("internal", 500),
            ("worker_lost", 500),
        ] {
            assert_eq!(answer(code), status, "{code}");
        }
    }

    #[test]
    fn a_body_of_the_wrong_shape_is_a_field_that_is_wrong() {
        let problem = crate::api::Problem::of_field("name", "missing", "Field required");
        let error = ChatError::from(ApiError::Invalid(vec![problem]));
        assert_eq!(error.to_string(), "name: Field required");
        assert_eq!(error.into_response().status().as_u16(), 400);
    }
}
