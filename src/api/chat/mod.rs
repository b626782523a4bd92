//! Chat Completions: OpenAI's clients run runbooks, and speak with models.

mod budget;
mod chats;
mod completion;
mod described;
mod ending;
mod error;
mod fields;
mod find;
mod frames;
mod messages;
mod models;
mod passthrough;
mod record;
mod relay;
mod request;
mod retries;
mod run;

use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::auth::Caller;
use super::error::ApiError;
use crate::catalog::Collection;
use crate::run::Slug;
pub use chats::Chats;
pub(super) use described::OpenAiFailure;
pub use retries::Retries;

use chats::Room;
use described::{ChatBody, ChatCompletion};
use error::ChatError;
use request::ChatRequest;

/// Largest body, in bytes: messages carry images as base64.
const MAX_BODY_BYTES: usize = 64 << 20;

/// How long a body may take to come.
const BODY_LIMIT: Duration = Duration::from_secs(120);

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(find::one))
        .routes(routes!(find::events))
        // Clients whose base URL has no `/v1`.
        .route("/chat/completions", post(create))
        .route("/chat/completions/{completion_id}", get(find::one))
        .route("/chat/completions/{completion_id}/events", get(find::events))
        .merge(models::routes())
}

/// Carries a runbook out (`jetty.runbook` or `jetty.runbook_url`), or passes the request on to a
/// model.
///
/// A runbook's answer comes when its run has ended, or as a 202 after `timeout_hint` seconds. With
/// `stream` it is server-sent events. `Idempotency-Key` makes a repeated request the same request.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "chat", request_body = ChatBody,
    responses((status = 200, description = "The completion, or its chunks.", content(
            (ChatCompletion = "application/json"), (String = "text/event-stream"))),
        (status = 202, description = "The run goes on.", body = ChatCompletion),
        (status = 404, description = "There is no such collection or task."),
        (status = 422, description = "The run did not end well."),
        (status = 429, description = "The token follows too many runs."),
        (status = 502, description = "The model service could not be reached.")))]
async fn create(
    State(api): State<Shared>,
    caller: Caller,
    request: Request,
) -> Result<Response, ChatError> {
    let (request, room) = read(&api, request).await?;
    let collection = collection(&api, &caller, &request).await?;
    if request.is_runbook() {
        // What the run needs of it is kept elsewhere.
        drop(room);
        return run::carry_out(api, caller, collection, request).await;
    }
    passthrough::passthrough(api, collection, request, room).await
}

async fn read(api: &Shared, request: Request) -> Result<(ChatRequest, Room), ChatError> {
    let (head, body) = request.into_parts();
    let reading = api.chats.read(body, MAX_BODY_BYTES);
    let read = tokio::time::timeout(BODY_LIMIT, reading).await.map_err(|_| {
        let limit = BODY_LIMIT.as_secs();
        ApiError::BadRequest(format!("The request's body took longer than {limit} s to come"))
    });
    let (bytes, room) = read??;
    Ok((ChatRequest::read(bytes, head.headers)?, room))
}

/// The collection that a request is about: the one that it names, else the token's.
async fn collection(
    api: &Shared,
    caller: &Caller,
    request: &ChatRequest,
) -> Result<Collection, ChatError> {
    let named = request.jetty.as_ref().and_then(|jetty| jetty.collection.as_deref());
    let name = named.or(caller.own_collection().map(Slug::as_str)).ok_or_else(|| {
        ChatError::field(
            "jetty.collection",
            "an admin token belongs to no collection: name one, or use a collection's token",
        )
    })?;
    caller.may(name)?;
    Ok(api.catalog.collection(name).await.map_err(ApiError::from)?)
}
