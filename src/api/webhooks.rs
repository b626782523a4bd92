//! What became of the webhook of a run.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::error::ApiError;
use super::extract::Segments;
use super::runs::find;
use crate::catalog::{CatalogError, DeliveryState};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(delivery))
}

/// Tells what became of the webhook of a run: `waiting`, `delivered` or `failed`, and why.
#[utoipa::path(get, path = "/api/v1/trajectory/{collection}/{task}/{id}/webhook", tag = "runs",
    responses((status = 200, description = "Where the delivery stands."),
        (status = 404, description = "The run has not ended, or has no webhook.")))]
async fn delivery(
    State(api): State<Shared>,
    Segments(path): Segments<(String, String, String)>,
) -> Result<Json<Value>, ApiError> {
    let job = find(&api, &path).await?;
    let state = match api.catalog.delivery_state(&job.name).await {
        Ok(state) => state,
        Err(CatalogError::NotFound { .. }) => {
            return Err(ApiError::NotFound(format!(
                "Nothing was sent for the run '{}': it has not ended, or it was started without a \
                 webhook_url",
                job.name.id
            )));
        }
        Err(error) => return Err(error.into()),
    };
    let (status, next, error) = match state {
        DeliveryState::Waiting { next } => ("waiting", Some(next), None),
        DeliveryState::Delivered => ("delivered", None, None),
        DeliveryState::Failed { error } => ("failed", None, Some(error)),
    };
    Ok(Json(json!({
        "trajectory_id": job.name.id.as_str(),
        "status": status,
        "next_attempt_at": next,
        "error": error,
    })))
}
