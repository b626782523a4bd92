//! What a sandbox may ask of a model service: the endpoints that its agent CLI needs, by method and
//! path, and nothing else of what lies on the same host.

use axum::http::Method;
use percent_encoding::percent_decode_str;

use crate::provider::{Route, VertexPlace, Wire};

/// Parameters of a query that mean something to a model service and are no credential.
const QUERY: [&str; 7] =
    ["after_id", "before_id", "beta", "limit", "maxResults", "nextToken", "type"];

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A reply of a model.
    Message,
    /// A count of tokens.
    CountTokens,
    /// Which models there are.
    Models,
    /// Whether the service is there.
    Liveness,
}

impl Endpoint {
    /// The word in the ledger.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::CountTokens => "count_tokens",
            Self::Models => "models",
            Self::Liveness => "liveness",
        }
    }

    /// Whether the request has a body that says what a model is to do.
    pub(super) fn has_prompt(self) -> bool {
        match self {
            Self::Message | Self::CountTokens => true,
            Self::Models | Self::Liveness => false,
        }
    }
}

/// A request that may pass as far as its head goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) endpoint: Endpoint,
    /// The model that the path names, decoded.
    pub(super) model: Option<String>,
}

/// Finds what a method and a path ask for; `None` is nothing that may pass.
pub(super) fn target(route: &Route, method: &Method, path: &str) -> Option<Target> {
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    // The way up, in any spelling, leads to paths that were not looked at.
    if segments.iter().any(|segment| is_way_up(segment)) {
        return None;
    }
    let is_read = method == Method::GET || method == Method::HEAD;
    if is_read && segments == [""] {
        return Some(Target { endpoint: Endpoint::Liveness, model: None });
    }
    match route.wire {
        Wire::Messages => messages(method, &segments),
        Wire::Bedrock => bedrock(method, &segments),
        Wire::Vertex => vertex(route.vertex.as_ref()?, method, &segments),
    }
}

/// The query without what could be a credential or a switch that nobody knows.
pub(super) fn query(query: &str) -> Option<String> {
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| QUERY.contains(&pair.split('=').next().unwrap_or_default()))
        .collect();
    (!kept.is_empty()).then(|| kept.join("&"))
}

fn messages(method: &Method, segments: &[&str]) -> Option<Target> {
    let endpoint = match (method.as_str(), segments) {
        ("POST", ["v1", "messages"]) => Endpoint::Message,
        ("POST", ["v1", "messages", "count_tokens"]) => Endpoint::CountTokens,
        ("GET", ["v1", "models"] | ["v1", "models", _]) => Endpoint::Models,
        _ => return None,
    };
    Some(Target { endpoint, model: None })
}

fn bedrock(method: &Method, segments: &[&str]) -> Option<Target> {
    let (endpoint, model) = match (method.as_str(), segments) {
        ("POST", ["model", model, "invoke" | "invoke-with-response-stream"]) => {
            (Endpoint::Message, Some(model))
        }
        ("POST", ["model", model, "count-tokens"]) => (Endpoint::CountTokens, Some(model)),
        ("GET", ["inference-profiles"] | ["inference-profiles", _]) => (Endpoint::Models, None),
        _ => return None,
    };
    Some(Target { endpoint, model: model.map(|model| decoded(model)) })
}

fn vertex(place: &VertexPlace, method: &Method, segments: &[&str]) -> Option<Target> {
    let ["projects", project, "locations", location, "publishers", "anthropic", "models", call] =
        segments
    else {
        return None;
    };
    // The account may have other projects, and somebody else's may trust it.
    if decoded(project) != place.project || decoded(location) != place.location {
        return None;
    }
    let (model, verb) = call.rsplit_once(':')?;
    if method != Method::POST || !matches!(verb, "rawPredict" | "streamRawPredict") {
        return None;
    }
    Some(match model {
        "count-tokens" => Target { endpoint: Endpoint::CountTokens, model: None },
        model => Target { endpoint: Endpoint::Message, model: Some(decoded(model)) },
    })
}

fn is_way_up(segment: &str) -> bool {
    let decoded = percent_decode_str(segment).collect::<Vec<u8>>();
    let has_control = decoded.iter().any(|byte| byte.is_ascii_control() || *byte == b'\\');
    has_control || matches!(decoded.as_slice(), b"." | b"..") || has_step(&decoded)
}

