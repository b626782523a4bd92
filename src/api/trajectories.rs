//! Trajectories: one, a list of them, and sums over them.

use axum::Json;
use axum::extract::State;
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::error::{ApiError, Problem};
use super::extract::{Query, Segments};
use super::memory::Held;
use super::runs::{blocking, find, names, unseen};
use crate::queue::{ListFilter, Page, Status};
use crate::records::{Records, status_from_word, wire_status, written_bytes};
use crate::store::Document;

/// Items on a page when the client does not say.
const DEFAULT_LIMIT: u64 = 20;

/// Most items on a page. Items are whole trajectories, and the public clients ask for no more.
const MAX_LIMIT: u64 = 200;

/// Largest page, in bytes of JSON. What does not fit is told in short, with `is_shortened`. A runbook
/// stands in its runs' records several times, so a long page of ordinary runs has 20 MiB.
const MAX_PAGE_BYTES: usize = 32 << 20;

/// A page is in memory as values and as text.
const PAGE_COPIES: usize = 2;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(one))
        .routes(routes!(stats))
        // The same under the names that clients have used.
        .route("/api/v1/trajectories/{collection}/{task}", get(list))
        .route("/api/v1/trajectory/{collection}/{task}/{id}", get(one))
        .route("/api/v1/trajectories/{collection}/{task}/{id}", get(one))
}

/// Which part of the list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wish {
    /// Items on a page: 20, and at most 200.
    pub(super) limit: Option<u64>,
    /// Counted from 1.
    pub(super) page: Option<u64>,
    /// Only those that are `pending`, `running`, `completed`, `failed`, `cancelled` or `archived`.
    pub(super) status: Option<String>,
}

impl Wish {
    pub(super) fn page(&self) -> Page {
        Page {
            number: self.page.unwrap_or(1).max(1),
            limit: self.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT),
        }
    }

    pub(super) fn statuses(&self) -> Result<Vec<Status>, ApiError> {
        match self.status.as_deref() {
            None | Some("") => Ok(Vec::new()),
            Some(word) => status_from_word(word).map(<[Status]>::to_vec).ok_or_else(|| {
                let msg = format!(
                    "`{word}` is not a status: write pending, running, completed, failed, \
                     cancelled or archived"
                );
                let loc = vec![json!("query"), json!("status")];
                ApiError::Invalid(vec![Problem { loc, msg, kind: "enum" }])
            }),
        }
    }
}

/// Lists the trajectories of a task, newest first. Each item is whole but for `agent_steps`; where a
/// page would be too large, the last ones are told in short, with `is_shortened`.
#[utoipa::path(get, path = "/api/v1/db/trajectories/{collection}/{task}", tag = "trajectories",
    params(Wish),
    responses((status = 200, description = "A page of trajectories.")))]
async fn list(
    State(api): State<Shared>,
    Segments((collection, task)): Segments<(String, String)>,
    Query(wish): Query<Wish>,
    held: Held,
) -> Result<Json<Value>, ApiError> {
    let (collection, task) = names(&api, &collection, &task).await?;
    let statuses = wish.statuses()?;
    let filter = ListFilter { collection, task: Some(task), statuses, routine: None };
    answer(&api, &held, &filter, wish.page()).await
}

/// A page of trajectories in the envelope that clients read.
pub(super) async fn answer(
    api: &Shared,
    held: &Held,
    filter: &ListFilter,
    page: Page,
) -> Result<Json<Value>, ApiError> {
    let (jobs, total) = api.runs.records.list(filter, page).await.map_err(unseen)?;
    let has_more = page.number.saturating_mul(page.limit) < total;
    let mut items = Vec::with_capacity(jobs.len());
    let mut left = MAX_PAGE_BYTES;
    for job in jobs {
        if left == 0 {
            items.push(Records::in_short(job).trajectory);
            continue;
        }
        let in_short = job.clone();
        let mut seen = api.runs.records.listed(job).await.map_err(unseen)?;
        let n_bytes = written_bytes(&seen.trajectory);
        match usize::try_from(n_bytes).ok().and_then(|n_bytes| left.checked_sub(n_bytes)) {
            Some(still) => {
                held.grow((left - still) * PAGE_COPIES).await?;
                left = still;
            }
            None => {
                // The page is full: what follows is not even read.
                (seen, left) = (Records::in_short(in_short), 0);
            }
        }
        items.push(seen.trajectory);
    }
    Ok(Json(json!({
        "trajectories": items,
        "total": total,
        "page": page.number,
        "limit": page.limit,
        "has_more": has_more,
    })))
}

/// Tells everything about one run. `id` may also be the workflow id.
#[utoipa::path(get, path = "/api/v1/db/trajectory/{collection}/{task}/{id}", tag = "trajectories",
    responses((status = 200, description = "The trajectory."),
        (status = 404, description = "There is no such run.")))]
async fn one(
    State(api): State<Shared>,
    Segments(path): Segments<(String, String, String)>,
    held: Held,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let job = find(&api, &path).await?;
    let (store, name) = (api.store.clone(), job.name.clone());
    let n_bytes = blocking("could not look at a record", move || {
        store.begun(&name).map_or(Ok(0), |folder| folder.document_bytes(Document::Trajectory))
    });
    let n_bytes = usize::try_from(n_bytes.await?).unwrap_or(usize::MAX);
    held.grow(n_bytes.saturating_mul(PAGE_COPIES)).await?;
    let seen = api.runs.records.see(job).await.map_err(unseen)?;
    Ok(Json(seen.trajectory))
}

/// Sums over the runs of a task: how they ended, how long they took, what they used.
#[utoipa::path(get, path = "/api/v1/db/stats/{collection}/{task}", tag = "trajectories",
    responses((status = 200, description = "The sums.")))]
async fn stats(
    State(api): State<Shared>,
    Segments((collection, task)): Segments<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let (collection, task) = names(&api, &collection, &task).await?;
    let stats = api.queue.stats(&collection, Some(&task)).await;
    let stats = stats.map_err(|e| ApiError::internal("could not sum the runs up", e))?;
    let mut by_status = Map::new();
    for word in ["pending", "running", "completed", "failed", "cancelled", "archived"] {
        by_status.insert(word.to_owned(), 0.into());
    }
    for (status, n) in &stats.by_status {
        let known = by_status.get(wire_status(*status)).and_then(Value::as_u64).unwrap_or(0);
        by_status.insert(wire_status(*status).to_owned(), (known + n).into());
    }
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let durations = stats.durations;
    let input = stats.input_tokens + stats.cache_read_tokens + stats.cache_write_tokens;
    Ok(Json(json!({
        "collection": collection.as_str(),
        "task": task.as_str(),
        "total": stats.by_status.values().sum::<u64>(),
        "by_status": by_status,
        "duration_seconds": {
            "count": durations.map_or(0, |d| d.n),
            "p50": durations.map(|d| seconds(d.p50_ms)),
            "p95": durations.map(|d| seconds(d.p95_ms)),
        },
        "usage": {
            "prompt_tokens": input,
            "completion_tokens": stats.output_tokens,
            "total_tokens": input + stats.output_tokens,
            "input_tokens": stats.input_tokens,
            "output_tokens": stats.output_tokens,
            "cache_read_input_tokens": stats.cache_read_tokens,
            "cache_creation_input_tokens": stats.cache_write_tokens,
            "cost_usd": stats.cost_micros as f64 / 1e6,
            "runs_of_unknown_cost": stats.n_unknown_costs,
        },
    })))
}
