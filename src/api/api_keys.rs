//! API keys: made, listed, switched off, removed. Wants an admin token.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::auth::{Caller, Tenant};
use super::bodies::NewApiKey;
use super::error::{ApiError, Problem};
use super::extract::{JsonBody, Segments};
use super::fields::Fields;
use super::translate;
use crate::catalog::{CatalogError, Scope, Token, TokenPatch};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(of_collection))
        .routes(routes!(change, remove))
}

/// Lists all keys, without their secret part.
#[utoipa::path(get, path = "/api/v1/api-keys", tag = "api keys",
    responses((status = 200, description = "A list of keys."),
        (status = 403, description = "This needs an admin token.")))]
async fn list(State(api): State<Shared>, caller: Caller) -> Result<Json<Value>, ApiError> {
    caller.must_be_admin()?;
    all(&api, None).await
}

/// The keys of a scope, or all.
async fn all(api: &Shared, scope: Option<&Scope>) -> Result<Json<Value>, ApiError> {
    let mut keys = Vec::new();
    for token in api.catalog.tokens(scope).await? {
        keys.push(shown(api, &token).await?);
    }
    Ok(Json(Value::Array(keys)))
}

/// Lists a collection's keys, without their secret part.
#[utoipa::path(get, path = "/api/v1/api-keys/collection/{collection}", tag = "api keys",
    params(("collection" = String, Path, description = "The collection.")),
    responses((status = 200, description = "A list of keys."),
        (status = 403, description = "This needs an admin token.")))]
async fn of_collection(
    State(api): State<Shared>,
    caller: Caller,
    Tenant(collection): Tenant,
) -> Result<Json<Value>, ApiError> {
    caller.must_be_admin()?;
    all(&api, Some(&Scope::Collection(collection.name))).await
}

/// Makes a key. `api_key` in the answer is the only time that it is shown.
#[utoipa::path(post, path = "/api/v1/api-keys", tag = "api keys",
    request_body = NewApiKey,
    responses((status = 200, description = "The key, in plain text this once."),
        (status = 400, description = "There is one of this name."),
        (status = 403, description = "This needs an admin token."),
        (status = 404, description = "There is no such collection.")))]
async fn create(
    State(api): State<Shared>,
    caller: Caller,
    body: JsonBody<Value>,
) -> Result<Json<Value>, ApiError> {
    caller.must_be_admin()?;
    let mut fields = Fields::of(body)?;
    let name = fields.text("name");
    fields.require("name", &name);
    let collection = fields.text("collection_name");
    let scope = fields.text("scope");
    fields.finish()?;
    let scope = match (collection, scope.as_deref()) {
        (Some(collection), None | Some("collection")) => {
            Scope::Collection(api.catalog.collection(&collection).await?.name)
        }
        (None, Some("admin")) => Scope::Admin,
        (Some(_) | None, _) => {
            let msg = "Write the collection's name, or `scope`: `admin` for a key that opens all";
            return Err(ApiError::Invalid(vec![Problem::of_field(
                "collection_name",
                "missing",
                msg,
            )]));
        }
    };
    let name = name.unwrap_or_default();
    let (token, secret) =
        api.catalog.create_token(&scope, &name, (api.clock)()).await.map_err(taken)?;
    let mut shown = shown(&api, &token).await?;
    shown["api_key"] = json!(secret.expose());
    Ok(Json(shown))
}

/// Renames a key, switches it off or on.
#[utoipa::path(put, path = "/api/v1/api-keys/{id}", tag = "api keys",
    params(("id" = u64, Path, description = "The key's number.")),
    request_body(content = Object, description = "Any of `name` and `is_active`."),
    responses((status = 200, description = "The key."),
        (status = 404, description = "There is none of this number.")))]
async fn change(
    State(api): State<Shared>,
    caller: Caller,
    Segments(id): Segments<u64>,
    body: JsonBody<Value>,
) -> Result<Json<Value>, ApiError> {
    caller.must_be_admin()?;
    let mut fields = Fields::of(body)?;
    let patch = TokenPatch { name: fields.text("name"), is_active: fields.flag("is_active") };
    fields.finish()?;
    let token = api.catalog.update_token(id, patch).await.map_err(taken)?;
    Ok(Json(shown(&api, &token).await?))
}

/// Removes a key. It opens nothing from now on.
#[utoipa::path(delete, path = "/api/v1/api-keys/{id}", tag = "api keys",
    params(("id" = u64, Path, description = "The key's number.")),
    responses((status = 200, description = "It is removed."),
        (status = 404, description = "There is none of this number.")))]
async fn remove(
    State(api): State<Shared>,
    caller: Caller,
    Segments(id): Segments<u64>,
) -> Result<Json<Value>, ApiError> {
    caller.must_be_admin()?;
    api.catalog.delete_token(id).await?;
    Ok(Json(json!({ "message": "API key deleted successfully" })))
}

fn taken(error: CatalogError) -> ApiError {
    translate::taken(error, |name| {
        format!("An API key with the name '{name}' already exists for this collection")
    })
}

async fn shown(api: &Shared, token: &Token) -> Result<Value, ApiError> {
    let (scope, name) = match &token.scope {
        Scope::Admin => ("admin", None),
        Scope::Collection(name) => ("collection", Some(name.as_str())),
    };
    let number = match name {
        None => None,
        Some(name) => match api.catalog.collection(name).await {
            Ok(collection) => Some(collection.number),
            // It was removed since the key was read, and the key with it.
            Err(CatalogError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        },
    };
    Ok(json!({
        "id": token.number,
        "collection_id": number,
        "collection_name": name,
        "scope": scope,
        "name": token.name,
        "key_prefix": token.prefix,
        "created_at": token.created.to_string(),
        "created_by_agent_id": null,
        "last_used_at": token.last_used.map(|last| last.to_string()),
        "is_active": token.is_active,
    }))
}
