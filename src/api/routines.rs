//! Routines: tasks that run by a cadence.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::bodies::NewRoutineBody;
use super::error::{ApiError, Problem};
use super::extract::{JsonBody, Query, Segments};
use super::memory::Held;
use super::submit::{idempotency_key, refusal, started};
use super::trajectories::{Wish, answer};
use crate::cadence::Cadence;
use crate::catalog::{NewRoutine, Routine, RoutinePatch};
use crate::intake::Submission;
use crate::queue::ListFilter;
use crate::reach::parse_target;
use crate::routines::wish_of;
use crate::run::Slug;
use crate::secret::Secret;

/// The keys of a routine that a client may write.
const KEYS: [&str; 7] = [
    "name",
    "cadence",
    "init_params_overrides",
    "secret_params",
    "paused",
    "webhook_url",
    "webhook_secret",
];

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(of_collection))
        .routes(routes!(of_task, create))
        .routes(routes!(one, change, remove))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(run_now))
        .routes(routes!(runs))
}

type Path = (String, String, String);

fn shown(routine: &Routine) -> Value {
    json!({
        "id": routine.id,
        "name": routine.name.as_str(),
        "collection": routine.collection.as_str(),
        "task": routine.task.as_str(),
        "cadence": routine.cadence.to_json(),
        "init_params_overrides": routine.overrides,
        "has_secret_params": routine.has_secret_params,
        "paused": routine.paused,
        "webhook_url": routine.webhook_url,
        "next_run_at": routine.next_run,
        "created_at": routine.created,
        "updated_at": routine.updated,
    })
}

/// The collection under its own name.
async fn own(api: &Shared, collection: &str) -> Result<Slug, ApiError> {
    Ok(api.catalog.collection(collection).await?.name)
}

async fn find(api: &Shared, (collection, task, name): &Path) -> Result<Routine, ApiError> {
    let collection = own(api, collection).await?;
    Ok(api.catalog.routine(&collection, task, name).await?)
}

async fn list(api: &Shared, collection: &str, task: Option<&str>) -> Result<Json<Value>, ApiError> {
    let collection = own(api, collection).await?;
    if let Some(task) = task {
        api.catalog.task(&collection, task).await?;
    }
    let routines = api.catalog.routines(&collection, task).await?;
    let routines: Vec<Value> = routines.iter().map(shown).collect();
    Ok(Json(json!({ "routines": routines })))
}

/// Lists the routines of a collection.
#[utoipa::path(get, path = "/api/v1/routines/{collection}", tag = "routines",
    responses((status = 200, description = "The routines.")))]
async fn of_collection(
    State(api): State<Shared>,
    Segments(collection): Segments<String>,
) -> Result<Json<Value>, ApiError> {
    list(&api, &collection, None).await
}

/// Lists the routines of a task.
#[utoipa::path(get, path = "/api/v1/routines/{collection}/{task}", tag = "routines",
    responses((status = 200, description = "The routines.")))]
async fn of_task(
    State(api): State<Shared>,
    Segments((collection, task)): Segments<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    list(&api, &collection, Some(&task)).await
}

/// Makes a routine: `name` and `cadence` are needed; `init_params_overrides` may have only keys
/// that the task declares.
#[utoipa::path(post, path = "/api/v1/routines/{collection}/{task}", tag = "routines",
    request_body = NewRoutineBody,
    responses((status = 200, description = "The routine."),
        (status = 400, description = "It cannot run so; `detail` says why."),
        (status = 409, description = "There is one of that name.")))]
async fn create(
    State(api): State<Shared>,
    Segments((collection, task)): Segments<(String, String)>,
    JsonBody(body): JsonBody<Map<String, Value>>,
) -> Result<Json<Value>, ApiError> {
    let fields = Fields::read(&api, body)?;
    let missing = [("name", fields.name.is_none()), ("cadence", fields.cadence.is_none())];
    let missing = missing.into_iter().filter(|(_, is_missing)| *is_missing);
    let missing = missing.map(|(name, _)| Problem::of_field(name, "missing", "Field required"));
    let (Some(name), Some(cadence)) = (fields.name, fields.cadence) else {
        return Err(ApiError::Invalid(missing.collect()));
    };
    let new = NewRoutine {
        name,
        cadence,
        overrides: fields.overrides.unwrap_or_default(),
        secret_params: fields.secret_params.unwrap_or_default(),
        paused: fields.paused.unwrap_or(false),
        webhook_url: fields.webhook_url.flatten(),
        webhook_secret: fields.webhook_secret.flatten(),
    };
    let collection = own(&api, &collection).await?;
    let made = api.catalog.create_routine(&collection, &task, new, (api.clock)()).await?;
    Ok(Json(shown(&made)))
}

