//! Completions that were made: to be read again, and their streams to be taken up again.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;

use super::completion::{Completion, model_of, tell};
use super::described::ChatCompletion;
use super::error::ChatError;
use super::frames::{Frames, StreamWish};
use crate::api::Shared;
use crate::api::auth::Caller;
use crate::api::error::ApiError;
use crate::api::extract::{Query, Segments};
use crate::api::follow::{after, follow};
use crate::api::runs::unseen;
use crate::queue::Job;
use crate::records::Seen;
use crate::run::{RunId, RunName, Slug};

/// What a completion's id begins with.
const PREFIX: &str = "chatcmpl-";

/// Whose completions: a collection's token needs not say.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Whose {
    /// The collection, for an admin token.
    collection: Option<String>,
}

/// Where to go on, and what is wanted beside the content.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wish {
    /// The collection, for an admin token.
    collection: Option<String>,
    /// The `id` of the last chunk that was seen; the header `Last-Event-ID` wins.
    after: Option<u64>,
    /// Whether the run's events are to come too, as `jetty_event`.
    stream_events: Option<bool>,
    /// Whether the usage is to come at the end.
    include_usage: Option<bool>,
}

/// Gives a completion again: of a run that has ended, or where one stands.
///
/// The id is that of the completion (`chatcmpl-…`), or the run's own `trajectory_id` or `workflow_id`.
#[utoipa::path(get, path = "/v1/chat/completions/{completion_id}", tag = "chat", params(Whose),
    responses((status = 200, description = "The completion.", body = ChatCompletion),
        (status = 202, description = "The run goes on.", body = ChatCompletion),
        (status = 404, description = "There is no such run in the collection."),
        (status = 422, description = "The run did not end well.")))]
pub(super) async fn one(
    State(api): State<Shared>,
    caller: Caller,
    Segments(id): Segments<String>,
    Query(whose): Query<Whose>,
) -> Result<Response, ChatError> {
    let seen = find(&api, &caller, (whose.collection.as_deref(), &id)).await?;
    let response = Completion::of(&seen, None, Vec::new()).into_response()?;
    Ok(tell(response, &seen.job.name))
}

/// Streams a completion: what was said and what comes, until the run has ended.
///
/// Each chunk has its event's number as its id; `Last-Event-ID` or `?after=` goes on after one.
#[utoipa::path(get, path = "/v1/chat/completions/{completion_id}/events", tag = "chat",
    params(Wish),
    responses((status = 200, description = "The chunks.", content_type = "text/event-stream"),
        (status = 404, description = "There is no such run in the collection."),
        (status = 429, description = "The token follows too many runs.")))]
pub(super) async fn events(
    State(api): State<Shared>,
    caller: Caller,
    Segments(id): Segments<String>,
    Query(wish): Query<Wish>,
    headers: HeaderMap,
) -> Result<Response, ChatError> {
    let after = after(&headers, wish.after)?;
    let seen = find(&api, &caller, (wish.collection.as_deref(), &id)).await?;
    let place = api.runs.followers.place(&caller)?;
    let wish = StreamWish {
        after,
        include_usage: wish.include_usage.unwrap_or(false),
        stream_events: wish.stream_events.unwrap_or(false),
        // Whoever looks on is not the one who asked for the run.
        cancel_on_disconnect: false,
    };
    let name = seen.job.name;
    let told = (model_of(&seen.trajectory), seen.job.created.as_second());
    let frames = Frames::new(name.clone(), told, Vec::new(), wish);
    Ok(tell(follow(&api, place, name.clone(), frames), &name))
}

/// The run of a completion's id, among those that the caller may see. Ids are unique inside a task
/// alone; of several runs the newest is meant.
async fn find(
    api: &Shared,
    caller: &Caller,
    (collection, id): (Option<&str>, &str),
) -> Result<Seen, ChatError> {
    let scope = match collection.or(caller.own_collection().map(Slug::as_str)) {
        Some(name) => {
            caller.may(name)?;
            Some(api.catalog.collection(name).await.map_err(ApiError::from)?.name)
        }
        None => None,
    };
    let id = id.strip_prefix(PREFIX).unwrap_or(id);
    let Some(job) = look_up(api, scope.as_ref(), id).await? else {
        return Err(ApiError::NotFound(format!(
            "There is no completion '{PREFIX}{id}' here: give the id that the answer had{}",
            if scope.is_none() { ", and as an admin `?collection=…`" } else { "" }
        ))
        .into());
    };
    Ok(api.runs.records.see(job).await.map_err(unseen)?)
}

async fn look_up(api: &Shared, scope: Option<&Slug>, id: &str) -> Result<Option<Job>, ApiError> {
    let is_mine = |name: &RunName| scope.is_none_or(|scope| *scope == name.collection);
    let mut found = api.queue.find_by_workflow_id(id).await?.into_iter().find(is_mine);
    if let (None, Some(scope), Ok(id)) = (&found, scope, RunId::new(id)) {
        found = api.queue.find_by_id(scope, &id).await?.into_iter().next();
    }
    match found {
        Some(name) => Ok(api.queue.get(&name).await?),
        None => Ok(None),
    }
}
