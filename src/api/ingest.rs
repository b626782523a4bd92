//! Records of runs that were made elsewhere.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Shared;
use super::auth::Tenant;
use super::error::{ApiError, Problem};
use super::extract::{Segments, from_json, read_json};
use super::runs::blocking;
use super::submit::{idempotency_key, refusal};
use crate::catalog::NewTask;
use crate::intake::{hide, hide_params, same_request};
use crate::queue::{Cost, Ended, Idempotency, JobUsage, RecordKind, RecordedRun, Submitted};
use crate::records::written_bytes;
use crate::run::{RunId, RunName};
use crate::store::{Document, StoreError};
use crate::trajectory::SCHEMA_VERSION;
use crate::workflow::Workflow;

/// The one step of such a record.
const STEP: &str = "eval";

/// The author, where none is named.
const AUTHOR: &str = "ingest";

/// Largest cost of one run that is counted, in dollars. Sums of it stay far from their end.
const MAX_COST_USD: f64 = 1e9;

/// Largest input and largest output of a record, each in bytes of JSON: a conversation, not a data set.
const MAX_VALUE_BYTES: usize = 1 << 20;

/// Largest record, in bytes: both, and as much for everything else.
pub(super) const MAX_BODY_BYTES: usize = 3 * MAX_VALUE_BYTES;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(ingest))
}

/// A run as somebody else made it.
#[derive(Debug, Deserialize, ToSchema)]
struct Ingested {
    /// What it was given.
    #[serde(default)]
    #[schema(value_type = Value)]
    input: Value,
    /// What came of it.
    #[serde(default)]
    #[schema(value_type = Value)]
    output: Value,
    /// `completed`, `failed` or `cancelled`.
    status: Option<String>,
    /// Numbers; each becomes the label `score.<name>`.
    scores: Option<Map<String, Value>>,
    /// Labels, as they are.
    labels: Option<Map<String, Value>>,
    /// What it cost; becomes the label `cost_est_usd`.
    cost_usd: Option<f64>,
    /// Its id where it was made. Sent again, the record replaces itself.
    trajectory_id: Option<String>,
    /// Where it was made.
    source: Option<String>,
    /// The evaluation that it belongs to.
    eval_id: Option<String>,
    /// Kept under `attributes.params`.
    metadata: Option<Map<String, Value>>,
    /// Who made it.
    author: Option<String>,
    /// When it began.
    #[schema(value_type = Option<String>)]
    created: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>)]
    completed: Option<Timestamp>,
}

/// Keeps the record of a run that was made elsewhere. The task is made where it is missing. Without
/// a `trajectory_id`, `Idempotency-Key` makes a repeated request the same request.
#[utoipa::path(post, path = "/api/v1/trajectories/{collection}/{task}/ingest",
    tag = "trajectories", request_body = Ingested,
    responses((status = 200, description = "The record's id and labels."),
        (status = 409, description = "A run of this server has the id, or the idempotency key was \
                                      used for another request.")))]
async fn ingest(
    State(api): State<Shared>,
    Segments((_, task)): Segments<(String, String)>,
    Tenant(collection): Tenant,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let key = idempotency_key(request.headers())?;
    let bytes = read_json(request, &api).await?;
    let mut wish: Ingested = from_json(&bytes)?;
    let key = key.map(|key| same_request(key, &bytes)).transpose().map_err(refusal)?;
    drop(bytes);
    not_too_large("input", &wish.input)?;
    not_too_large("output", &wish.output)?;
    for value in [&mut wish.input, &mut wish.output] {
        hide(value, &collection.redacted_param_keys);
    }
    for params in wish.metadata.iter_mut() {
        hide_params(params, &collection.redacted_param_keys);
    }
    let now = (api.clock)();
    let ended = ended(wish.status.as_deref())?;
    let id = match &wish.trajectory_id {
        None => RunId::from_uuid(Uuid::new_v4()),
        Some(id) => RunId::new(id).map_err(|e| fault("trajectory_id", e.to_string()))?,
    };
    let created = wish.created.unwrap_or(now);
    let labels = labels(&wish, created)?;
    let task = NewTask::new(&task, Workflow::of_chat_task());
    let task = api.catalog.ensure_task(&collection.name, task, now).await?.name;
    let name = RunName { collection: collection.name, task, id };
    let document = document(&name, &wish, (ended, &labels), (created, now));
    let record = record(name, &wish, ended, (created, now));
    let keeper = Arc::clone(&api);
    // The index and the folder belong together, whether the client waits for both or not.
    let kept = api.runs.intake.carry_on(async move { keep(&keeper, record, key, document).await });
    let document = kept.await.map_err(|e| ApiError::internal("could not keep a record", e))??;
    let told = ["trajectory_id", "name", "storage_path", "status", "labels"];
    Ok(Json(told.into_iter().map(|key| (key, document[key].clone())).collect()))
}

/// Notes a record and writes its document. Gives the one that is there afterwards.
async fn keep(
    api: &Shared,
    record: RecordedRun,
    key: Option<Idempotency>,
    document: Value,
) -> Result<Value, ApiError> {
    let own = record.name.clone();
    // The index first: it refuses the id of a run of ours, whose record must not be replaced.
    let kept = api.queue.record_once(record, key.as_ref(), (api.clock)()).await?;
    let (store, repeated) = (api.store.clone(), matches!(kept, Submitted::Repeated(_)));
    let name = match kept {
        Submitted::New => own,
        Submitted::Repeated(name) => name,
    };
    blocking("could not keep a record", move || {
        let folder = store.run(&name)?;
        // A crash may have come between the index and the folder.
        if repeated && let Some(bytes) = folder.read_if_there(Document::Trajectory)? {
            return Ok::<_, StoreError>(serde_json::from_slice(&bytes).unwrap_or(document));
        }
        let document = of_run(document, &name);
        folder.write(Document::Trajectory, document.to_string().as_bytes())?;
        Ok(document)
    })
    .await
}

