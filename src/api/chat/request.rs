//! A chat request as it is read: what every mode needs at once, the messages where they are needed.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::ChatError;
use super::fields::Fields;
use crate::api::extract::from_json;
use crate::secret::Secret;

/// A chat request. Its body is kept as it came: a mode that passes it on passes these bytes.
#[derive(Debug)]
pub(super) struct ChatRequest {
    /// The body.
    pub(super) bytes: Bytes,
    /// The headers.
    pub(super) headers: HeaderMap,
    /// The model that is asked for.
    pub(super) model: Option<String>,
    /// Whether the answer is to come piece by piece.
    pub(super) stream: bool,
    /// Whether a stream is to end with its usage.
    pub(super) include_usage: bool,
    /// Our part of the request, where it has one.
    pub(super) jetty: Option<Jetty>,
}

/// The `jetty` block of a chat request.
#[derive(Debug, Default)]
pub(super) struct Jetty {
    /// Whether a runbook is to be carried out.
    pub(super) runbook: bool,
    /// Where the runbook is.
    pub(super) runbook_url: Option<String>,
    /// The collection; the token's own where it is not named.
    pub(super) collection: Option<String>,
    /// The task under which it is recorded.
    pub(super) task: Option<String>,
    /// The model service.
    pub(super) model_provider: Option<String>,
    /// What the run takes as its parameters, by their names there: `agent`, `snapshot`, `cpus`….
    pub(super) parameters: Map<String, Value>,
    /// Values for the runbook's template variables.
    pub(super) template_variables: Map<String, Value>,
    /// Stored files, by path.
    pub(super) file_paths: Vec<String>,
    /// Stored files, by id.
    pub(super) files: Vec<String>,
    /// Environment variables for the agent.
    pub(super) agent_env: BTreeMap<String, Secret>,
    /// Secrets for this run alone.
    pub(super) secret_params: BTreeMap<String, Secret>,
    /// Who is told of the end.
    pub(super) webhook_url: Option<String>,
    /// What signs that call.
    pub(super) webhook_secret: Option<Secret>,
    /// How long the client waits for the answer.
    pub(super) timeout_hint: Option<Duration>,
    /// Whether the run's events are to come in the stream too.
    pub(super) stream_events: bool,
    /// Whether a client that goes away stops its run.
    pub(super) cancel_on_disconnect: bool,
    /// What a person should know of the block, as sentences.
    pub(super) notes: Vec<String>,
}

/// What every mode needs of the body.
#[derive(Deserialize)]
struct Head {
    model: Option<Value>,
    stream: Option<Value>,
    stream_options: Option<Value>,
    jetty: Option<Value>,
}

impl ChatRequest {
    /// Reads a body. The messages are not looked at.
    pub(super) fn read(bytes: Bytes, headers: HeaderMap) -> Result<Self, ChatError> {
        let head: Head = from_json(&bytes)?;
        let mut fields = Fields::of_body();
        fields.put("model", head.model);
        fields.put("stream", head.stream);
        fields.put("stream_options", head.stream_options);
        let model = fields.text("model")?.filter(|model| !model.trim().is_empty());
        let stream = fields.flag("stream")?.unwrap_or(false);
        let options = fields.object("stream_options")?;
        let mut options = Fields::within("stream_options", options.unwrap_or_default());
        let include_usage = options.flag("include_usage")?.unwrap_or(false);
        let jetty = match head.jetty {
            None | Some(Value::Null) => None,
            Some(Value::Object(block)) => Some(Jetty::read(block)?),
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                let problem =
                    "it must be an object, such as {\"runbook\": true, \"task\": \"hello\"}";
                return Err(ChatError::field("jetty", problem));
            }
        };
        Ok(Self { bytes, headers, model, stream, include_usage, jetty })
    }

    /// Whether a runbook is to be carried out. Everything else is passed on to a model.
    pub(super) fn is_runbook(&self) -> bool {
        self.jetty.as_ref().is_some_and(|jetty| jetty.runbook || jetty.runbook_url.is_some())
    }
}

