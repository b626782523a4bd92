//! One run in the words of Jetty's clients.

use serde_json::{Map, Value, json};

use crate::job::JobSpec;
use crate::queue::{Job, Kind, Status};
use crate::run::RunName;
use crate::store::Label;

/// What stands where Jetty names a person or program as the author.
const AUTHOR: &str = "runbookd";

/// The status that clients know: they need not know how a run waits.
#[must_use]
pub fn wire_status(status: Status) -> &'static str {
    match status {
        Status::Queued | Status::Leased => "pending",
        Status::Running | Status::Finishing => "running",
        Status::Completed | Status::Failed | Status::Cancelled | Status::Archived => {
            status.as_str()
        }
    }
}

/// The states that a client's word stands for; `None` when it is not one.
#[must_use]
pub fn status_from_word(word: &str) -> Option<&'static [Status]> {
    match word {
        "pending" => Some(&[Status::Queued, Status::Leased]),
        "running" => Some(&[Status::Running, Status::Finishing]),
        "completed" => Some(&[Status::Completed]),
        "failed" => Some(&[Status::Failed]),
        "cancelled" => Some(&[Status::Cancelled]),
        "archived" => Some(&[Status::Archived]),
        _ => None,
    }
}

/// Lays what the queue and the labels say over the document. Without one, says what is known.
pub(super) fn compose(
    document: Option<Map<String, Value>>,
    job: &Job,
    spec: Option<&JobSpec>,
    labels: &[Label],
) -> Map<String, Value> {
    let mut seen = document.unwrap_or_else(|| skeleton(job, spec));
    stand(&mut seen, job);
    let own = seen.get("labels").and_then(Value::as_array).cloned().unwrap_or_default();
    let added = labels.iter().map(|label| json!(label));
    let labels = own.into_iter().chain(added).collect();
    seen.insert("labels".to_owned(), Value::Array(labels));
    seen.insert("workflow_id".to_owned(), job.name.workflow_id().into());
    seen.insert("triggered_by_routine_id".to_owned(), job.triggered_by_routine.clone().into());
    if job.cancel_requested && !job.status.is_terminal() {
        seen.insert("cancel_requested".to_owned(), true.into());
    }
    seen
}

/// The document with what the queue says of the run's stand, to be kept.
pub(super) fn settled(
    document: Option<Map<String, Value>>,
    job: &Job,
    spec: Option<&JobSpec>,
) -> Map<String, Value> {
    let mut document = document.unwrap_or_else(|| skeleton(job, spec));
    stand(&mut document, job);
    document
}

/// Sets where the run stands. A document that was left behind, because its worker was lost or the
/// run never began, is brought up to the queue's word.
fn stand(seen: &mut Map<String, Value>, job: &Job) {
    let status = wire_status(job.standing());
    let left_behind = matches!(text(seen, "status"), Some("pending" | "running"));
    seen.insert("status".to_owned(), status.into());
    if !(left_behind && job.status.is_terminal()) {
        return;
    }
    if matches!(seen.get("error"), None | Some(Value::Null)) {
        seen.insert("error".to_owned(), error(job));
    }
    let steps = seen.get_mut("steps").and_then(Value::as_object_mut);
    for step in steps.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
        if matches!(text(step, "status"), Some("pending" | "running")) {
            step.insert("status".to_owned(), status.into());
            step.insert("error".to_owned(), error(job));
        }
    }
}

fn error(job: &Job) -> Value {
    match (job.status, job.reason.as_deref()) {
        (Status::Failed, Some(reason)) => reason.into(),
        (Status::Failed, None) => "the run failed before it was recorded".into(),
        (
            Status::Queued
            | Status::Leased
            | Status::Running
            | Status::Finishing
            | Status::Completed
            | Status::Cancelled
            | Status::Archived,
            _,
        ) => Value::Null,
    }
}

fn text<'v>(object: &'v Map<String, Value>, key: &str) -> Option<&'v str> {
    object.get(key).and_then(Value::as_str)
}

