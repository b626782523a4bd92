//! Tasks: a collection's named workflows. A workflow that cannot run is refused when it is written.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::auth::Tenant;
use super::bodies::NewTaskBody;
use super::error::{ApiError, Problem};
use super::extract::{JsonBody, Query, Segments};
use super::fields::Fields;
use crate::catalog::{CatalogError, NewTask, Page, Task, TaskFlags, TaskPatch};
use crate::run::Slug;
use crate::workflow::Workflow;

/// How many tasks are listed when nobody says.
const DEFAULT_LIMIT: u64 = 100;

/// How many tasks are listed at most. Each carries its workflow.
const MAX_LIMIT: u64 = 500;

/// How many tasks of a collection a search looks at. It reads them one page after the other.
const MAX_SEARCHED: u64 = 10_000;

/// How many hits a search gives when nobody says.
const DEFAULT_HITS: usize = 10;

/// The segment that is no task's name: it searches.
pub(super) const SEARCH: &str = "search";

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(search))
        .routes(routes!(get, change, remove))
        .routes(routes!(flows))
}

/// Which part of a list.
#[derive(Debug, Deserialize)]
struct Paging {
    skip: Option<u64>,
    limit: Option<u64>,
}

/// What is looked for.
#[derive(Debug, Deserialize)]
struct Search {
    #[serde(default)]
    q: String,
    limit: Option<usize>,
}

/// The collection and the task of a path. The guard has read the first.
type Names = (String, String);

/// Lists a collection's tasks.
#[utoipa::path(get, path = "/api/v1/tasks/{collection}", tag = "tasks",
    params(("collection" = String, Path, description = "The collection."),
        ("skip" = Option<u64>, Query), ("limit" = Option<u64>, Query, description = "1 to 500.")),
    responses((status = 200, description = "A list of tasks.")))]
async fn list(
    State(api): State<Shared>,
    Tenant(collection): Tenant,
    Query(paging): Query<Paging>,
) -> Result<Json<Value>, ApiError> {
    let tasks = api.catalog.tasks(&collection.name, page(&paging)?).await?;
    Ok(Json(tasks.iter().map(|task| in_list(task, collection.number)).collect()))
}

/// Lists a collection's flows, which are its tasks.
#[utoipa::path(get, path = "/api/v1/db/flows/{collection}", tag = "discovery",
    params(("collection" = String, Path, description = "The collection."),
        ("skip" = Option<u64>, Query), ("limit" = Option<u64>, Query, description = "1 to 500.")),
    responses((status = 200, description = "A list of tasks.")))]
async fn flows(
    state: State<Shared>,
    tenant: Tenant,
    paging: Query<Paging>,
) -> Result<Json<Value>, ApiError> {
    list(state, tenant, paging).await
}

/// Searches a collection's tasks by their names and descriptions, whatever the case.
#[utoipa::path(get, path = "/api/v1/tasks/{collection}/search", tag = "tasks",
    params(("collection" = String, Path, description = "The collection."),
        ("q" = Option<String>, Query, description = "What to look for."), ("limit" = Option<usize>, Query)),
    responses((status = 200, description = "`hits`, each with the task as its `document`.")))]
async fn search(
    State(api): State<Shared>,
    Tenant(collection): Tenant,
    Query(search): Query<Search>,
) -> Result<Json<Value>, ApiError> {
    let wanted = search.q.to_lowercase();
    let most = search.limit.unwrap_or(DEFAULT_HITS);
    let is_hit = |task: &Task| {
        task.name.as_str().to_lowercase().contains(&wanted)
            || task.description.to_lowercase().contains(&wanted)
    };
    let mut hits = Vec::new();
    for skip in (0..MAX_SEARCHED).step_by(MAX_LIMIT as usize) {
        let tasks = api.catalog.tasks(&collection.name, Page { skip, limit: MAX_LIMIT }).await?;
        let is_last = (tasks.len() as u64) < MAX_LIMIT;
        let documents = tasks.iter().filter(|task| is_hit(task));
        hits.extend(documents.map(|task| json!({ "document": in_list(task, collection.number) })));
        if is_last || hits.len() >= most {
            break;
        }
    }
    hits.truncate(most);
    Ok(Json(json!({ "found": hits.len(), "hits": hits })))
}

