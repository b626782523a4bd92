//! How a run stands or ended, as a chat tells it: from its record, or from its last event.

use serde_json::{Map, Value, json};

use super::error::FailedRun;
use crate::queue::{Job, Status};
use crate::records::{Seen, wire_status};
use crate::run::RunName;
use crate::trajectory::Usage;

/// What a run said that said nothing: an empty success would look like a lost answer.
pub(super) const NO_TEXT: &str = "Runbook completed (no text output)";

/// How a run stands or ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ending {
    /// `pending`, `running`, `completed`, `failed` or `cancelled`.
    pub(super) status: String,
    /// The failure's word and sentences.
    failure: Option<(String, String)>,
    verdict: Value,
    usage: Usage,
    /// The agent's last words.
    pub(super) answer: Option<String>,
}

impl Ending {
    /// As the record has it.
    pub(super) fn of_record(seen: &Seen) -> Self {
        let record = &seen.trajectory;
        let last = record.get("steps").and_then(Value::as_object);
        let last = last.and_then(|steps| steps.values().next_back());
        let failure = failure(record.get("failure"));
        let status = match seen.job.status {
            // How it had ended before it was put away stands in its record alone.
            Status::Archived if failure.is_some() => "failed",
            Status::Archived => last
                .and_then(|step| step.get("status"))
                .and_then(Value::as_str)
                .filter(|status| *status != "archived")
                .unwrap_or("completed"),
            other @ (Status::Queued
            | Status::Leased
            | Status::Running
            | Status::Finishing
            | Status::Completed
            | Status::Failed
            | Status::Cancelled) => wire_status(other),
        };
        let total = record.get("usage").and_then(|usage| usage.get("total"));
        let counts = last.and_then(|step| step.pointer("/outputs/usage"));
        Self {
            status: status.to_owned(),
            failure: failure.or_else(|| reason(&seen.job)),
            verdict: record.get("verdict").cloned().unwrap_or_default(),
            usage: if total.is_some() { usage(total) } else { counted(counts) },
            answer: text(last.and_then(|step| step.pointer("/outputs/text"))),
        }
    }

    /// As the last event tells it.
    pub(super) fn of_event(event: &Value) -> Self {
        let mut verdict = event.get("verdict").cloned().unwrap_or_default();
        if let (Some(verdict), Some(passed)) = (verdict.as_object_mut(), event.get("passed")) {
            verdict.insert("passed".to_owned(), passed.clone());
        }
        Self {
            status: text(event.get("status")).unwrap_or_default(),
            failure: failure(event.get("failure")),
            verdict,
            usage: usage(event.pointer("/usage/total")),
            answer: text(event.get("answer")),
        }
    }

    /// As the queue knows it, where nothing else tells it.
    pub(super) fn of_job(job: &Job) -> Self {
        Self {
            status: wire_status(job.status).to_owned(),
            failure: reason(job),
            verdict: Value::Null,
            usage: Usage::default(),
            answer: None,
        }
    }

    /// Whether the run is still to end.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.status.as_str(), "pending" | "running")
    }

    /// The run's failure; nothing where it completed.
    pub(super) fn failed(&self, name: &RunName, notes: &[String]) -> Option<FailedRun> {
        if self.status == "completed" {
            return None;
        }
        let (code, message) = match (&self.failure, self.status.as_str()) {
            (_, "cancelled") => ("cancelled".to_owned(), "The run was cancelled".to_owned()),
            (Some((code, message)), _) => (code.clone(), message.clone()),
            (None, status) => (status.to_owned(), format!("The run is {status}")),
        };
        Some(FailedRun { code, message, metadata: self.metadata(name, notes) })
    }

    /// Which run this is and how it stands, for clients that know us.
    pub(super) fn metadata(&self, name: &RunName, notes: &[String]) -> Value {
        let mut metadata = identity(name);
        metadata.insert("status".to_owned(), self.status.clone().into());
        metadata.insert("verdict".to_owned(), self.verdict.clone());
        if !notes.is_empty() {
            metadata.insert("notes".to_owned(), notes.into());
        }
        Value::Object(metadata)
    }

    /// The tokens in OpenAI's words: everything that went in is a prompt.
    pub(super) fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.usage.total_input(),
            "completion_tokens": self.usage.output,
            "total_tokens": self.usage.total(),
            "prompt_tokens_details": { "cached_tokens": self.usage.cache_read },
        })
    }
}