/// A run that has no document.
fn skeleton(job: &Job, spec: Option<&JobSpec>) -> Map<String, Value> {
    let RunName { collection, task, id } = &job.name;
    let path = format!("{collection}/{task}/{id}");
    let init_params = spec.map(|spec| spec.init_params.clone()).unwrap_or_default();
    let all = spec.map_or_else(|| vec!["run"], JobSpec::step_names);
    let step = all.first().copied().unwrap_or("run");
    let status = wire_status(job.standing());
    let asset_type = match job.kind {
        Kind::Run | Kind::Ingested | Kind::Chat => "trajectory",
    };
    let value = json!({
        "name": format!("{collection}/{task}"),
        "trajectory_id": id.as_str(),
        "storage_path": path,
        "status": status,
        "attributes": {
            "asset_type": asset_type, "asset_filename": "trajectory.json",
            "created": job.created, "params": init_params,
        },
        "created": job.created,
        "updated": job.updated,
        "author": AUTHOR,
        "metadata_uri": format!("{path}/trajectory.json"),
        "steps": { step: {
            "inputs": {}, "outputs": {}, "activity": "runbook", "key": step, "depends_on": [],
            "created": job.started, "ended": job.finished, "duration_seconds": null,
            "author": AUTHOR, "origin": {}, "config": {}, "status": status, "error": error(job),
        } },
        "labels": [],
        "total_steps": all,
        "completed_steps": [],
        "init_params": init_params,
        "step_configs": {},
        "org_id": null,
        "error": error(job),
    });
    match value {
        Value::Object(object) => object,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::queue::JobUsage;
    use crate::run::{RunId, Slug};

    fn job(status: Status, reason: Option<&str>) -> Job {
        let at = Timestamp::UNIX_EPOCH;
        let slug = |name| Slug::new(name).unwrap();
        Job {
            name: RunName { collection: slug("c"), task: slug("t"), id: RunId::new("x").unwrap() },
            kind: Kind::Run,
            status,
            reason: reason.map(str::to_owned),
            step: 0,
            attempt: 1,
            retries: 0,
            priority: 0,
            run_at: at,
            worker: None,
            lease_expires: None,
            cancel_requested: false,
            session_id: None,
            exit_code: None,
            triggered_by_routine: None,
            usage: JobUsage::default(),
            duration_ms: None,
            created: at,
            started: None,
            finished: None,
            updated: at,
        }
    }

    fn document(status: &str) -> Map<String, Value> {
        let value = json!({
            "status": status, "error": null, "labels": [{"key": "a"}],
            "steps": {"b": {"status": status, "error": null}, "a": {"status": "completed"}},
        });
        value.as_object().unwrap().clone()
    }

    #[test]
    fn the_queue_has_the_last_word_on_where_a_run_stands() {
        for (document_says, queue_says, reason, expected) in [
            (
                "running",
                Status::Failed,
                Some("worker_lost"),
                json!(["failed", "worker_lost", "failed"]),
            ),
            ("pending", Status::Cancelled, None, json!(["cancelled", null, "cancelled"])),
            ("running", Status::Running, None, json!(["running", null, "running"])),
            ("completed", Status::Completed, None, json!(["completed", null, "completed"])),
            ("completed", Status::Archived, None, json!(["archived", null, "completed"])),
            ("completed", Status::Finishing, None, json!(["running", null, "completed"])),
        ] {
            let seen = compose(Some(document(document_says)), &job(queue_says, reason), None, &[]);
            let found = json!([seen["status"], seen["error"], seen["steps"]["b"]["status"]]);
            assert_eq!(found, expected, "{document_says} and {queue_says}");
            let steps: Vec<&String> = seen["steps"].as_object().unwrap().keys().collect();
            assert_eq!(steps, ["b", "a"], "the order of the steps is that of their execution");
        }
    }

    #[test]
    fn a_run_without_a_folder_is_told_with_its_parameters_and_labels() {
        let init_params = json!({"vars": {"a": 1}}).as_object().unwrap().clone();
        let spec = JobSpec { step: "review".to_owned(), init_params, ..JobSpec::default() };
        let (key, value, author) = ("k".to_owned(), "v".to_owned(), "me".to_owned());
        let label = Label { key, value, author, created: Timestamp::UNIX_EPOCH };
        let seen = compose(None, &job(Status::Queued, None), Some(&spec), &[label]);
        assert_eq!(seen["status"], "pending");
        assert_eq!(seen["workflow_id"], "c-t--x");
        assert_eq!(seen["init_params"], json!({"vars": {"a": 1}}));
        assert_eq!(seen["total_steps"], json!(["review"]));
        assert_eq!(
            seen["labels"],
            json!([{"key": "k", "value": "v", "created": "1970-01-01T00:00:00Z", "author": "me"}])
        );
    }
}
