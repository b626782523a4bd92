//! What happened in a run, as a list of events with levels.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::auth::Caller;
use super::error::ApiError;
use super::extract::Segments;
use super::runs::blocking;
use crate::queue::Job;
use crate::records::wire_status;
use crate::store::StoreError;

/// Most events in one answer, the last ones. The stream of events has them all.
const MAX_EVENTS: usize = 5000;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(logs))
}

/// Tells what happened in a run: `events[]`, each with `level` and `message`.
#[utoipa::path(get, path = "/api/v1/workflows-logs/{workflow_id}", tag = "runs",
    responses((status = 200, description = "The events."),
        (status = 404, description = "There is no such run.")))]
async fn logs(
    State(api): State<Shared>,
    caller: Caller,
    Segments(workflow_id): Segments<String>,
) -> Result<Json<Value>, ApiError> {
    let job = job_of(&api, &caller, &workflow_id).await?;
    let (mut reader, name) = (api.store.events(&job.name, 0), job.name.clone());
    let events = blocking("could not read the events of a run", move || {
        let mut events = std::collections::VecDeque::new();
        loop {
            let read = reader.read()?;
            if read.is_empty() {
                return Ok::<_, StoreError>(events);
            }
            events.extend(read.iter().filter_map(|event| shown(&event.json)));
            let too_many = events.len().saturating_sub(MAX_EVENTS);
            events.drain(..too_many);
        }
    })
    .await?;
    Ok(Json(json!({
        "workflow_id": name.workflow_id(),
        "trajectory_id": name.id.as_str(),
        "status": wire_status(job.standing()),
        "error": job.reason,
        "events": events,
    })))
}

/// The run of a workflow id, if the caller may see it. Others' runs are not told from none.
async fn job_of(api: &Shared, caller: &Caller, workflow_id: &str) -> Result<Job, ApiError> {
    let failed = |e| ApiError::internal("could not look a workflow up", e);
    for name in api.queue.find_by_workflow_id(workflow_id).await.map_err(failed)? {
        if caller.may(name.collection.as_str()).is_ok()
            && let Some(job) = api.queue.get(&name).await.map_err(failed)?
        {
            return Ok(job);
        }
    }
    Err(ApiError::NotFound(format!(
        "There is no workflow '{workflow_id}': give the workflow_id that the run's answer had, \
         such as collection-task--1a2b3c4d"
    )))
}

/// An event with a level and a message before what it has itself.
fn shown(json: &str) -> Option<Value> {
    let event: Map<String, Value> = serde_json::from_str(json).ok()?;
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
    let kind = text("kind");
    let failure = event.get("failure").and_then(|failure| failure.get("message"));
    let failed = event.get("is_error") == Some(&Value::Bool(true)) || text("status") == "failed";
    let level = match (failed, kind) {
        (true, _) => "error",
        (false, "note" | "waiting") => "warning",
        (false, _) => "info",
    };
    let message = failure.and_then(Value::as_str).map_or_else(
        || {
            let words = ["text", "title", "reason", "phase", "status", "activity", "name"];
            let said = words.into_iter().map(text).find(|said| !said.is_empty());
            said.map_or_else(|| kind.to_owned(), |said| format!("{kind}: {said}"))
        },
        str::to_owned,
    );
    let mut shown = Map::new();
    shown.insert("level".to_owned(), level.into());
    shown.insert("message".to_owned(), message.into());
    shown.insert("timestamp".to_owned(), event.get("at").cloned().unwrap_or_default());
    shown.extend(event);
    Some(Value::Object(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_a_level_and_a_message() {
        for (event, expected) in [
            (json!({"kind": "phase", "phase": "provision"}), json!(["info", "phase: provision"])),
            (json!({"kind": "note", "text": "Odd."}), json!(["warning", "note: Odd."])),
            (
                json!({"kind": "tool_finished", "title": "Bash ls", "is_error": true}),
                json!(["error", "tool_finished: Bash ls"]),
            ),
            (
                json!({"kind": "finished", "status": "failed", "failure": {"message": "No key."}}),
                json!(["error", "No key."]),
            ),
            (
                json!({"kind": "finished", "status": "completed"}),
                json!(["info", "finished: completed"]),
            ),
        ] {
            let shown = shown(&event.to_string()).unwrap();
            assert_eq!(json!([shown["level"], shown["message"]]), expected);
        }
        assert_eq!(shown("torn"), None);
    }
}