/// The names of a run in all the forms that clients look for.
pub(super) fn identity(name: &RunName) -> Map<String, Value> {
    [
        ("trajectory_id", name.id.to_string()),
        ("workflow_id", name.workflow_id()),
        ("collection", name.collection.to_string()),
        ("task", name.task.to_string()),
        ("storage_path", name.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.into()))
    .collect()
}

fn text(value: Option<&Value>) -> Option<String> {
    value.and_then(Value::as_str).filter(|text| !text.trim().is_empty()).map(str::to_owned)
}

fn usage(total: Option<&Value>) -> Usage {
    total.and_then(|total| serde_json::from_value(total.clone()).ok()).unwrap_or_default()
}

/// The usage of a completion that was passed on to a model.
fn counted(counts: Option<&Value>) -> Usage {
    let count = |key: &str| {
        counts.and_then(|counts| counts.get(key)).and_then(Value::as_u64).unwrap_or_default()
    };
    let cache_read = count("cached_input_tokens");
    let input = count("prompt_tokens").saturating_sub(cache_read);
    Usage { input, cache_read, output: count("completion_tokens"), ..Usage::default() }
}

/// A failure's word, and what happened with what to do as sentences.
fn failure(failure: Option<&Value>) -> Option<(String, String)> {
    let failure = failure?.as_object()?;
    let part = |key: &str| failure.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut message = part("message").trim_end_matches('.').to_owned();
    if let Some(first) = message.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    Some((part("code").to_owned(), format!("{message}. {}", part("mend")).trim_end().to_owned()))
}

/// Why the queue says that a run failed.
fn reason(job: &Job) -> Option<(String, String)> {
    let reason = job.reason.as_deref().filter(|_| job.status == Status::Failed)?;
    Some((reason.to_owned(), format!("The run failed: {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{RunId, Slug};

    fn name() -> RunName {
        let slug = |name| Slug::new(name).unwrap();
        RunName { collection: slug("c"), task: slug("t"), id: RunId::new("1a2b3c4d").unwrap() }
    }

    #[test]
    fn an_event_tells_the_whole_end() {
        let event = json!({
            "kind": "finished", "status": "failed", "passed": false,
            "failure": {"code": "timeout", "message": "timeout after 5 s", "mend": "Raise it."},
            "verdict": {"primary_outputs": []},
            "usage": {"total": {"input": 10, "output": 5, "cache_read": 20, "cache_write_5m": 3,
                "cache_write_1h": 0, "cache_write_unsplit": 0, "requests_seen": 1,
                "web_searches": 0, "cost_usd": null}},
            "answer": null,
        });
        let ending = Ending::of_event(&event);
        assert_eq!(
            ending.usage(),
            json!({"prompt_tokens": 33, "completion_tokens": 5, "total_tokens": 38,
                "prompt_tokens_details": {"cached_tokens": 20}})
        );
        let failed = ending.failed(&name(), &["Note.".to_owned()]).unwrap();
        assert_eq!(
            (failed.code.as_str(), failed.message.as_str()),
            ("timeout", "Timeout after 5 s. Raise it.")
        );
        assert_eq!(
            failed.metadata,
            json!({"trajectory_id": "1a2b3c4d", "workflow_id": "c-t--1a2b3c4d", "collection": "c",
                "task": "t", "storage_path": "c/t/1a2b3c4d", "status": "failed",
                "verdict": {"primary_outputs": [], "passed": false}, "notes": ["Note."]})
        );
    }

    #[test]
    fn only_a_completed_run_has_no_failure() {
        for (status, code) in
            [("completed", None), ("cancelled", Some("cancelled")), ("failed", Some("failed"))]
        {
            let ending = Ending::of_event(&json!({"status": status, "failure": null}));
            assert_eq!(ending.failed(&name(), &[]).map(|run| run.code).as_deref(), code);
        }
    }
}
