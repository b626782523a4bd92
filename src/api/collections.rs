//! Collections and their environments. The values of an environment never leave it.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::auth::{Caller, Tenant};
use super::bodies::NewCollection;
use super::error::{ApiError, Problem};
use super::extract::{JsonBody, Query};
use super::fields::{Fields, kind_of};
use super::translate::taken;
use crate::catalog::{Collection, CollectionPatch, Page};
use crate::run::Slug;
use crate::secret::MASK;

/// How many collections are listed when nobody says.
const DEFAULT_LIMIT: u64 = 100;

/// The field that everything about an environment stands in.
const VARIABLES: &str = "environment_variables";

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, change, remove))
        .routes(routes!(environment, change_environment))
}

/// Which part of a list.
#[derive(Debug, Deserialize)]
struct Paging {
    skip: Option<u64>,
    limit: Option<u64>,
}

/// Lists the collections that the token opens.
#[utoipa::path(get, path = "/api/v1/collections", tag = "collections",
    params(("skip" = Option<u64>, Query), ("limit" = Option<u64>, Query)),
    responses((status = 200, description = "A list of collections.")))]
async fn list(
    State(api): State<Shared>,
    caller: Caller,
    Query(paging): Query<Paging>,
) -> Result<Json<Value>, ApiError> {
    let page =
        Page { skip: paging.skip.unwrap_or(0), limit: paging.limit.unwrap_or(DEFAULT_LIMIT) };
    let collections = match caller.own_collection() {
        Some(own) => vec![api.catalog.collection(own.as_str()).await?],
        None => api.catalog.collections(page).await?,
    };
    Ok(Json(collections.iter().map(shown).collect()))
}

/// Makes a collection. Wants an admin token.
#[utoipa::path(post, path = "/api/v1/collections", tag = "collections",
    request_body = NewCollection,
    responses((status = 200, description = "The collection."),
        (status = 400, description = "It is there already, or cannot be made."),
        (status = 403, description = "This needs an admin token.")))]
async fn create(
    State(api): State<Shared>,
    caller: Caller,
    body: JsonBody<Value>,
) -> Result<Json<Value>, ApiError> {
    caller.must_be_admin()?;
    let mut fields = Fields::of(body)?;
    let name = fields.text("name");
    fields.require("name", &name);
    let description = fields.text("description");
    let variables = fields.object(VARIABLES);
    fields.finish()?;
    let name = name.unwrap_or_default();
    let made = api.catalog.create_collection(&name, description.as_deref(), (api.clock)()).await;
    let exists = |_: &str| "Collection already exists".to_owned();
    let made = made.map_err(|error| taken(error, exists))?;
    if let Some(Value::Object(variables)) = variables
        && let Err(error) =
            api.catalog.patch_environment(&made.name, &variables, (api.clock)()).await
    {
        // Half of what was asked for would be in the way of asking again.
        api.catalog.delete_collection(&made.name).await?;
        return Err(error.into());
    }
    Ok(Json(shown(&made)))
}

/// Shows a collection.
#[utoipa::path(get, path = "/api/v1/collections/{collection}", tag = "collections",
    params(("collection" = String, Path, description = "The collection.")),
    responses((status = 200, description = "The collection."),
        (status = 404, description = "There is none of this name.")))]
async fn get(Tenant(collection): Tenant) -> Json<Value> {
    Json(shown(&collection))
}

/// Changes a collection's description or settings. Wants an admin token.
#[utoipa::path(patch, path = "/api/v1/collections/{collection}", tag = "collections",
    params(("collection" = String, Path, description = "The collection.")),
    request_body(content = Object, description = "Any of `description`, `concurrency` (runs at once, null for the server's limit), `redacted_param_keys`."),
    responses((status = 200, description = "The collection."),
        (status = 403, description = "This needs an admin token.")))]
async fn change(
    State(api): State<Shared>,
    caller: Caller,
    Tenant(collection): Tenant,
    body: JsonBody<Map<String, Value>>,
) -> Result<Json<Value>, ApiError> {
    caller.must_be_admin()?;
    let patch = patch(body.0)?;
    Ok(Json(shown(&api.catalog.update_collection(&collection.name, patch).await?)))
}

/// Removes a collection with its environment, tasks, routines and tokens. The records of its runs
/// stay on disk. Wants an admin token.
#[utoipa::path(delete, path = "/api/v1/collections/{collection}", tag = "collections",
    params(("collection" = String, Path, description = "The collection.")),
    responses((status = 200, description = "It is removed."),
        (status = 403, description = "This needs an admin token.")))]
