//! The record of a chat: a trajectory with one step, and its row in the index.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::passthrough::Chat;
use crate::api::Shared;
use crate::queue::{Cost, Ended, JobUsage, RecordKind, RecordedRun};
use crate::run::error_chain;
use crate::store::{Document, StoreError};
use crate::telemetry::meters;
use crate::trajectory::SCHEMA_VERSION;
use crate::upstream::{Charge, Completion, RawBody, TokenCounts, shorten};

/// The one step of such a record.
const STEP: &str = "completion";

/// What stands where others name a person or program as the author.
const AUTHOR: &str = "runbookd";

/// Largest cost of one chat that is counted, in dollars. Sums of it stay far from their end.
const MAX_COST_USD: f64 = 1e6;

/// Parts of a request that are recorded on their own.
const APART: [&str; 2] = ["model", "messages"];

/// Parts that are too long for the list of parameters.
const LONG: [&str; 4] = ["messages", "tools", "functions", "response_format"];

/// What came of a chat.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// How it ended.
    pub(super) ending: Ending,
    /// The status of the service's answer.
    pub(super) status: Option<u16>,
    /// The service's id of the request.
    pub(super) upstream_request_id: Option<String>,
    /// What the model said.
    pub(super) completion: Completion,
    /// How long it took until the answer's first byte.
    pub(super) first_byte: Option<Duration>,
    /// How long it took in all.
    pub(super) latency: Duration,
    /// Whether the service certainly never got it.
    pub(super) is_unsent: bool,
}

/// How a chat ended.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// The answer came whole.
    #[default]
    Completed,
    /// It did not.
    Failed {
        /// A word that does not change.
        code: &'static str,
        /// What happened, as a sentence.
        why: String,
    },
    /// The client went away before it was whole.
    Cancelled,
}

impl Ending {
    fn ended(&self) -> Ended {
        match self {
            Self::Completed => Ended::Completed,
            Self::Failed { .. } => Ended::Failed,
            Self::Cancelled => Ended::Cancelled,
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    fn why(&self) -> Option<&str> {
        match self {
            Self::Failed { why, .. } => Some(why),
            Self::Completed | Self::Cancelled => None,
        }
    }
}

/// Records a chat. Its client has its answer: what fails here is for the log.
pub(super) async fn record(api: &Shared, chat: Chat, told: Told) {
    let now = (api.clock)();
    meters::chat_ended(told.ending.word());
    let name = chat.name.clone();
    let row = row(&chat, &told, now);
    let store = api.store.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let text = document(&chat, &told, now).to_string();
        let text = chat.redactor.redact_json(text.as_bytes());
        store.record(&chat.name)?.write(Document::Trajectory, &text)?;
        Ok::<_, StoreError>(chat.place)
    });
    // Kept until the index has it too.
    let place = match writing.await {
        Ok(Ok(place)) => Some(place),
        Ok(Err(error)) => {
            let error = error_chain(&error);
            tracing::error!(run.id = %name, error, "a chat could not be recorded");
            None
        }
        Err(error) => {
            let error = error_chain(&error);
            tracing::error!(run.id = %name, error, "recording a chat broke off");
            None
        }
    };
    // Now it can be found, and whoever finds it finds all of it.
    if let Err(error) = api.queue.record(row, now).await {
        let error = error_chain(&error);
        tracing::error!(run.id = %name, error, "a chat could not be put into the index");
    }
    drop(place);
}

fn row(chat: &Chat, told: &Told, now: Timestamp) -> RecordedRun {
    RecordedRun {
        name: chat.name.clone(),
        kind: RecordKind::Chat,
        ended: told.ending.ended(),
        reason: told.ending.why().map(|why| chat.redactor.redact_str(why)),
        created: chat.created,
        started: Some(chat.created),
        finished: now,
        usage: usage(chat, told),
        duration_ms: Some(millis(told.latency)),
        spec: String::new(),
    }
}

fn usage(chat: &Chat, told: &Told) -> JobUsage {
    let Some(counts) = told.completion.usage else { return JobUsage::default() };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it has limits")]
    let micros = |cost: f64| (cost.clamp(0.0, MAX_COST_USD) * 1e6).round() as u64;
    let cost = match charge(chat, told, &counts) {
        Charge::Reported(cost) => Cost::Reported(micros(cost)),
        Charge::Estimated(cost) => Cost::Estimated(micros(cost)),
        Charge::Unknown => Cost::Unknown,
    };
    JobUsage {
        input_tokens: counts.prompt - counts.cached,
        output_tokens: counts.completion,
        cache_read_tokens: counts.cached,
        cache_write_tokens: 0,
        cost,
    }
}