impl Jetty {
    fn read(block: Map<String, Value>) -> Result<Self, ChatError> {
        let mut fields = Fields::within("jetty", block);
        let mut parameters = Map::new();
        for name in ["agent", "snapshot", "image"] {
            parameters.extend(fields.text(name)?.map(|text| (name.to_owned(), text.into())));
        }
        for (name, value) in [
            ("timeout_sec", fields.count("timeout_sec")?),
            ("max_turns", fields.count("max_turns")?),
            ("max_cost_usd", fields.share("max_cost_usd")?),
            ("max_tokens", fields.count("max_tokens")?),
            ("max_requests", fields.count("max_requests")?),
            ("cpus", fields.share("cpus")?),
            ("memory", fields.size("memory")?),
            ("disk", fields.size("disk")?),
            ("network", fields.take("network")),
            ("network_enabled", fields.flag("network_enabled")?.map(Value::Bool)),
            ("mcp_servers", fields.object("mcp_servers")?.map(Value::Object)),
        ] {
            parameters.extend(value.map(|value| (name.to_owned(), value)));
        }
        // It meant something once, and clients still send it.
        let _ = fields.take("use_trial_keys");
        let mut jetty = Self {
            runbook: fields.flag("runbook")?.unwrap_or(false),
            runbook_url: fields.text("runbook_url")?,
            collection: fields.text("collection")?,
            task: fields.text("task")?,
            model_provider: fields.text("model_provider")?,
            parameters,
            template_variables: fields.object("template_variables")?.unwrap_or_default(),
            file_paths: fields.texts("file_paths")?,
            files: fields.texts("files")?,
            agent_env: fields.secrets("agent_env")?,
            secret_params: fields.secrets("secret_params")?,
            webhook_url: fields.text("webhook_url")?,
            webhook_secret: fields.text("webhook_secret")?.map(Secret::new),
            timeout_hint: fields.duration("timeout_hint")?,
            stream_events: fields.flag("stream_events")?.unwrap_or(false),
            cancel_on_disconnect: fields.flag("cancel_on_disconnect")?.unwrap_or(false),
            notes: Vec::new(),
        };
        let unknown = fields.rest();
        let note =
            |name: String| format!("The field `jetty.{name}` is not known and does nothing.");
        jetty.notes = unknown.into_iter().map(note).collect();
        jetty.check_files()?;
        Ok(jetty)
    }

    /// Each list has its kind of entry. The hosted service drops what is in the wrong one, and the
    /// run goes on without its file.
    fn check_files(&self) -> Result<(), ChatError> {
        let is_id = |entry: &&String| entry.starts_with("file-") && !entry.contains('/');
        if let Some(id) = self.file_paths.iter().find(is_id) {
            let problem = format!("`{id}` is the id of a file: write it into `jetty.files`");
            return Err(ChatError::field("jetty.file_paths", problem));
        }
        if let Some(path) = self.files.iter().find(|entry| !is_id(entry)) {
            let problem = format!(
                "`{path}` is not the id of a file (`file-…`, from POST /v1/files): write storage \
                 paths into `jetty.file_paths`"
            );
            return Err(ChatError::field("jetty.files", problem));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: &Value) -> Result<ChatRequest, ChatError> {
        ChatRequest::read(Bytes::from(body.to_string()), HeaderMap::new())
    }

    #[test]
    fn only_a_runbook_or_its_url_makes_a_run() {
        for (jetty, is_runbook) in [
            (json!(null), false),
            (json!({}), false),
            (json!({"task": "summarizer"}), false),
            (json!({"runbook": false, "agent": "claude-code"}), false),
            (json!({"runbook": null}), false),
            (json!({"runbook": true}), true),
            (json!({"runbook_url": "https://example.org/RUNBOOK.md"}), true),
        ] {
            let request = read(&json!({"model": "m", "messages": [], "jetty": jetty})).unwrap();
            assert_eq!(request.is_runbook(), is_runbook, "{jetty}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused_with_its_field() {
        for (jetty, field) in [
            (json!({"runbook": "true"}), "jetty.runbook"),
            (json!({"runbook_url": 1}), "jetty.runbook_url"),
            (json!({"task": []}), "jetty.task"),
            (json!({"timeout_sec": 0}), "jetty.timeout_sec"),
            (json!({"timeout_sec": "20"}), "jetty.timeout_sec"),
            (json!({"cpus": -1}), "jetty.cpus"),
            (json!({"memory": "much"}), "jetty.memory"),
            (json!({"network_enabled": "yes"}), "jetty.network_enabled"),
            (json!({"template_variables": "a=b"}), "jetty.template_variables"),
            (json!({"file_paths": [1]}), "jetty.file_paths"),
            (json!({"file_paths": ["file-1"]}), "jetty.file_paths"),
            (json!({"files": ["team/_sandbox_uploads/1/a"]}), "jetty.files"),
            (json!({"agent_env": {"A": 1}}), "jetty.agent_env"),
            (json!({"secret_params": {"A": null}}), "jetty.secret_params"),
            (json!({"timeout_hint": "soon"}), "jetty.timeout_hint"),
            (json!("runbook"), "jetty"),
        ] {
            let error = read(&json!({"messages": [], "jetty": jetty})).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{field}: ")), "{jetty}: {error}");
        }
        for (body, field) in [
            (json!({"model": 1}), "model"),
            (json!({"stream": "yes"}), "stream"),
            (json!({"stream_options": {"include_usage": 1}}), "stream_options.include_usage"),
        ] {
            let error = read(&body).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{field}:")), "{error}");
        }
    }

    #[test]
    fn what_is_not_known_is_noted_and_what_once_was_is_not() {
        let jetty = json!({"runbook": true, "use_trial_keys": true, "colour": "red", "x": null});
        let request = read(&json!({"messages": [], "jetty": jetty})).unwrap();
        let notes = request.jetty.unwrap().notes;
        assert_eq!(notes, ["The field `jetty.colour` is not known and does nothing."]);
    }

    #[test]
    fn secrets_of_a_request_are_never_shown() {
        let jetty = json!({"secret_params": {"A": "made-up"}, "webhook_secret": "made-up"});
        let request = read(&json!({"messages": [], "jetty": jetty})).unwrap();
        assert!(!format!("{:?}", request.jetty).contains("made-up"));
    }
}
