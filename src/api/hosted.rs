//! Paths of the hosted service that clients ask and that have little to tell here.

use axum::Json;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::auth::Caller;
use super::error::ApiError;
use crate::run::Slug;

/// What stands in for trials and linked accounts.
const BRING_A_KEY: &str = "put the provider's key into the collection's environment with PATCH \
                           /api/v1/collections/{collection}/environment";

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(whoami))
        .routes(routes!(models))
        .routes(routes!(datasets))
        .routes(routes!(trial))
        .routes(routes!(activate))
        .routes(routes!(accounts))
        .routes(routes!(link))
        .routes(routes!(begin))
        .routes(routes!(old_upload))
}

/// Tells whose token this is.
#[utoipa::path(get, path = "/api/v1/auth/whoami", tag = "identity",
    responses((status = 200, description = "The token's name and what it opens.")))]
async fn whoami(caller: Caller) -> Json<Value> {
    Json(json!({
        "type": "api_key",
        "name": caller.token,
        "scope": if caller.own_collection().is_some() { "collection" } else { "admin" },
        "collection_name": caller.own_collection().map(Slug::as_str),
    }))
}

/// Lists the collection's models. There are none: a run names its model.
#[utoipa::path(get, path = "/api/v1/models/{collection}", tag = "discovery",
    params(("collection" = String, Path, description = "The collection.")),
    responses((status = 200, description = "An empty list.")))]
async fn models() -> Json<Value> {
    Json(json!([]))
}

/// Lists the collection's data sets. There are none: a run brings its files.
#[utoipa::path(get, path = "/api/v1/datasets/{collection}", tag = "discovery",
    params(("collection" = String, Path, description = "The collection.")),
    responses((status = 200, description = "An empty list.")))]
async fn datasets() -> Json<Value> {
    Json(json!([]))
}

/// Tells that there is no trial: every run is paid with the collection's own key.
#[utoipa::path(get, path = "/api/v1/trial/{collection}", tag = "trial",
    params(("collection" = String, Path, description = "The collection.")),
    responses((status = 200, description = "`active` is false.")))]
async fn trial() -> Json<Value> {
    Json(no_trial())
}

/// Tells that there is no trial to activate, and what to do instead.
#[utoipa::path(post, path = "/api/v1/trial/{collection}/activate", tag = "trial",
    params(("collection" = String, Path, description = "The collection.")),
    responses((status = 200, description = "`active` is false; `message` says what to do.")))]
async fn activate() -> Json<Value> {
    Json(no_trial())
}

fn no_trial() -> Value {
    json!({
        "active": false,
        "status": "unavailable",
        "runs_used": 0,
        "runs_limit": 0,
        "runs_remaining": 0,
        "message": format!("This server has no trial: {BRING_A_KEY}"),
    })
}

/// Lists linked accounts. There are none.
#[utoipa::path(get, path = "/api/v1/connected-accounts", tag = "connected accounts",
    responses((status = 200, description = "An empty list.")))]
async fn accounts() -> Json<Value> {
    Json(json!([]))
}

/// Refuses to link an account.
#[utoipa::path(post, path = "/api/v1/connected-accounts/{provider}/link", tag = "connected accounts",
    params(("provider" = String, Path, description = "The provider.")),
    responses((status = 400, description = "Accounts are not linked here.")))]
async fn link() -> ApiError {
    no_accounts()
}

/// Refuses to begin a login.
#[utoipa::path(post, path = "/api/v1/connected-accounts/{provider}/begin", tag = "connected accounts",
    params(("provider" = String, Path, description = "The provider.")),
    responses((status = 400, description = "Accounts are not linked here.")))]
async fn begin() -> ApiError {
    no_accounts()
}

fn no_accounts() -> ApiError {
    ApiError::BadRequest(format!("This server links no accounts: {BRING_A_KEY}"))
}

/// Refuses the upload path that clients used before there were two.
#[utoipa::path(post, path = "/api/v1/files/upload", tag = "files",
    responses((status = 405, description = "`detail` names the two paths to use.")))]
async fn old_upload() -> ApiError {
    ApiError::MethodNotAllowed {
        detail: "Uploads go to POST /api/v1/sandbox/upload (field `files`; its paths go into \
                 `file_paths`) or to POST /api/v1/files (field `file`; its id goes into `files`)"
            .to_owned(),
        allow: String::new(),
    }
}
