//! Finds what a request wants, and in which wire format, by its method and its path.

use axum::http::Method;
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::framing::Framing;
use super::request::Envelope;

/// Where gateways put Anthropic's API when they have others beside it.
const GATEWAY_BASE: &str = "/anthropic";

/// Where OpenRouter has its API. What else is below it is a page for people.
const OPENROUTER_BASE: &str = "/api";

/// The model that Vertex names when tokens are to be counted; the true one is in the body.
const VERTEX_COUNTER: &str = "count-tokens";

/// The form in which a model is spoken to. It follows from the path alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Wire {
    /// Anthropic's Messages API, from itself or from a gateway.
    Anthropic,
    /// Amazon Bedrock: the model in the path, streams in AWS's frames.
    Bedrock,
    /// Google Vertex AI: the model in the path, streams as Anthropic's.
    Vertex,
    /// OpenRouter: Anthropic's Messages API below `/api`.
    OpenRouter,
}

impl Wire {
    /// How it tells the events of a stream apart.
    pub(super) fn framing(self) -> Framing {
        match self {
            Self::Anthropic | Self::Vertex | Self::OpenRouter => Framing::Sse,
            Self::Bedrock => Framing::Aws,
        }
    }

    /// The header in which it names a request.
    pub(super) fn request_id_header(self) -> &'static str {
        match self {
            Self::Anthropic | Self::Vertex | Self::OpenRouter => "request-id",
            Self::Bedrock => "x-amzn-requestid",
        }
    }
}

/// What a method and a path ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) wire: Wire,
    pub(super) wish: Wish,
}

/// What a request wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    Message(Envelope),
    CountTokens,
    Models,
    /// One inference profile of Bedrock, by its name.
    Profile,
    Liveness,
    /// An access token of Google's.
    Token,
    /// Nothing that this server has.
    Nothing,
}

impl Route {
    pub(super) fn find(method: &Method, path: &str) -> Self {
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let (wire, wish) = match segments[..] {
            ["model", ref rest @ ..] => (Wire::Bedrock, bedrock_model(method, rest)),
            ["inference-profiles", ref rest @ ..] => {
                (Wire::Bedrock, inference_profiles(method, rest))
            }
            ["projects", ref rest @ ..] | ["v1", "projects", ref rest @ ..] => {
                (Wire::Vertex, vertex(method, rest))
            }
            ["token"] if method == Method::POST => (Wire::Vertex, Wish::Token),
            _ => match (below(path, OPENROUTER_BASE), below(path, GATEWAY_BASE)) {
                (Some(path), _) => (Wire::OpenRouter, messages_api(method, path)),
                (None, Some(path)) => (Wire::Anthropic, messages_api(method, path)),
                (None, None) => (Wire::Anthropic, messages_api(method, path)),
            },
        };
        Self { wire, wish }
    }
}

/// What stands behind a base path, if that is where a path leads.
fn below<'p>(path: &'p str, base: &str) -> Option<&'p str> {
    path.strip_prefix(base).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn messages_api(method: &Method, path: &str) -> Wish {
    match (method, path) {
        (&Method::POST, "/v1/messages") => Wish::Message(Envelope::Body),
        (&Method::POST, "/v1/messages/count_tokens") => Wish::CountTokens,
        (&Method::GET, "/v1/models") => Wish::Models,
        (&Method::HEAD, "" | "/") => Wish::Liveness,
        _ => Wish::Nothing,
    }
}

fn bedrock_model(method: &Method, rest: &[&str]) -> Wish {
    match (method, rest) {
        (&Method::POST, &[id, "invoke-with-response-stream"]) => message(id, true),
        (&Method::POST, &[id, "invoke"]) => message(id, false),
        (&Method::POST, &[_, "count-tokens"]) => Wish::CountTokens,
        _ => Wish::Nothing,
    }
}

fn inference_profiles(method: &Method, rest: &[&str]) -> Wish {
    match (method, rest) {
        (&Method::GET, &[]) => Wish::Models,
        (&Method::GET, &[_]) => Wish::Profile,
        _ => Wish::Nothing,
    }
}

/// `{project}/locations/{location}/publishers/anthropic/models/{model}:{verb}`.
fn vertex(method: &Method, rest: &[&str]) -> Wish {
    let (&Method::POST, &[_, "locations", _, "publishers", "anthropic", "models", last]) =
        (method, rest)
    else {
        return Wish::Nothing;
    };
    match last.rsplit_once(':') {
        Some((VERTEX_COUNTER, "rawPredict")) => Wish::CountTokens,
        Some((id, "rawPredict")) => message(id, false),
        Some((id, "streamRawPredict")) => message(id, true),
        Some(_) | None => Wish::Nothing,
    }
}