/// Shows a task.
#[utoipa::path(get, path = "/api/v1/tasks/{collection}/{task}", tag = "tasks",
    params(("collection" = String, Path, description = "The collection."),
        ("task" = String, Path, description = "The task.")),
    responses((status = 200, description = "The task."),
        (status = 404, description = "There is none of this name.")))]
async fn get(
    State(api): State<Shared>,
    Tenant(collection): Tenant,
    Segments(names): Segments<Names>,
) -> Result<Json<Value>, ApiError> {
    let (_, name) = names;
    let task = api.catalog.task(&collection.name, &name).await;
    let task = task.map_err(|error| named(error, &name, &collection.name))?;
    Ok(Json(alone(&task, collection.number)))
}

/// Makes a task.
#[utoipa::path(post, path = "/api/v1/tasks/{collection}", tag = "tasks",
    params(("collection" = String, Path, description = "The collection.")),
    request_body = NewTaskBody,
    responses((status = 201, description = "The task; `warnings` says what is odd about it."),
        (status = 409, description = "There is one of this name, whatever its case."),
        (status = 422, description = "The workflow cannot run; `detail` lists every reason.")))]
async fn create(
    State(api): State<Shared>,
    Tenant(collection): Tenant,
    body: JsonBody<Value>,
) -> Result<super::Created, ApiError> {
    let mut fields = Fields::of(body)?;
    let name = fields.text("name");
    fields.require("name", &name);
    let workflow = fields.object("workflow");
    fields.require("workflow", &workflow);
    let defaults = TaskFlags::default();
    let flags = TaskFlags {
        is_private: fields.flag("is_private").unwrap_or(defaults.is_private),
        is_chat_flow: fields.flag("is_chat_flow").unwrap_or(defaults.is_chat_flow),
        has_file_uploads: fields.flag("has_file_uploads").unwrap_or(defaults.has_file_uploads),
    };
    let description = fields.text("description").unwrap_or_default();
    let version = fields.text("version");
    let croissant_metadata = fields.object("croissant_metadata");
    fields.finish()?;
    let name = name.unwrap_or_default();
    if name == SEARCH {
        return Err(ApiError::BadRequest(format!(
            "A task cannot be called `{SEARCH}`: that path searches. Choose another name"
        )));
    }
    let workflow = Workflow::parse(&workflow.unwrap_or_default())?;
    let warnings = workflow.warnings().to_vec();
    let new = NewTask { name, workflow, description, flags, version, croissant_metadata };
    let name = new.name.clone();
    let made = api.catalog.create_task(&collection.name, new, (api.clock)()).await;
    let made = made.map_err(|error| named(error, &name, &collection.name))?;
    Ok(super::Created(with_warnings(alone(&made, collection.number), warnings)))
}

/// Changes a task. Fields that are not sent stay; unknown ones are ignored.
#[utoipa::path(put, path = "/api/v1/tasks/{collection}/{task}", tag = "tasks",
    params(("collection" = String, Path, description = "The collection."),
        ("task" = String, Path, description = "The task.")),
    request_body(content = Object, description = "Any of a task's fields."),
    responses((status = 200, description = "The task; `warnings` says what is odd about it."),
        (status = 404, description = "There is none of this name."),
        (status = 422, description = "The workflow cannot run; `detail` lists every reason.")))]
