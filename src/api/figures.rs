//! `GET /metrics`: figures of the whole daemon, for an operator's monitor.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::auth::Caller;
use super::error::ApiError;
use crate::queue::Status;
use crate::telemetry::meters;

/// The text format of Prometheus.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(render))
}

/// All figures in the text format of Prometheus. Wants an admin token.
#[utoipa::path(get, path = "/metrics", tag = "operation",
    responses((status = 200, description = "The figures.", content_type = "text/plain"),
        (status = 403, description = "This needs an admin token.")))]
async fn render(State(api): State<Shared>, caller: Caller) -> Result<Response, ApiError> {
    caller.must_be_admin()?;
    let depth = api.queue.depth((api.clock)()).await?;
    for status in Status::ALL {
        // A status that has none left must not keep its last figure.
        let n = depth.by_status.get(&status).copied().unwrap_or(0);
        meters::queue_jobs(status.as_str(), n);
    }
    meters::queue_oldest(depth.oldest.unwrap_or_default());
    Ok(([(CONTENT_TYPE, TEXT_FORMAT)], meters::render()).into_response())
}