/// A slash that was encoded can hide a step too; a name of Amazon's has some, and no step.
fn has_step(decoded: &[u8]) -> bool {
    decoded.split(|byte| *byte == b'/').any(|part| matches!(part, b"." | b".."))
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Credential;

    fn found(wire: Wire, request: &str) -> String {
        let (method, path) = request.split_once(' ').unwrap();
        let route = Route {
            upstream: "https://made-up.example".to_owned(),
            control: None,
            credential: Credential::None,
            wire,
            vertex: Some(VertexPlace {
                project: "example.org:p".to_owned(),
                location: "us-east5".to_owned(),
            }),
        };
        match target(&route, &method.parse().unwrap(), path) {
            Some(Target { endpoint, model }) => {
                format!("{} {}", endpoint.as_str(), model.unwrap_or_default()).trim_end().to_owned()
            }
            None => "refused".to_owned(),
        }
    }

    #[test]
    fn what_the_agent_cli_asks_for_may_pass() {
        let vertex = "POST /projects/example.org:p/locations/us-east5/publishers/anthropic/models";
        for (wire, request, expected) in [
            (Wire::Messages, "POST /v1/messages", "message"),
            (Wire::Messages, "POST /v1/messages/count_tokens", "count_tokens"),
            (Wire::Messages, "GET /v1/models", "models"),
            (Wire::Messages, "HEAD /", "liveness"),
            (
                Wire::Bedrock,
                "POST /model/us.anthropic.x-v1:0/invoke",
                "message us.anthropic.x-v1:0",
            ),
            (
                Wire::Bedrock,
                "POST /model/arn:aws:b%2Fx/invoke-with-response-stream",
                "message arn:aws:b/x",
            ),
            (Wire::Bedrock, "GET /inference-profiles", "models"),
            (Wire::Vertex, &format!("{vertex}/m@1:streamRawPredict"), "message m@1"),
            (Wire::Vertex, &format!("{vertex}/count-tokens:rawPredict"), "count_tokens"),
            (Wire::Vertex, &format!("{}/m:rawPredict", vertex.replace(':', "%3A")), "message m"),
        ] {
            assert_eq!(found(wire, request), expected, "{request}");
        }
    }

    #[test]
    fn nothing_else_of_the_host_can_be_reached() {
        let own = "POST /projects/example.org:p/locations/us-east5/publishers";
        let models = &format!("{own}/anthropic/models/m:rawPredict");
        assert_eq!(found(Wire::Vertex, models), "message m");
        for (wire, request) in [
            (Wire::Messages, "POST /v1/files"),
            (Wire::Messages, "GET /v1/messages"),
            (Wire::Messages, "POST /v1/messages/batches"),
            (Wire::Messages, "POST /v1/messages/"),
            (Wire::Messages, "POST //v1/messages"),
            (Wire::Messages, "GET /v1/models/../organizations"),
            (Wire::Messages, "GET /v1/models/%2e%2e"),
            (Wire::Messages, "GET /v1/models/..%2forganizations"),
            (Wire::Messages, "GET /v1/models/a%5c..%5cb"),
            (Wire::Messages, "GET /v1/models/a%00"),
            (Wire::Messages, "DELETE /v1/models/x"),
            (Wire::Messages, "POST /model/x/invoke"),
            (Wire::Bedrock, "POST /model/x/converse"),
            (Wire::Bedrock, "POST /v1/messages"),
            (Wire::Bedrock, "POST /model/..%2f..%2fguardrails/invoke"),
            (Wire::Vertex, &format!("{own}/google/models/g:rawPredict")),
            (Wire::Vertex, &format!("{own}/anthropic/models/m:export")),
            (Wire::Vertex, &models.replace("org:p", "org:q")),
            (Wire::Vertex, &models.replace("org:p", "org:p%2F..")),
            (Wire::Vertex, &models.replace("us-east5", "us-east1")),
            (Wire::Vertex, &models.replace("us-east5", "global")),
        ] {
            assert_eq!(found(wire, request), "refused", "{request}");
        }
    }

    #[test]
    fn a_key_in_a_query_goes_no_further() {
        for (given, expected) in [
            ("beta=true", Some("beta=true")),
            ("beta=true&api_key=made-up&limit=5", Some("beta=true&limit=5")),
            ("key=made-up", None),
            ("access_token=made-up&x-api-key=made-up", None),
            ("", None),
        ] {
            assert_eq!(query(given).as_deref(), expected, "{given}");
        }
    }
}