/// The document of a record that was noted under another id before.
fn of_run(mut document: Value, name: &RunName) -> Value {
    document["trajectory_id"] = name.id.as_str().into();
    document["storage_path"] = name.to_string().into();
    document["metadata_uri"] = format!("{name}/trajectory.json").into();
    document
}

/// The row of a record.
fn record(
    name: RunName,
    wish: &Ingested,
    ended: Ended,
    (created, now): (Timestamp, Timestamp),
) -> RecordedRun {
    let cost = wish.cost_usd.filter(|cost| cost.is_finite() && *cost >= 0.0);
    let cost = cost.map(|cost| cost.min(MAX_COST_USD));
    let finished = wish.completed.unwrap_or(now);
    let took = finished.duration_since(created).as_millis();
    RecordedRun {
        name,
        kind: RecordKind::Ingested,
        ended,
        reason: None,
        created,
        started: wish.created,
        finished,
        usage: JobUsage {
            cost: cost.map_or(Cost::Unknown, |cost| Cost::Reported((cost * 1e6).round() as u64)),
            ..JobUsage::default()
        },
        duration_ms: wish.created.and_then(|_| u64::try_from(took).ok()),
        spec: String::new(),
    }
}

fn not_too_large(field: &str, value: &Value) -> Result<(), ApiError> {
    let n_bytes = written_bytes(value);
    if n_bytes <= MAX_VALUE_BYTES as u64 {
        return Ok(());
    }
    Err(ApiError::TooLarge(format!(
        "`{field}` has {n_bytes} bytes of JSON, and at most {MAX_VALUE_BYTES} are kept: upload large \
         data with `POST /api/v1/sandbox/upload` and name its path"
    )))
}

fn fault(field: &str, msg: impl Into<String>) -> ApiError {
    ApiError::Invalid(vec![Problem::of_field(field, "value_error", msg)])
}

fn ended(status: Option<&str>) -> Result<Ended, ApiError> {
    match status {
        None | Some("completed") => Ok(Ended::Completed),
        Some("failed") => Ok(Ended::Failed),
        Some("cancelled") => Ok(Ended::Cancelled),
        Some(other) => Err(fault(
            "status",
            format!(
                "`{other}` is not how a run can have ended: write completed, failed or cancelled"
            ),
        )),
    }
}

/// The labels that a record brings. Their values are always texts.
fn labels(wish: &Ingested, created: Timestamp) -> Result<Vec<Value>, ApiError> {
    let mut found: Vec<(String, String)> = Vec::new();
    for (name, score) in wish.scores.iter().flatten() {
        if !score.is_number() {
            return Err(fault("scores", format!("the score `{name}` must be a number")));
        }
        found.push((format!("score.{name}"), score.to_string()));
    }
    for (key, value) in wish.labels.iter().flatten() {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Array(_) | Value::Object(_) => {
                return Err(fault("labels", format!("the label `{key}` must be a text")));
            }
        };
        found.push((key.clone(), value));
    }
    found.extend(wish.cost_usd.map(|cost| ("cost_est_usd".to_owned(), cost.to_string())));
    let author = wish.author.as_deref().unwrap_or(AUTHOR);
    let label =
        |(key, value)| json!({ "key": key, "value": value, "created": created, "author": author });
    Ok(found.into_iter().map(label).collect())
}

/// The record in the form of a trajectory.
fn document(
    name: &RunName,
    wish: &Ingested,
    (ended, labels): (Ended, &[Value]),
    (created, now): (Timestamp, Timestamp),
) -> Value {
    let status = match ended {
        Ended::Completed => "completed",
        Ended::Failed => "failed",
        Ended::Cancelled => "cancelled",
    };
    let author = wish.author.as_deref().unwrap_or(AUTHOR);
    let done: &[&str] = if ended == Ended::Completed { &[STEP] } else { &[] };
    json!({
        "schema_version": SCHEMA_VERSION,
        "name": format!("{}/{}", name.collection, name.task),
        "trajectory_id": name.id.as_str(),
        "storage_path": name.to_string(),
        "status": status,
        "attributes": {
            "asset_type": "trajectory", "asset_filename": "trajectory.json", "created": created,
            "params": wish.metadata.clone().unwrap_or_default(),
            "source": wish.source, "eval_id": wish.eval_id,
        },
        "created": created,
        "updated": now,
        "author": author,
        "metadata_uri": format!("{name}/trajectory.json"),
        "steps": { STEP: {
            "inputs": { "input": wish.input }, "outputs": { "output": wish.output },
            "activity": "ingest", "key": STEP, "depends_on": [], "created": wish.created,
            "ended": wish.completed, "duration_seconds": null, "author": author, "origin": {},
            "config": {}, "status": status, "error": null,
        } },
        "labels": labels,
        "total_steps": [STEP],
        "completed_steps": done,
        "init_params": { "input": wish.input },
        "step_configs": {},
        "org_id": null,
        "error": null,
    })
}