/// Tells about a routine, and when it runs next.
#[utoipa::path(get, path = "/api/v1/routines/{collection}/{task}/{name}", tag = "routines",
    responses((status = 200, description = "The routine.")))]
async fn one(
    State(api): State<Shared>,
    Segments(path): Segments<Path>,
) -> Result<Json<Value>, ApiError> {
    find(&api, &path).await.map(|routine| Json(shown(&routine)))
}

/// Changes a routine. What is not named stays; `null` removes.
#[utoipa::path(patch, path = "/api/v1/routines/{collection}/{task}/{name}", tag = "routines",
    request_body = Map<String, Value>, responses((status = 200, description = "The routine.")))]
async fn change(
    State(api): State<Shared>,
    Segments(path): Segments<Path>,
    JsonBody(body): JsonBody<Map<String, Value>>,
) -> Result<Json<Value>, ApiError> {
    let fields = Fields::read(&api, body)?;
    if fields.name.as_deref().is_some_and(|name| !name.eq_ignore_ascii_case(&path.2)) {
        return Err(ApiError::BadRequest(
            "A routine keeps its name: make another one and delete this".to_owned(),
        ));
    }
    let patch = RoutinePatch {
        cadence: fields.cadence,
        overrides: fields.overrides,
        secret_params: fields.secret_params,
        paused: fields.paused,
        webhook_url: fields.webhook_url,
        webhook_secret: fields.webhook_secret,
    };
    update(&api, &path, patch).await
}

async fn update(
    api: &Shared,
    (collection, task, name): &Path,
    patch: RoutinePatch,
) -> Result<Json<Value>, ApiError> {
    let collection = own(api, collection).await?;
    let key = (&collection, task.as_str(), name.as_str());
    Ok(Json(shown(&api.catalog.update_routine(key, patch, (api.clock)()).await?)))
}

/// Removes a routine. Its runs stay.
#[utoipa::path(delete, path = "/api/v1/routines/{collection}/{task}/{name}", tag = "routines",
    responses((status = 200, description = "It is gone.")))]
async fn remove(
    State(api): State<Shared>,
    Segments((collection, task, name)): Segments<Path>,
) -> Result<Json<Value>, ApiError> {
    let collection = own(&api, &collection).await?;
    api.catalog.delete_routine(&collection, &task, &name).await?;
    Ok(Json(json!({ "message": "Routine deleted successfully" })))
}

/// Stops a routine for now. Slots that pass meanwhile are not made up for.
#[utoipa::path(post, path = "/api/v1/routines/{collection}/{task}/{name}/pause", tag = "routines",
    responses((status = 200, description = "The routine.")))]
async fn pause(
    State(api): State<Shared>,
    Segments(path): Segments<Path>,
) -> Result<Json<Value>, ApiError> {
    update(&api, &path, RoutinePatch { paused: Some(true), ..RoutinePatch::default() }).await
}

/// Lets a routine go on.
#[utoipa::path(post, path = "/api/v1/routines/{collection}/{task}/{name}/resume", tag = "routines",
    responses((status = 200, description = "The routine.")))]
async fn resume(
    State(api): State<Shared>,
    Segments(path): Segments<Path>,
) -> Result<Json<Value>, ApiError> {
    update(&api, &path, RoutinePatch { paused: Some(false), ..RoutinePatch::default() }).await
}

/// Starts a run of a routine now, beside its cadence. `Idempotency-Key` makes a repeated request the
/// same request.
#[utoipa::path(post, path = "/api/v1/routines/{collection}/{task}/{name}/run-now",
    tag = "routines", responses((status = 200, description = "The run's ids."),
        (status = 409, description = "The idempotency key was used for another request.")))]