async fn change(
    State(api): State<Shared>,
    Tenant(collection): Tenant,
    Segments(names): Segments<Names>,
    body: JsonBody<Value>,
) -> Result<Json<Value>, ApiError> {
    let (_, name) = names;
    let missing = |error| named(error, &name, &collection.name);
    // Clients try to change first and make what is not there: that must be told before all else.
    api.catalog.task(&collection.name, &name).await.map_err(missing)?;
    let mut fields = Fields::of(body)?;
    let workflow = fields.object("workflow");
    let mut patch = TaskPatch {
        name: fields.text("name"),
        workflow: None,
        description: fields.text("description"),
        is_private: fields.flag("is_private"),
        is_chat_flow: fields.flag("is_chat_flow"),
        has_file_uploads: fields.flag("has_file_uploads"),
        version: fields.text("version"),
        croissant_metadata: fields.object("croissant_metadata"),
    };
    fields.finish()?;
    patch.workflow = workflow.as_ref().map(Workflow::parse).transpose()?;
    let warnings = patch.workflow.as_ref().map_or_else(Vec::new, |w| w.warnings().to_vec());
    let now = (api.clock)();
    let task =
        api.catalog.update_task(&collection.name, &name, patch, now).await.map_err(missing)?;
    Ok(Json(with_warnings(alone(&task, collection.number), warnings)))
}

/// Removes a task and its routines. The records of its runs stay.
#[utoipa::path(delete, path = "/api/v1/tasks/{collection}/{task}", tag = "tasks",
    params(("collection" = String, Path, description = "The collection."),
        ("task" = String, Path, description = "The task.")),
    responses((status = 200, description = "It is removed."),
        (status = 404, description = "There is none of this name.")))]
async fn remove(
    State(api): State<Shared>,
    Tenant(collection): Tenant,
    Segments(names): Segments<Names>,
) -> Result<Json<Value>, ApiError> {
    let (_, name) = names;
    let removed = api.catalog.delete_task(&collection.name, &name).await;
    removed.map_err(|error| named(error, &name, &collection.name))?;
    Ok(Json(json!({ "message": "Task deleted successfully" })))
}

/// The refusals that name a task, in the words that clients know.
fn named(error: CatalogError, task: &str, collection: &Slug) -> ApiError {
    if matches!(error, CatalogError::NotFound { .. }) {
        return ApiError::NotFound(format!("Task '{task}' in collection '{collection}' not found"));
    }
    if matches!(error, CatalogError::Exists { .. }) {
        return ApiError::Conflict(format!(
            "Task with name '{task}' already exists in collection '{collection}'"
        ));
    }
    error.into()
}

fn page(paging: &Paging) -> Result<Page, ApiError> {
    let limit = paging.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::Invalid(vec![Problem {
            loc: vec![json!("query"), json!("limit")],
            msg: format!("Input should be 1 to {MAX_LIMIT}"),
            kind: "value_error",
        }]));
    }
    Ok(Page { skip: paging.skip.unwrap_or(0), limit })
}

/// What a list and a single task have in common.
fn shown(task: &Task, collection: u64) -> Value {
    json!({
        "id": task.number,
        "name": task.name.as_str(),
        "entity_type": "task",
        "description": task.description,
        "workflow": task.workflow,
        "collection_id": collection,
        "is_private": task.flags.is_private,
        "is_chat_flow": task.flags.is_chat_flow,
        "has_file_uploads": task.flags.has_file_uploads,
        "version": task.version,
        "croissant_metadata": task.croissant_metadata,
    })
}

fn in_list(task: &Task, collection: u64) -> Value {
    let mut shown = shown(task, collection);
    shown["collection_name"] = json!(task.collection.as_str());
    shown
}

fn alone(task: &Task, collection: u64) -> Value {
    let mut shown = shown(task, collection);
    shown["created_at"] = json!(task.created.to_string());
    shown["updated_at"] = json!(task.updated.map(|updated| updated.to_string()));
    for name in ["environment_variables", "storage_info", "storage_provider"] {
        shown[name] = Value::Null;
    }
    shown
}

fn with_warnings(mut shown: Value, warnings: Vec<String>) -> Value {
    if !warnings.is_empty() {
        shown["warnings"] = json!(warnings);
    }
    shown
}
