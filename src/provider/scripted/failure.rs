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

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use expect_test::expect;

    use super::*;

    fn failure(status: u16, kind: Option<&str>) -> Failure {
        let kind = kind.map(str::to_owned);
        Failure { status, kind, message: None, retry_after: None }
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// What a wire says before a stream: the body, and behind it AWS's header.
    fn before(failure: &Failure, wire: Wire) -> String {
        let reply = reply(failure, wire, "req_1");
        assert_eq!(reply.status, failure.status);
        let header = reply.aws_error.map(|name| format!(" {name}"));
        text(&reply.frames[0].bytes) + &header.unwrap_or_default()
    }

    #[test]
    fn a_status_has_its_name_on_each_wire() {
        let mut table = String::new();
        for status in [400, 401, 402, 403, 404, 408, 413, 418, 424, 429, 499, 500, 503, 504, 529] {
            let names = (anthropic_type(status), aws_error(status), aws_stream_exception(status));
            writeln!(table, "{status} {names:?} {:?}", google_status(status)).unwrap();
        }
        expect![[r#"
            400 ("invalid_request_error", "ValidationException", "validationException") Some("INVALID_ARGUMENT")
            401 ("authentication_error", "UnrecognizedClientException", "validationException") Some("UNAUTHENTICATED")
            402 ("billing_error", "ValidationException", "validationException") None
            403 ("permission_error", "AccessDeniedException", "validationException") Some("PERMISSION_DENIED")
            404 ("not_found_error", "ResourceNotFoundException", "validationException") Some("NOT_FOUND")
            408 ("invalid_request_error", "ModelTimeoutException", "modelTimeoutException") None
            413 ("request_too_large", "ValidationException", "validationException") None
            418 ("invalid_request_error", "ValidationException", "validationException") None
            424 ("invalid_request_error", "ModelErrorException", "modelStreamErrorException") None
            429 ("rate_limit_error", "ThrottlingException", "throttlingException") Some("RESOURCE_EXHAUSTED")
            499 ("invalid_request_error", "ValidationException", "validationException") Some("CANCELLED")
            500 ("api_error", "InternalServerException", "internalServerException") Some("INTERNAL")
            503 ("api_error", "ServiceUnavailableException", "serviceUnavailableException") Some("UNAVAILABLE")
            504 ("timeout_error", "InternalServerException", "internalServerException") Some("DEADLINE_EXCEEDED")
            529 ("overloaded_error", "ServiceUnavailableException", "serviceUnavailableException") None
        "#]].assert_eq(&table);
    }

    #[test]
    fn a_chosen_name_is_kept_and_anthropics_is_translated() {
        let mut story = String::new();
        for kind in [None, Some("rate_limit_error"), Some("ModelNotReadyException")] {
            let failure = failure(429, kind);
            writeln!(story, "{kind:?}").unwrap();
            for wire in [Wire::Anthropic, Wire::OpenRouter, Wire::Bedrock, Wire::Vertex] {
                writeln!(story, "  {}", before(&failure, wire)).unwrap();
            }
        }
        expect![[r#"
            None
              {"type":"error","error":{"type":"rate_limit_error","message":"scripted failure (rate_limit_error)"},"request_id":"req_1"}
              {"type":"error","error":{"type":"rate_limit_error","message":"scripted failure (rate_limit_error)"},"request_id":"req_1"}
              {"message":"scripted failure (ThrottlingException)"} ThrottlingException
              {"error":{"code":429,"message":"scripted failure (RESOURCE_EXHAUSTED)","status":"RESOURCE_EXHAUSTED"}}
            Some("rate_limit_error")
              {"type":"error","error":{"type":"rate_limit_error","message":"scripted failure (rate_limit_error)"},"request_id":"req_1"}
              {"type":"error","error":{"type":"rate_limit_error","message":"scripted failure (rate_limit_error)"},"request_id":"req_1"}
              {"message":"scripted failure (ThrottlingException)"} ThrottlingException
              {"error":{"code":429,"message":"scripted failure (RESOURCE_EXHAUSTED)","status":"RESOURCE_EXHAUSTED"}}
            Some("ModelNotReadyException")
              {"type":"error","error":{"type":"ModelNotReadyException","message":"scripted failure (ModelNotReadyException)"},"request_id":"req_1"}
              {"type":"error","error":{"type":"ModelNotReadyException","message":"scripted failure (ModelNotReadyException)"},"request_id":"req_1"}
              {"message":"scripted failure (ModelNotReadyException)"} ModelNotReadyException
              {"error":{"code":429,"message":"scripted failure (ModelNotReadyException)","status":"ModelNotReadyException"}}
        "#]].assert_eq(&story);
    }

    #[test]
    fn what_google_has_no_name_for_is_anthropics() {
        assert_eq!(
            before(&failure(529, None), Wire::Vertex),
            before(&failure(529, None), Wire::Anthropic)
        );
    }

    #[test]
    fn inside_a_stream_a_name_has_the_streams_form() {
        let exception = |kind| text(&inside(&failure(503, kind), Wire::Bedrock, "req_1"));
        for (kind, name) in [
            (None, "serviceUnavailableException"),
            (Some("overloaded_error"), "serviceUnavailableException"),
            (Some("ModelStreamErrorException"), "modelStreamErrorException"),
        ] {
            let frame = exception(kind);
            // Behind the name stands the next header, with its length before it.
            assert!(frame.contains(&format!("{name}\r:content-type")), "{frame:?}");
        }
        expect![[r#"
            event: error
            data: {"type":"error","error":{"type":"api_error","message":"scripted failure (api_error)"},"request_id":"req_1"}

        "#]].assert_eq(&text(&inside(&failure(503, None), Wire::Vertex, "req_1")));
    }
}