/// A message whose model stands in the path, where an ARN hides its slashes as `%2F`.
fn message(id: &str, stream: bool) -> Wish {
    match percent_decode_str(id).decode_utf8() {
        Ok(model) if !model.is_empty() => {
            Wish::Message(Envelope::Path { model: model.into_owned(), stream })
        }
        Ok(_) | Err(_) => Wish::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(method: Method, path: &str) -> (Wire, Wish) {
        let Route { wire, wish } = Route::find(&method, path);
        (wire, wish)
    }

    fn in_path(model: &str, stream: bool) -> Wish {
        Wish::Message(Envelope::Path { model: model.to_owned(), stream })
    }

    const VERTEX: &str = "/projects/made-up/locations/us-east5/publishers/anthropic/models";

    #[test]
    fn a_message_is_found_on_each_wire() {
        let arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc";
        let bedrock = |id: &str, verb: &str| format!("/model/{id}/{verb}");
        let vertex = |last: &str| format!("{VERTEX}/{last}");
        let cases = [
            ("/v1/messages".to_owned(), Wire::Anthropic, Wish::Message(Envelope::Body)),
            ("/anthropic/v1/messages".to_owned(), Wire::Anthropic, Wish::Message(Envelope::Body)),
            ("/api/v1/messages".to_owned(), Wire::OpenRouter, Wish::Message(Envelope::Body)),
            (
                bedrock("us.anthropic.made-up-v1:0", "invoke-with-response-stream"),
                Wire::Bedrock,
                in_path("us.anthropic.made-up-v1:0", true),
            ),
            (bedrock("made-up", "invoke"), Wire::Bedrock, in_path("made-up", false)),
            (bedrock(&arn.replace('/', "%2F"), "invoke"), Wire::Bedrock, in_path(arn, false)),
            (
                bedrock(&arn.replace(':', "%3a").replace('/', "%2f"), "invoke"),
                Wire::Bedrock,
                in_path(arn, false),
            ),
            (vertex("made-up@1:streamRawPredict"), Wire::Vertex, in_path("made-up@1", true)),
            (vertex("made-up%401:rawPredict"), Wire::Vertex, in_path("made-up@1", false)),
            (
                format!("/v1{}", vertex("made-up:rawPredict")),
                Wire::Vertex,
                in_path("made-up", false),
            ),
        ];
        for (path, wire, expected) in cases {
            assert_eq!(wish(Method::POST, &path), (wire, expected), "{path}");
        }
    }

    #[test]
    fn the_small_endpoints_are_found_on_each_wire() {
        let counter = format!("{VERTEX}/count-tokens:rawPredict");
        let cases = [
            (Method::POST, "/v1/messages/count_tokens", Wire::Anthropic, Wish::CountTokens),
            (Method::POST, "/api/v1/messages/count_tokens", Wire::OpenRouter, Wish::CountTokens),
            (Method::POST, "/model/made-up/count-tokens", Wire::Bedrock, Wish::CountTokens),
            (Method::POST, &counter, Wire::Vertex, Wish::CountTokens),
            (Method::GET, "/v1/models", Wire::Anthropic, Wish::Models),
            (Method::GET, "/anthropic/v1/models", Wire::Anthropic, Wish::Models),
            (Method::GET, "/api/v1/models", Wire::OpenRouter, Wish::Models),
            (Method::GET, "/inference-profiles", Wire::Bedrock, Wish::Models),
            (Method::GET, "/inference-profiles/arn%3Aaws%2Fabc", Wire::Bedrock, Wish::Profile),
            (Method::HEAD, "/", Wire::Anthropic, Wish::Liveness),
            (Method::POST, "/token", Wire::Vertex, Wish::Token),
            (Method::HEAD, "/anthropic", Wire::Anthropic, Wish::Liveness),
            (Method::HEAD, "/api", Wire::OpenRouter, Wish::Liveness),
            (Method::HEAD, "/api/", Wire::OpenRouter, Wish::Liveness),
        ];
        for (method, path, wire, expected) in cases {
            assert_eq!(wish(method, path), (wire, expected), "{path}");
        }
    }

    #[test]
    fn a_path_that_is_almost_right_finds_nothing() {
        let cases = [
            (Method::POST, "/api/v1/v1/messages".to_owned(), Wire::OpenRouter),
            (Method::POST, "/v1/v1/messages".to_owned(), Wire::Anthropic),
            (Method::POST, "/anthropic/anthropic/v1/messages".to_owned(), Wire::Anthropic),
            (Method::POST, "/apis/v1/messages".to_owned(), Wire::Anthropic),
            (Method::POST, "//v1/messages".to_owned(), Wire::Anthropic),
            (Method::GET, "/v1/messages".to_owned(), Wire::Anthropic),
            (Method::GET, "/model/made-up/invoke".to_owned(), Wire::Bedrock),
            (Method::POST, "/model//invoke".to_owned(), Wire::Bedrock),
            (Method::POST, "/model/arn:aws/abc/invoke".to_owned(), Wire::Bedrock),
            (Method::POST, "/model/%FF/invoke".to_owned(), Wire::Bedrock),
            (Method::POST, "/model/made-up/converse".to_owned(), Wire::Bedrock),
            (Method::POST, "/inference-profiles".to_owned(), Wire::Bedrock),
            (Method::POST, format!("{VERTEX}/made-up:predict"), Wire::Vertex),
            (Method::POST, format!("{VERTEX}/made-up"), Wire::Vertex),
            (Method::POST, format!("{VERTEX}/:rawPredict"), Wire::Vertex),
            (Method::POST, VERTEX.replace("anthropic", "google"), Wire::Vertex),
        ];
        for (method, path, wire) in cases {
            assert_eq!(wish(method, &path), (wire, Wish::Nothing), "{path}");
        }
    }
}
