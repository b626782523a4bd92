//! What handlers read from a request. Every fault is an [`ApiError`], in the form that clients know.

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Shared;
use super::error::{ApiError, Problem};
use super::memory::{Held, read_body};

/// Most values in one text of JSON. A value takes many times the memory of its text: `[0,0,…]` of 16
/// MiB would be a gigabyte.
const MAX_VALUES: usize = 100_000;

/// What a value takes beside its text, in bytes: itself, and its place in a list or an object.
const VALUE_BYTES: usize = 128;

/// A body of JSON. The content type does not matter: `curl -d` sends another one than it means.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

/// The parameters after the `?`.
#[derive(Debug)]
pub struct Query<T>(pub T);

/// The variable segments of the path, decoded.
#[derive(Debug)]
pub struct Segments<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Shared> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Shared) -> Result<Self, ApiError> {
        let bytes = read_json(request, api).await?;
        from_json(&bytes).map(Self)
    }
}

/// The bytes of a body of JSON. What they and their values take is held until the request's end.
pub(super) async fn read_json(request: Request, api: &Shared) -> Result<Bytes, ApiError> {
    let held = request.extensions().get::<Held>().cloned();
    // The open paths have no bodies.
    let held = held.unwrap_or_else(|| Held::nothing(&api.memory, None));
    let bytes = read_body(request, (api.settings.max_json_bytes, &held)).await?;
    held.grow(n_values(&bytes).min(MAX_VALUES) * VALUE_BYTES).await?;
    Ok(bytes)
}

/// How many values a text of JSON has at most, without reading it: in front of each but the first
/// stands one of these. What stands in texts counts only where it is not quoted.
fn n_values(json: &[u8]) -> usize {
    let (mut n, mut in_text, mut is_escaped) = (1_usize, false, false);
    for byte in json {
        match (in_text, byte) {
            (true, _) if is_escaped => is_escaped = false,
            (true, b'\\') => is_escaped = true,
            (_, b'"') => in_text = !in_text,
            (false, b',' | b'[' | b'{') => n += 1,
            (true | false, _) => {}
        }
    }
    n
}

/// Refuses a text of JSON with too many values before one of them is made.
pub(super) fn count_values(json: &[u8]) -> Result<(), ApiError> {
    if n_values(json) <= MAX_VALUES {
        return Ok(());
    }
    Err(ApiError::TooLarge(format!(
        "The JSON has more than {MAX_VALUES} values: send large data as a file"
    )))
}

impl<T: DeserializeOwned> FromRequestParts<Shared> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, ApiError> {
        axum::extract::Query::try_from_uri(&parts.uri).map(|query| Self(query.0)).map_err(|fault| {
            // The source names the parameter; axum's own sentence goes before it.
            let why = crate::run::error_chain(&fault);
            let why = why.rsplit_once("string: ").map_or(why.as_str(), |(_, why)| why);
            let missing =
                why.rsplit_once("missing field `").and_then(|(_, name)| name.strip_suffix('`'));
            if let Some(name) = missing {
                let loc = vec![json!("query"), json!(name)];
                let msg = "Field required".to_owned();
                return ApiError::Invalid(vec![Problem { loc, msg, kind: "missing" }]);
            }
            let (name, why) = why.split_once(": ").unwrap_or(("", why));
            let mut loc = vec![json!("query")];
            loc.extend((!name.is_empty()).then(|| json!(name)));
            let is_number = why.contains("invalid digit");
            let why = if is_number { "Input should be a whole number from 0" } else { why };
            ApiError::Invalid(vec![Problem { loc, msg: why.to_owned(), kind: "value_error" }])
        })
    }
}

impl<T: DeserializeOwned + Send> FromRequestParts<Shared> for Segments<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Shared) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(parts, api).await {
            Ok(Path(segments)) => Ok(Self(segments)),
            // A segment that is not UTF-8 or not of its type names nothing that is here.
            Err(PathRejection::FailedToDeserializePathParams(fault)) => {
                Err(ApiError::NotFound(format!("The path cannot be read: {fault}")))
            }
            Err(fault) => Err(ApiError::internal("could not read the path", fault)),
        }
    }
}

/// Reads JSON and says where it is wrong.
///
/// # Errors
/// [`ApiError::Invalid`] with the place of the fault.
pub fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    count_values(bytes)?;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut reader);
    let value = read.map_err(|fault| ApiError::Invalid(vec![fault_of(&fault)]))?;
    let end = reader.end();
    end.map_err(|fault| ApiError::Invalid(vec![not_json(&fault)])).map(|()| value)
}

fn fault_of(fault: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let inner = fault.inner();
    if inner.is_syntax() || inner.is_eof() {
        return not_json(inner);
    }
    let mut loc = vec![json!("body")];
    loc.extend(fault.path().iter().map(|segment| match segment {
        serde_path_to_error::Segment::Seq { index } => json!(index),
        serde_path_to_error::Segment::Map { key } => json!(key),
        serde_path_to_error::Segment::Enum { variant } => json!(variant),
        serde_path_to_error::Segment::Unknown => Value::Null,
    }));
    let said = inner.to_string();
    // Where in the text it stands says less than its name.
    let said = said.split(" at line ").next().unwrap_or(&said);
    let missing = said.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    match missing {
        Some(field) => {
            loc.push(json!(field));
            Problem { loc, msg: "Field required".to_owned(), kind: "missing" }
        }
        None => Problem { loc, msg: said.to_owned(), kind: "type_error" },
    }
}

fn not_json(fault: &serde_json::Error) -> Problem {
    let msg = format!("JSON decode error: {fault}");
    Problem { loc: vec![json!("body"), json!(fault.column())], msg, kind: "json_invalid" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Wish {
        #[expect(dead_code, reason = "only its reading matters")]
        names: Vec<String>,
    }

    fn problem(text: &str) -> Value {
        match from_json::<Wish>(text.as_bytes()) {
            Err(ApiError::Invalid(problems)) => {
                json!([problems[0].loc, problems[0].msg, problems[0].kind])
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn many_values_are_refused_before_they_are_made_and_long_texts_are_not() {
        let many = format!("[{}0]", "0,".repeat(MAX_VALUES));
        let refused = from_json::<Value>(many.as_bytes());
        assert!(matches!(refused, Err(ApiError::TooLarge(_))), "{refused:?}");
        let text = json!({ "a": "\\\",[{".repeat(MAX_VALUES) }).to_string();
        assert_eq!(n_values(text.as_bytes()), 2);
        from_json::<Value>(text.as_bytes()).unwrap();
        let nested = format!("{}{}", "[".repeat(3), "]".repeat(3));
        assert_eq!(n_values(nested.as_bytes()), 4);
    }

    #[test]
    fn a_fault_is_named_with_its_place() {
        assert_eq!(problem("{}"), json!([["body", "names"], "Field required", "missing"]));
        assert_eq!(
            problem(r#"{"names": ["a", 2]}"#),
            json!([
                ["body", "names", 1],
                "invalid type: integer `2`, expected a string",
                "type_error"
            ])
        );
        assert_eq!(problem(r#"{"names": []}}"#)[2], "json_invalid");
        assert_eq!(problem("")[2], "json_invalid");
    }
}