async fn run_now(
    State(api): State<Shared>,
    Segments(path): Segments<Path>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let routine = find(&api, &path).await?;
    let idempotency_key = idempotency_key(&headers)?;
    let wish = wish_of(&api.catalog, &routine).await?;
    let wish = Submission { idempotency_key, ..wish };
    let accepted = api.runs.intake.submit(wish, (api.clock)()).await.map_err(refusal)?;
    started(&api, accepted).await
}

/// Lists the runs of a routine, newest first.
#[utoipa::path(get, path = "/api/v1/routines/{collection}/{task}/{name}/runs", tag = "routines",
    params(Wish),
    responses((status = 200, description = "A page of trajectories.")))]
async fn runs(
    State(api): State<Shared>,
    Segments(path): Segments<Path>,
    Query(wish): Query<Wish>,
    held: Held,
) -> Result<Json<Value>, ApiError> {
    let routine = find(&api, &path).await?;
    let filter = ListFilter {
        collection: routine.collection,
        task: Some(routine.task),
        statuses: wish.statuses()?,
        routine: Some(routine.id.to_string()),
    };
    answer(&api, &held, &filter, wish.page()).await
}

/// What a client writes of a routine.
#[derive(Debug, Default)]
struct Fields {
    name: Option<String>,
    cadence: Option<Cadence>,
    overrides: Option<Map<String, Value>>,
    secret_params: Option<BTreeMap<String, Secret>>,
    paused: Option<bool>,
    webhook_url: Option<Option<String>>,
    webhook_secret: Option<Option<Secret>>,
}

impl Fields {
    fn read(api: &Shared, body: Map<String, Value>) -> Result<Self, ApiError> {
        let (mut fields, mut problems) = (Self::default(), Vec::new());
        for (key, value) in body {
            if let Err(msg) = fields.field(api, &key, value) {
                problems.push(Problem::of_field(&key, "value_error", msg));
            }
        }
        // The contract wants 400 for what cannot run; wrong types are told the same way.
        if problems.is_empty() {
            return Ok(fields);
        }
        let said = problems.iter().map(|problem| problem.msg.clone());
        Err(ApiError::BadRequest(said.collect::<Vec<_>>().join("; ")))
    }

    fn field(&mut self, api: &Shared, key: &str, value: Value) -> Result<(), String> {
        match key {
            "name" => self.name = Some(text(key, value)?.ok_or("`name` must be a text")?),
            "cadence" => {
                self.cadence = Some(Cadence::parse(&value).map_err(|e| e.to_string())?);
            }
            "init_params_overrides" => self.overrides = Some(object(key, value)?),
            "secret_params" => {
                let values = object(key, value)?.into_iter();
                let values = values.map(|(name, value)| {
                    let text = value.as_str().map(str::to_owned);
                    text.map(|text| (name.clone(), Secret::new(text)))
                        .ok_or_else(|| format!("the secret parameter `{name}` must be a text"))
                });
                self.secret_params = Some(values.collect::<Result<_, _>>()?);
            }
            "paused" => {
                let paused = value.as_bool().ok_or("`paused` must be true or false")?;
                self.paused = Some(paused);
            }
            "webhook_url" => {
                let url = text(key, value)?.filter(|url| !url.is_empty());
                if let Some(url) = &url {
                    let reach = api.runs.intake.settings.webhook_reach;
                    parse_target(url, reach).map_err(|e| format!("the webhook's URL {e}"))?;
                }
                self.webhook_url = Some(url);
            }
            "webhook_secret" => {
                let secret = text(key, value)?.filter(|text| !text.is_empty());
                self.webhook_secret = Some(secret.map(Secret::new));
            }
            other => {
                let known = KEYS.join(", ");
                return Err(format!("`{other}` is not known: a routine has {known}"));
            }
        }
        Ok(())
    }
}

fn text(key: &str, value: Value) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(format!("`{key}` must be a text"))
        }
    }
}

fn object(key: &str, value: Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Null => Ok(Map::new()),
        Value::Object(object) => Ok(object),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(format!("`{key}` must be an object of names and values"))
        }
    }
}