async fn remove(
    State(api): State<Shared>,
    caller: Caller,
    Tenant(collection): Tenant,
) -> Result<Json<Value>, ApiError> {
    caller.must_be_admin()?;
    api.catalog.delete_collection(&collection.name).await?;
    Ok(Json(json!({ "message": "Collection deleted successfully" })))
}

/// Shows the names of a collection's environment variables. Values are never shown.
#[utoipa::path(get, path = "/api/v1/collections/{collection}/environment", tag = "collections",
    params(("collection" = String, Path, description = "The collection.")),
    responses((status = 200, description = "The collection and its names, each with `[redacted]`.")))]
async fn environment(
    State(api): State<Shared>,
    Tenant(collection): Tenant,
) -> Result<Json<Value>, ApiError> {
    let names = api.catalog.environment_names(&collection.name).await?;
    Ok(Json(with_names(&collection, names)))
}

/// Sets (text) and removes (null) environment variables; the others stay.
#[utoipa::path(patch, path = "/api/v1/collections/{collection}/environment", tag = "collections",
    params(("collection" = String, Path, description = "The collection.")),
    request_body(content = Object, description = "`environment_variables`: an object of names and texts or nulls; null removes all."),
    responses((status = 200, description = "The collection and its names, each with `[redacted]`."),
        (status = 400, description = "A variable cannot be kept; `detail` names it.")))]
async fn change_environment(
    State(api): State<Shared>,
    Tenant(collection): Tenant,
    body: JsonBody<Value>,
) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::of(body)?;
    let names = match fields.raw(VARIABLES) {
        None => api.catalog.environment_names(&collection.name).await?,
        Some(Value::Null) => {
            api.catalog.clear_environment(&collection.name).await?;
            Vec::new()
        }
        Some(Value::Object(changes)) => {
            let changes = without_masks(&api, &collection.name, changes).await?;
            api.catalog.patch_environment(&collection.name, &changes, (api.clock)()).await?
        }
        Some(other) => {
            let msg = format!("Input should be an object or null; it is {}", kind_of(&other));
            return Err(ApiError::Invalid(vec![Problem::of_field(VARIABLES, "type_error", msg)]));
        }
    };
    Ok(Json(with_names(&collection, names)))
}

/// Clients send back what they were shown: a mask means "as it is", and must not become the value.
async fn without_masks(
    api: &Shared,
    collection: &Slug,
    mut changes: Map<String, Value>,
) -> Result<Map<String, Value>, ApiError> {
    if changes.values().any(|value| value == MASK) {
        let known = api.catalog.environment_names(collection).await?;
        let unknown = changes.iter().find(|(name, value)| *value == MASK && !known.contains(name));
        if let Some((name, _)) = unknown {
            return Err(ApiError::BadRequest(format!(
                "`{name}` has the value `{MASK}`, which stands for a hidden one, and there is no \
                 variable of that name: send its value"
            )));
        }
        changes.retain(|_, value| value != MASK);
    }
    Ok(changes)
}

fn patch(mut body: Map<String, Value>) -> Result<CollectionPatch, ApiError> {
    let mut field = |name: &str| body.remove(name);
    let unfit = |name: &str, wanted: &str, found: &Value| {
        let msg = format!("Input should be {wanted}; it is {}", kind_of(found));
        ApiError::Invalid(vec![Problem::of_field(name, "type_error", msg)])
    };
    let description = match field("description") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(Value::String(text)) => Some(Some(text)),
        Some(other) => return Err(unfit("description", "a text or null", &other)),
    };
    let concurrency = match field("concurrency") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(value) => match value.as_u64().and_then(|n| u32::try_from(n).ok()) {
            Some(n) => Some(Some(n)),
            None => return Err(unfit("concurrency", "a whole number or null", &value)),
        },
    };
    let redacted_param_keys = match field("redacted_param_keys") {
        None => None,
        Some(keys) => match serde_json::from_value::<Vec<String>>(keys.clone()) {
            Ok(keys) => Some(keys),
            Err(_) => return Err(unfit("redacted_param_keys", "a list of texts", &keys)),
        },
    };
    Ok(CollectionPatch { description, concurrency, redacted_param_keys })
}

fn shown(collection: &Collection) -> Value {
    json!({
        "id": collection.number,
        "name": collection.name.as_str(),
        "description": collection.description,
        "auth_org_id": null,
        "owner_identifier": null,
        "concurrency": collection.concurrency,
        "redacted_param_keys": collection.redacted_param_keys,
        "created_at": collection.created.to_string(),
    })
}

fn with_names(collection: &Collection, names: Vec<String>) -> Value {
    let variables: Map<String, Value> = names.into_iter().map(|name| (name, json!(MASK))).collect();
    let mut shown = shown(collection);
    shown[VARIABLES] = Value::Object(variables);
    shown
}
