//! The HTTP surface that Jetty's public clients speak.
//!
//! One file per group of paths; each has a `routes()` that [`router`] puts together. A path with a
//! `{collection}` is closed to the tokens of other collections before its handler is asked.

mod api_keys;
mod auth;
mod bodies;
mod chat;
mod collections;
mod deadline;
mod described;
mod download;
mod drip;
mod error;
mod extract;
mod fields;
mod figures;
mod follow;
mod form;
mod health;
mod hosted;
mod ingest;
mod logs;
mod memory;
mod notes;
mod openapi;
mod operator;
mod path;
mod receive;
mod routines;
mod runs;
mod serve;
mod shares;
mod step_templates;
mod stored;
mod submit;
mod tasks;
mod trajectories;
mod translate;
mod unknown;
mod uploads;
mod usage;
mod watch;
mod webhooks;
mod write_limit;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::middleware::from_fn_with_state;
use axum::{Extension, Router};
use jiff::Timestamp;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use auth::{Caller, Tenant};
pub use chat::{Chats, Retries};
pub use error::{ApiError, BoxError, Created, Problem};
pub use extract::{JsonBody, Query, Segments, from_json};
pub use follow::Followers;
pub use health::Readiness;
pub use memory::Memory;
pub use operator::{OperatorDoor, OperatorError, OperatorReply, operator_router};
pub use runs::{RunParts, RunSettings};
pub use serve::{ConnectionLimits, Peer, serve, without_delay};

use crate::catalog::Catalog;
use crate::queue::Queue;
use crate::store::Store;
use memory::MaxBody;
use unknown::Known;

/// What the handlers work with.
#[derive(Debug)]
pub struct Api {
    /// Collections and what belongs to them.
    pub catalog: Catalog,
    /// The queue, which is the index of runs too.
    pub queue: Queue,
    /// The results directory.
    pub store: Store,
    /// The time.
    pub clock: fn() -> Timestamp,
    /// What the daemon's parts say of themselves.
    pub readiness: Arc<Readiness>,
    /// What the paths about runs work with.
    pub runs: RunParts,
    /// The chats that are passed on to models.
    pub chats: Chats,
    /// The limits.
    pub settings: ApiSettings,
    /// What requests hold in memory.
    pub memory: Arc<Memory>,
}

/// Largest body of JSON on the paths that take neither a runbook nor messages, in bytes.
const SMALL_JSON_BYTES: usize = 1 << 20;

/// The [`Api`] as handlers share it: requests are answered at the same time.
pub type Shared = Arc<Api>;

/// The API's limits.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// Largest body of JSON, in bytes.
    pub max_json_bytes: usize,
    /// Longest time for an ordinary answer. Paths that wait for a run or move files have their own.
    pub answer_limit: Duration,
    /// Less free disk than this, in bytes, and the daemon is not ready for work.
    pub min_free_disk_bytes: u64,
}

/// All of the API, ready to be served.
pub fn router(api: Shared) -> Router {
    let (routes, document) = routes(&api).split_for_parts();
    let document = described::described(document);
    let known = Known::of(&document);
    let no_method = known.clone();
    let routes = routes
        .merge(openapi::pages(document))
        .fallback(move |request: Request| async move { known.no_path(&request) })
        .method_not_allowed_fallback(move |matched: MatchedPath, request: Request| async move {
            no_method.no_method(matched.as_str(), request.method())
        })
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(from_fn_with_state(Arc::clone(&api), watch::watch))
        .with_state(api);
    path::normalized(routes)
}

/// The description of the API.
pub fn document(api: &Shared) -> OpenApi {
    described::described(routes(api).into_openapi())
}

fn routes(api: &Shared) -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(openapi::Base::openapi()).merge(open(api)).merge(guarded(api))
}

/// What anybody may ask.
fn open(api: &Shared) -> OpenApiRouter<Shared> {
    quick(api, SMALL_JSON_BYTES, health::routes().merge(step_templates::routes()))
}

/// What wants a token. Paths that wait for a run or move files are merged beside the quick ones.
fn guarded(api: &Shared) -> OpenApiRouter<Shared> {
    let small_routes = hosted::routes()
        .merge(collections::routes())
        .merge(api_keys::routes())
        .merge(figures::routes())
        .merge(trajectories::routes())
        .merge(notes::routes())
        .merge(logs::routes())
        .merge(usage::routes())
        .merge(webhooks::routes());
    let quick_routes = tasks::routes().merge(routines::routes());
    let max_upload_bytes = api.runs.settings.max_upload_bytes;
    let slow_routes = submit::routes(max_upload_bytes)
        .merge(uploads::routes(max_upload_bytes))
        .merge(stored::routes())
        .merge(download::routes())
        .merge(follow::routes())
        .merge(chat::routes());
    let max_json_bytes = api.settings.max_json_bytes;
    quick(api, max_json_bytes, quick_routes)
        .merge(quick(api, SMALL_JSON_BYTES, small_routes))
        .merge(quick(api, ingest::MAX_BODY_BYTES, ingest::routes()))
        .merge(slow_routes)
        .route_layer(from_fn_with_state(Arc::clone(api), auth::guard))
}

/// Paths that are answered soon, with bodies of JSON of at most so many bytes.
fn quick(
    api: &Shared,
    max_body_bytes: usize,
    routes: OpenApiRouter<Shared>,
) -> OpenApiRouter<Shared> {
    let max_body_bytes = max_body_bytes.min(api.settings.max_json_bytes);
    routes
        .layer(from_fn_with_state(Arc::clone(api), deadline::enforce))
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .layer(Extension(MaxBody(max_body_bytes)))
}

#[cfg(test)]
mod tests;