fn charge(chat: &Chat, told: &Told, counts: &TokenCounts) -> Charge {
    counts.charge([chat.model.as_str()].into_iter().chain(told.completion.model.as_deref()))
}

/// The record in the form of a trajectory.
fn document(chat: &Chat, told: &Told, now: Timestamp) -> Value {
    let name = &chat.name;
    let request = RawBody::read(&chat.body).map(|body| shorten(body.parts(), &chat.hidden));
    let mut request = request.unwrap_or_default();
    let params: Map<String, Value> = request
        .iter()
        .filter(|(key, _)| !LONG.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let [model, messages] = APART.map(|key| request.shift_remove(key));
    let status = told.ending.word();
    let error = told.ending.why();
    let done: &[&str] = if told.ending == Ending::Completed { &[STEP] } else { &[] };
    let config = json!({
        "activity": STEP, "model": chat.model, "model_provider": chat.endpoint.service.word(),
    });
    let mut document = json!({
        "schema_version": SCHEMA_VERSION,
        "name": format!("{}/{}", name.collection, name.task),
        "trajectory_id": name.id.as_str(),
        "storage_path": name.to_string(),
        "status": status,
        "attributes": {
            "asset_type": "trajectory", "asset_filename": "trajectory.json",
            "created": chat.created, "params": params,
        },
        "created": chat.created,
        "updated": now,
        "author": AUTHOR,
        "metadata_uri": format!("{name}/trajectory.json"),
        "steps": { STEP: {
            "inputs": { "model": model, "messages": messages, "parameters": request },
            "outputs": outputs(chat, told), "activity": STEP, "key": STEP, "depends_on": [],
            "created": chat.created, "ended": now,
            "duration_seconds": told.latency.as_secs_f64(), "author": AUTHOR, "origin": {},
            "config": config, "status": status, "error": error,
        } },
        "labels": [],
        "total_steps": [STEP],
        "completed_steps": done,
        "init_params": params,
        "step_configs": { STEP: config },
        "org_id": null,
        "error": error,
        "failure": match &told.ending {
            Ending::Failed { code, why } => json!({ "code": code, "message": why }),
            Ending::Completed | Ending::Cancelled => Value::Null,
        },
    });
    if !chat.guard.is_empty() {
        document["guard"] = json!(chat.guard);
    }
    document
}

fn outputs(chat: &Chat, told: &Told) -> Value {
    let said = &told.completion;
    let first = said.choices.values().next();
    let mut outputs = json!({
        "success": told.ending == Ending::Completed,
        "model": said.model,
        "model_provider": chat.endpoint.service.word(),
        "text": first.map(|choice| choice.text.as_str()),
        "tool_calls": first.map(|choice| choice.tool_calls.values().collect::<Vec<_>>()),
        "finish_reason": first.and_then(|choice| choice.finish_reason.as_deref()),
        "upstream_id": said.id,
        "upstream_request_id": told.upstream_request_id,
        "upstream_status": told.status,
        "is_stream": chat.stream,
        "usage": said.usage.map(|counts| usage_view(chat, told, &counts)),
        "latency_ms": millis(told.latency),
        "first_byte_ms": told.first_byte.map(millis),
    });
    if said.choices.len() > 1 || first.is_some_and(|choice| !choice.refusal.is_empty()) {
        outputs["choices"] = json!(said.choices.values().collect::<Vec<_>>());
    }
    if said.n_truncated_bytes > 0 {
        outputs["n_truncated_bytes"] = said.n_truncated_bytes.into();
    }
    outputs
}

/// The counts under the names that clients of runs read, and under those of OpenAI.
fn usage_view(chat: &Chat, told: &Told, counts: &TokenCounts) -> Value {
    let (cost, basis) = match charge(chat, told, counts) {
        Charge::Reported(cost) => (Some(cost), "reported"),
        Charge::Estimated(cost) => (Some(cost), "estimated"),
        Charge::Unknown => (None, "unknown"),
    };
    json!({
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.completion,
        "total_tokens": counts.total,
        "input_tokens": counts.prompt - counts.cached,
        "output_tokens": counts.completion,
        "cached_input_tokens": counts.cached,
        "cache_read_input_tokens": counts.cached,
        "cost_usd": cost,
        "cost_basis": basis,
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
