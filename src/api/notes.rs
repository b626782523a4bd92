//! What clients add to runs: labels, and where a run is to stand.

use axum::Json;
use axum::extract::State;
use axum::routing::post;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::error::{ApiError, Problem};
use super::extract::{JsonBody, Segments};
use super::runs::{blocking, find};
use crate::queue::{Job, Moved, QueueError, Status};
use crate::records::{status_from_word, wire_status};
use crate::store::{Label, StoreError};

/// Longest key or author of a label, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// Longest value of a label, in bytes: a paragraph of reasons, not a document.
const MAX_VALUE_BYTES: usize = 16 << 10;

/// Most runs in one change of statuses.
const MAX_STATUSES: usize = 500;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(add_label))
        .routes(routes!(change_statuses))
        .routes(routes!(change_status))
        .route("/api/v1/trajectories/{collection}/{task}/{id}/labels", post(add_label))
}

/// A label.
#[derive(Debug, Deserialize, ToSchema)]
struct NewLabel {
    /// What is noted, such as `quality`.
    key: String,
    /// The note.
    value: String,
    /// Who notes it.
    author: String,
}

/// Adds a label to a run, running or ended. When this answers, the label is on the disk.
#[utoipa::path(post, path = "/api/v1/trajectory/{collection}/{task}/{id}/labels",
    tag = "trajectories", request_body = NewLabel,
    responses((status = 200, description = "The label as it is kept.")))]
async fn add_label(
    State(api): State<Shared>,
    Segments(path): Segments<(String, String, String)>,
    JsonBody(new): JsonBody<NewLabel>,
) -> Result<Json<Label>, ApiError> {
    let problems: Vec<Problem> = [
        too_long("key", &new.key, MAX_NAME_BYTES),
        too_long("author", &new.author, MAX_NAME_BYTES),
        too_long("value", &new.value, MAX_VALUE_BYTES),
        new.key.is_empty().then(|| Problem::of_field("key", "too_short", "give it a key")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !problems.is_empty() {
        return Err(ApiError::Invalid(problems));
    }
    let job = find(&api, &path).await?;
    let NewLabel { key, value, author } = new;
    let label = Label { key, value, created: (api.clock)(), author };
    let store = api.store.clone();
    blocking("could not add a label", move || {
        store.run(&job.name)?.add_label(&label)?;
        Ok::<_, StoreError>(Json(label))
    })
    .await
}

fn too_long(field: &str, text: &str, limit: usize) -> Option<Problem> {
    let msg = format!("at most {limit} bytes are kept");
    (text.len() > limit).then(|| Problem::of_field(field, "too_long", msg))
}

/// Changes where runs stand: `{"<trajectory id>": "cancelled" | "archived"}`. A run that has not
/// ended can be cancelled, which stops it; one that has ended can be archived. How a run ended
/// never changes. Each run has an answer of its own.
#[utoipa::path(post, path = "/api/v1/trajectory/{collection}/{task}/statuses", tag = "trajectories",
    request_body = Map<String, Value>,
    responses((status = 200, description = "`updated`, and `errors` by id.")))]
async fn change_statuses(
    State(api): State<Shared>,
    Segments((collection, task)): Segments<(String, String)>,
    JsonBody(wishes): JsonBody<Map<String, Value>>,
) -> Result<Json<Value>, ApiError> {
    if wishes.len() > MAX_STATUSES {
        return Err(ApiError::BadRequest(format!(
            "{} statuses are too many at once: send at most {MAX_STATUSES}",
            wishes.len()
        )));
    }
    let (mut updated, mut errors) = (Map::new(), Map::new());
    for (id, wish) in wishes {
        let path = (collection.clone(), task.clone(), id);
        match change(&api, &path, &wish).await {
            Ok(status) => updated.insert(path.2, status.into()),
            Err(error @ (ApiError::Internal { .. } | ApiError::Unavailable { .. })) => {
                return Err(error);
            }
            Err(error) => errors.insert(path.2, error.to_string().into()),
        };
    }
    // A client that looks at the status alone must not take a refusal for a success.
    if updated.is_empty() && !errors.is_empty() {
        let all: Vec<&str> = errors.values().filter_map(Value::as_str).collect();
        return Err(ApiError::BadRequest(all.join("; ")));
    }
    Ok(Json(json!({ "updated": updated, "errors": errors })))
}

/// Where one run is to stand.
#[derive(Debug, Deserialize, ToSchema)]
struct NewStatus {
    /// `cancelled` or `archived`.
    status: String,
}

/// Changes where one run stands, as `statuses` does for several.
#[utoipa::path(method(patch, post), path = "/api/v1/trajectory/{collection}/{task}/{id}/status",
    tag = "trajectories", request_body = NewStatus,
    responses((status = 200, description = "Where it stands now."),
        (status = 400, description = "It cannot stand there.")))]
async fn change_status(
    State(api): State<Shared>,
    Segments(path): Segments<(String, String, String)>,
    JsonBody(new): JsonBody<NewStatus>,
) -> Result<Json<Value>, ApiError> {
    let status = change(&api, &path, &Value::String(new.status)).await?;
    Ok(Json(json!({ "trajectory_id": path.2, "status": status })))
}

/// Changes one run's status and says where it stands then: a run whose worker was told to stop it
/// still runs for a moment.
async fn change(
    api: &Shared,
    path: &(String, String, String),
    wish: &Value,
) -> Result<&'static str, ApiError> {
    let word = wish.as_str().unwrap_or_default();
    let job = find(api, path).await?;
    let to = wanted(word, &job)?;
    match api.queue.set_status(&job.name, to, (api.clock)()).await {
        Ok(Moved::Done) => Ok(wire_status(to)),
        // Its worker destroys the sandbox first; whoever looks sees the run until then.
        Ok(Moved::Requested) => Ok("cancelled"),
        Err(QueueError::IllegalMove { from, to }) => Err(ApiError::BadRequest(format!(
            "The run '{}' is {} and cannot become {}: {}",
            path.2,
            wire_status(from),
            wire_status(to),
            legal_moves(from)
        ))),
        Err(error) => Err(ApiError::internal("could not change the status of a run", error)),
    }
}

fn wanted(word: &str, job: &Job) -> Result<Status, ApiError> {
    let unknown = || {
        ApiError::BadRequest(format!(
            "'{word}' cannot be set: write 'cancelled' to stop a run or 'archived' to put away one \
             that has ended"
        ))
    };
    if word == "running" {
        return Err(unknown());
    }
    let named = status_from_word(word).ok_or_else(unknown)?;
    // A word can stand for two states; where it already is, nothing changes.
    if named.contains(&job.status) {
        return Ok(job.status);
    }
    named.first().copied().ok_or_else(unknown)
}

fn legal_moves(from: Status) -> &'static str {
    if from.is_terminal() {
        "it has ended, so it can only be archived"
    } else {
        "it has not ended, so it can only be cancelled"
    }
}
