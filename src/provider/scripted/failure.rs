//! A failure as each wire says it: by status, by name, and in a body.

use bytes::Bytes;
use serde_json::{Value, json};

use super::framing::{Framing, aws_exception};
use super::reply::Reply;
use super::route::Wire;
use super::script::Failure;

/// Anthropic's own names. Elsewhere the same failure has another name, which the status gives; a
/// name that is not among them is one that the script chose for its wire.
const ANTHROPIC_TYPES: [&str; 10] = [
    "invalid_request_error",
    "authentication_error",
    "billing_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "rate_limit_error",
    "timeout_error",
    "api_error",
    "overloaded_error",
];

/// The reply that says no.
pub(super) fn reply(failure: &Failure, wire: Wire, request_id: &str) -> Reply {
    let said = Said::of(failure, wire);
    let reply = Reply::json(failure.status, &said.body(failure.status, request_id));
    let aws_error = match said.shape {
        Shape::Aws => Some(said.name),
        Shape::Anthropic | Shape::Google => None,
    };
    Reply { retry_after: failure.retry_after, aws_error, ..reply }
}

/// The last bytes of a stream that began as if all were well.
pub(super) fn inside(failure: &Failure, wire: Wire, request_id: &str) -> Bytes {
    match wire {
        Wire::Anthropic | Wire::OpenRouter | Wire::Vertex => {
            // What streams on Vertex is Anthropic's own stream, and so are the errors in it.
            let said = Said::of(failure, Wire::Anthropic);
            Framing::Sse.event(&said.body(failure.status, request_id))
        }
        Wire::Bedrock => {
            let name = chosen_name(failure).unwrap_or(aws_stream_exception(failure.status));
            let said = Said::new(Shape::Aws, name, failure);
            aws_exception(&lower_first(name), &said.body(failure.status, request_id))
        }
    }
}

/// Whose form an error has.
#[derive(Clone, Copy)]
enum Shape {
    Anthropic,
    Aws,
    Google,
}

/// A failure in the words of a wire.
struct Said {
    shape: Shape,
    name: String,
    message: String,
}

impl Said {
    fn of(failure: &Failure, wire: Wire) -> Self {
        let (shape, name) = match wire {
            Wire::Anthropic | Wire::OpenRouter => (Shape::Anthropic, None),
            Wire::Bedrock => (Shape::Aws, Some(aws_error(failure.status))),
            // Google has no name for Anthropic's 529: such an answer is Anthropic's, passed on.
            Wire::Vertex => match google_status(failure.status) {
                Some(name) => (Shape::Google, Some(name)),
                None => (Shape::Anthropic, None),
            },
        };
        let name = match name {
            Some(name) => chosen_name(failure).unwrap_or(name),
            None => failure.kind.as_deref().unwrap_or(anthropic_type(failure.status)),
        };
        Self::new(shape, name, failure)
    }

    fn new(shape: Shape, name: &str, failure: &Failure) -> Self {
        let message = match &failure.message {
            Some(message) => message.clone(),
            None => format!("scripted failure ({name})"),
        };
        Self { shape, name: name.to_owned(), message }
    }

    fn body(&self, status: u16, request_id: &str) -> Value {
        let Self { shape, name, message } = self;
        match shape {
            Shape::Anthropic => json!({
                "type": "error",
                "error": { "type": name, "message": message },
                "request_id": request_id,
            }),
            Shape::Aws => json!({ "message": message }),
            Shape::Google => {
                json!({ "error": { "code": status, "message": message, "status": name } })
            }
        }
    }
}

/// The name that the script gives, where it is not one of Anthropic's.
fn chosen_name(failure: &Failure) -> Option<&str> {
    failure.kind.as_deref().filter(|name| !ANTHROPIC_TYPES.contains(name))
}

/// Anthropic's error type for a status.
fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        500.. => "api_error",
        0..500 => "invalid_request_error",
    }
}

/// What Bedrock calls a failure before the stream, in `x-amzn-errortype`.
fn aws_error(status: u16) -> &'static str {
    match status {
        401 => "UnrecognizedClientException",
        403 => "AccessDeniedException",
        404 => "ResourceNotFoundException",
        408 => "ModelTimeoutException",
        424 => "ModelErrorException",
        429 => "ThrottlingException",
        503 | 529 => "ServiceUnavailableException",
        500.. => "InternalServerException",
        0..500 => "ValidationException",
    }
}

/// What Bedrock calls a failure inside the stream: a shorter list, which its protocol closes.
fn aws_stream_exception(status: u16) -> &'static str {
    match status {
        408 => "modelTimeoutException",
        424 => "modelStreamErrorException",
        429 => "throttlingException",
        503 | 529 => "serviceUnavailableException",
        500.. => "internalServerException",
        0..500 => "validationException",
    }
}

/// What Google calls a failure.
fn google_status(status: u16) -> Option<&'static str> {
    match status {
        400 => Some("INVALID_ARGUMENT"),
        401 => Some("UNAUTHENTICATED"),
        403 => Some("PERMISSION_DENIED"),
        404 => Some("NOT_FOUND"),
        409 => Some("ABORTED"),
        429 => Some("RESOURCE_EXHAUSTED"),
        499 => Some("CANCELLED"),
        500 => Some("INTERNAL"),
        501 => Some("UNIMPLEMENTED"),
        503 => Some("UNAVAILABLE"),
        504 => Some("DEADLINE_EXCEEDED"),
        _ => None,
    }
}

/// AWS writes one name with a capital in a header and without one in a stream.
fn lower_first(name: &str) -> String {
    let mut letters = name.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}
