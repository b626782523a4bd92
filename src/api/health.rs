//! Whether the daemon lives and whether it can take work. No token is asked for.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::error::ApiError;

/// What the daemon's parts say of themselves. They write it, `/readyz` reads it.
#[derive(Debug, Default)]
pub struct Readiness {
    engine: AtomicBool,
    draining: AtomicBool,
}

impl Readiness {
    /// A sandbox can be made, or no longer.
    pub fn engine_is(&self, ready: bool) {
        self.engine.store(ready, Ordering::Relaxed);
    }

    /// No new work is taken from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether a sandbox can be made.
    #[must_use]
    pub fn has_engine(&self) -> bool {
        self.engine.load(Ordering::Relaxed)
    }

    /// Whether new work is refused.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(healthz)).routes(routes!(readyz))
}

/// Tells that the API answers.
#[utoipa::path(get, path = "/api/v1/health", tag = "health", security(()),
    responses((status = 200, description = "It answers.")))]
async fn health() -> Json<Value> {
    Json(json!({ "status": "healthy" }))
}

/// Tells that the process lives.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()),
    responses((status = 200, description = "It lives.")))]
async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Tells whether new work can be taken.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses(
        (status = 200, description = "It is ready."),
        (status = 503, description = "It is not; `detail` says what is missing.")
    ))]
async fn readyz(State(api): State<Shared>) -> Result<Json<Value>, ApiError> {
    let missing = missing(&api).await;
    if missing.is_empty() {
        return Ok(Json(json!({ "status": "ready" })));
    }
    let detail = format!("Not ready: {}", missing.join("; "));
    Err(ApiError::Unavailable { detail, source: None })
}

/// What keeps new work from being taken, in the operator's words.
async fn missing(api: &Shared) -> Vec<String> {
    let mut missing = Vec::new();
    if api.readiness.is_draining() {
        missing.push("the server is stopping".to_owned());
    }
    if !api.readiness.has_engine() {
        missing.push("no sandbox engine is ready".to_owned());
    }
    if let Err(error) = api.queue.depth((api.clock)()).await {
        tracing::warn!(error = crate::run::error_chain(&error), "the database does not answer");
        missing.push("the database does not answer".to_owned());
    }
    let floor = api.settings.min_free_disk_bytes;
    match api.store.free_bytes() {
        Ok(free) if free < floor => missing.push(format!(
            "the results folder's disk has {free} bytes left, less than the floor of {floor}"
        )),
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(error = crate::run::error_chain(&error), "could not measure the disk");
            missing.push("the results folder's disk cannot be measured".to_owned());
        }
    }
    missing
}
