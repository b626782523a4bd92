//! What a task's steps can be. No token is asked for.

use axum::Json;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::error::ApiError;
use super::extract::Segments;
use crate::workflow::{PARAMETERS, RUNBOOK_ACTIVITY};

/// What the only activity does, in a sentence.
const DESCRIPTION: &str =
    "Runs a runbook with an agent in a sandbox and keeps its results, its steps and its usage.";

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get))
}

/// Lists the activities that a step can have.
#[utoipa::path(get, path = "/api/v1/step-templates", tag = "step templates", security(()),
    responses((status = 200, description = "The activities.")))]
async fn list() -> Json<Value> {
    Json(json!({ "templates": [template()], "categories": ["agents"], "total_count": 1 }))
}

/// Describes one activity.
#[utoipa::path(get, path = "/api/v1/step-templates/{name}", tag = "step templates", security(()),
    params(("name" = String, Path, description = "The activity.")),
    responses((status = 200, description = "The activity."),
        (status = 404, description = "There is none of this name.")))]
async fn get(Segments(name): Segments<String>) -> Result<Json<Value>, ApiError> {
    if name == RUNBOOK_ACTIVITY {
        return Ok(Json(template()));
    }
    Err(ApiError::NotFound(format!(
        "There is no step template `{name}`: this server runs `{RUNBOOK_ACTIVITY}`"
    )))
}

/// The `runbook` activity. Jetty's documents call its name `activity_name`, its clients `name`.
fn template() -> Value {
    let parameters: Vec<Value> = PARAMETERS
        .iter()
        .map(|parameter| {
            json!({
                "name": parameter.name,
                "path_name": format!("{}_path", parameter.name),
                "expects": parameter.expects,
                "init_params": parameter.keys,
            })
        })
        .collect();
    json!({
        "activity_name": RUNBOOK_ACTIVITY,
        "name": RUNBOOK_ACTIVITY,
        "category": "agents",
        "description": DESCRIPTION,
        "parameters": parameters,
    })
}
