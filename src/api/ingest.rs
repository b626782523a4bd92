//! Records of runs that were made elsewhere.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Shared;
use super::error::{ApiError, Problem};
use super::extract::{JsonBody, Segments};
use super::runs::blocking;
use crate::catalog::NewTask;
use crate::queue::{Cost, Ended, JobUsage, RecordKind, RecordedRun};
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

/// Keeps the record of a run that was made elsewhere. The task is made where it is missing.
#[utoipa::path(post, path = "/api/v1/trajectories/{collection}/{task}/ingest",
    tag = "trajectories", request_body = Ingested,
    responses((status = 200, description = "The record's id and labels."),
        (status = 409, description = "A run of this server has the id.")))]
async fn ingest(
    State(api): State<Shared>,
    Segments((collection, task)): Segments<(String, String)>,
    JsonBody(wish): JsonBody<Ingested>,
) -> Result<Json<Value>, ApiError> {
    let now = (api.clock)();
    let ended = ended(wish.status.as_deref())?;
    let id = match &wish.trajectory_id {
        None => RunId::from_uuid(Uuid::new_v4()),
        Some(id) => RunId::new(id).map_err(|e| fault("trajectory_id", e.to_string()))?,
    };
    let created = wish.created.unwrap_or(now);
    let labels = labels(&wish, created)?;
    let collection = api.catalog.collection(&collection).await?.name;
    let task = NewTask::new(&task, Workflow::of_chat_task());
    let task = api.catalog.ensure_task(&collection, task, now).await?.name;
    let name = RunName { collection, task, id };
    let document = document(&name, &wish, (ended, &labels), (created, now));
    let cost = wish.cost_usd.filter(|cost| cost.is_finite() && *cost >= 0.0);
    let cost = cost.map(|cost| cost.min(MAX_COST_USD));
    let finished = wish.completed.unwrap_or(now);
    let took = finished.duration_since(created).as_millis();
    let record = RecordedRun {
        name: name.clone(),
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
    };
    // The index first: it refuses the id of a run of ours, whose record must not be replaced.
    api.queue.record(record, now).await?;
    let (store, run) = (api.store.clone(), name.clone());
    let text = document.to_string();
    blocking("could not keep a record", move || {
        store.run(&run)?.write(Document::Trajectory, text.as_bytes())?;
        Ok::<_, StoreError>(())
    })
    .await?;
    Ok(Json(json!({
        "trajectory_id": name.id.as_str(),
        "name": format!("{}/{}", name.collection, name.task),
        "storage_path": name.to_string(),
        "status": document["status"],
        "labels": labels,
    })))
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
