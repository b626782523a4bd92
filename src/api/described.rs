//! What the description of the API says of every path alike: ids, variable segments, the answers
//! that any path may give.

use super::error::Envelope;
use utoipa::ToSchema;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{KnownFormat, Object, Schema, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Required, Response};

/// JSON, which every answer is that does not say otherwise.
const JSON: &str = "application/json";

/// How a path is answered that cannot be answered as it was wished.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes what `error.rs` writes")]
pub(super) struct Failure {
    /// What is wrong and what to do, or every fault of a request that has the wrong shape.
    detail: Detail,
}

#[derive(Debug, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes what `error.rs` writes")]
enum Detail {
    Sentence(String),
    Faults(Vec<Fault>),
}

#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes what `error.rs` writes")]
struct Fault {
    /// Where, such as `["body", "name"]`.
    loc: Vec<serde_json::Value>,
    /// What is wrong and what to write instead.
    msg: String,
    /// The kind of fault, such as `missing`.
    r#type: String,
}

/// Adds to every operation what holds for all of them.
pub(super) fn described(mut document: OpenApi) -> OpenApi {
    let paths = std::mem::take(&mut document.paths.paths);
    for (path, mut item) in paths {
        // The router's word for "the rest of the path" is no name of a variable.
        let path = path.replace("{*", "{");
        for (method, operation) in operations(&mut item) {
            operation.operation_id = Some(operation_id(method, &path));
            name_segments(&path, operation);
            count_from_zero(operation);
            add_failures(&path, operation);
            say_json(&path, operation);
        }
        document.paths.paths.insert(path, item);
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let PathItem { get, post, put, patch, delete, .. } = item;
    [("get", get), ("post", post), ("put", put), ("patch", patch), ("delete", delete)]
        .into_iter()
        .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// An id of its own, from method and path: generated clients name their functions after it, and
/// handlers of different groups share their names.
fn operation_id(method: &str, path: &str) -> String {
    let below = path.strip_prefix("/api/v1").unwrap_or(path);
    let words = below.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.fold(method.to_owned(), |id, word| format!("{id}_{word}"))
}

/// Describes the variable segments that the handler did not.
fn name_segments(path: &str, operation: &mut Operation) {
    let parameters = operation.parameters.get_or_insert_default();
    let is_there = |parameters: &[RefOr<Parameter>], name: &str| {
        parameters.iter().any(|parameter| match parameter {
            RefOr::T(parameter) => parameter.name == name,
            RefOr::Ref(_) => false,
        })
    };
    for name in variables(path) {
        if !is_there(parameters, name) {
            let text = Object::with_type(SchemaType::new(Type::String));
            let segment = ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .description(Some(format!("The {}.", name.replace('_', " "))))
                .schema(Some(text));
            parameters.push(segment.build().into());
        }
    }
}

fn variables(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

/// Numbers have 64 bits and no sign; the generator knows only those with a sign.
fn count_from_zero(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(Parameter { schema: Some(RefOr::T(Schema::Object(number))), .. }) =
            parameter
            && number.format == Some(SchemaFormat::KnownFormat(KnownFormat::Int64))
        {
            number.format = Some(SchemaFormat::Custom("uint64".to_owned()));
        }
    }
}

/// Adds the failures that the path can have.
fn add_failures(path: &str, operation: &mut Operation) {
    let has_body = operation.request_body.is_some();
    let takes_words = has_body || operation.parameters.as_ref().is_some_and(|all| !all.is_empty());
    let is_open = operation.security.is_some();
    let possible = [
        (true, "400", "The request cannot be carried out."),
        (!is_open, "401", "There is no token, or it opens nothing."),
        (!is_open, "403", "The token is for another collection, or this needs an admin token."),
        (variables(path).next().is_some(), "404", "There is no such thing."),
        (has_body, "409", "It is there already, or its state forbids it."),
        (has_body, "413", "The body is larger than the limit."),
        (takes_words, "422", "The request does not have the shape that is asked for."),
        (
            !is_open,
            "429",
            "Too much at once, of this token or of all; `Retry-After` says when to come again.",
        ),
        (true, "500", "A failure of the server; its log has the reason."),
        (true, "503", "A part that the answer needs is not there for now."),
        (true, "504", "The answer took too long."),
    ];
    let responses = &mut operation.responses.responses;
    for (_, status, sentence) in possible.into_iter().filter(|(is_possible, ..)| *is_possible) {
        responses.entry(status.to_owned()).or_insert_with(|| Response::new(sentence).into());
    }
}

/// Answers are JSON where nothing else is said; failures always are.
fn say_json(path: &str, operation: &mut Operation) {
    let schema = match Envelope::of_path(path) {
        Envelope::Detail => "Failure",
        Envelope::OpenAi => "OpenAiFailure",
    };
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && response.content.is_empty()
        {
            let failure = Ref::from_schema_name(schema);
            let content = match status.as_bytes().first() {
                Some(b'4' | b'5') => Content::new(Some(failure)),
                Some(_) | None => Content::new(None::<Ref>),
            };
            response.content.insert(JSON.to_owned(), content.into());
        }
    }
}
