//! A chat completion in one piece.

use axum::Json;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};

use super::ending::{Ending, NO_TEXT};
use super::error::{ChatError, FailedRun, accepted};
use crate::records::Seen;
use crate::run::RunName;

/// Which run an answer is about, for clients that look at the head alone.
const TRAJECTORY_ID: HeaderName = HeaderName::from_static("x-jetty-trajectory-id");

/// How a run is told as a completion.
#[derive(Debug, PartialEq)]
pub(super) enum Completion {
    /// It has completed: what its client reads.
    Done(Value),
    /// It goes on: what its client reads meanwhile.
    Open(Value),
    /// It did not end well.
    Failed(Box<FailedRun>),
}

impl Completion {
    /// Tells a run. `model` is what the client asked for.
    pub(super) fn of(seen: &Seen, model: Option<String>, notes: Vec<String>) -> Self {
        let mut ending = Ending::of_record(seen);
        if ending.is_open() {
            // Clients of chats know one word for a run that goes on.
            "running".clone_into(&mut ending.status);
        }
        let name = &seen.job.name;
        let told = |id: &str, content: &str, finish_reason: Option<&str>| {
            let message = json!({ "role": "assistant", "content": content, "refusal": null });
            json!({
                "id": format!("chatcmpl-{id}"),
                "object": "chat.completion",
                "created": seen.job.created.as_second(),
                "model": model.clone().unwrap_or_else(|| model_of(&seen.trajectory)),
                "choices": [{
                    "index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason,
                }],
                "usage": ending.usage(),
                "jetty_metadata": ending.metadata(name, &notes),
            })
        };
        if ending.is_open() {
            return Self::Open(told(&name.workflow_id(), "", None));
        }
        match ending.failed(name, &notes) {
            Some(failed) => Self::Failed(Box::new(failed)),
            None => {
                let text = ending.answer.as_deref().unwrap_or(NO_TEXT);
                Self::Done(told(name.id.as_str(), text, Some("stop")))
            }
        }
    }

    /// The answer to the client.
    pub(super) fn into_response(self) -> Result<Response, ChatError> {
        match self {
            Self::Done(body) => Ok(Json(body).into_response()),
            Self::Open(body) => Ok(accepted(&body)),
            Self::Failed(run) => Err(ChatError::Run(run)),
        }
    }
}

/// The model of a run as its record has it.
pub(super) fn model_of(trajectory: &Map<String, Value>) -> String {
    let asked = trajectory.get("init_params").and_then(|params| params.get("model"));
    let steps = trajectory.get("steps").and_then(Value::as_object);
    let last = steps.and_then(|steps| steps.values().next_back());
    let used = last.and_then(|step| step.pointer("/outputs/model"));
    let model = asked.or(used).and_then(Value::as_str);
    model.unwrap_or_default().to_owned()
}

/// Names the run in the answer's head.
pub(super) fn tell(mut response: Response, name: &RunName) -> Response {
    if let Ok(id) = HeaderValue::from_str(name.id.as_str()) {
        response.headers_mut().insert(TRAJECTORY_ID, id);
    }
    response
}
