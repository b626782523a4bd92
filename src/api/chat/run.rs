//! A runbook by chat: from the request to a run that was taken in, and from there to the answer.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::completion::{Completion, tell};
use super::ending::identity;
use super::error::ChatError;
use super::frames::{Frames, StreamWish};
use super::messages::Conversation;
use super::request::{ChatRequest, Jetty};
use crate::api::Shared;
use crate::api::auth::Caller;
use crate::api::error::ApiError;
use crate::api::follow::{cancel, follow};
use crate::api::submit::{idempotency_key, refusal, wait};
use crate::api::tasks::SEARCH;
use crate::catalog::Collection;
use crate::intake::{Accepted, Lead, Submission};
use crate::reach::DocumentError;
use crate::run::{RunName, RuntimeName};

/// What stands in the record for a value that nobody is shown.
const HIDDEN: &str = "[redacted]";

/// Carries a runbook out.
pub(super) async fn carry_out(
    api: Shared,
    caller: Caller,
    collection: Collection,
    request: ChatRequest,
) -> Result<Response, ChatError> {
    if api.readiness.is_draining() {
        let detail = "The server is stopping: send the request again in a minute".to_owned();
        return Err(ApiError::Unavailable { detail, source: None }.into());
    }
    let limit = api.settings.max_json_bytes;
    if request.bytes.len() > limit {
        let detail = format!(
            "A request with a runbook may have {limit} bytes: send what is larger as files (POST \
             /v1/files)"
        );
        return Err(ApiError::TooLarge(detail).into());
    }
    // A place first: a run that nobody follows must not begin because there was none.
    let place = request.stream.then(|| api.runs.followers.place(&caller)).transpose()?;
    let ChatRequest { bytes, headers, model, stream: _, include_usage, jetty } = request;
    let jetty = jetty.unwrap_or_default();
    let wish = StreamWish {
        after: 0,
        include_usage,
        stream_events: jetty.stream_events,
        cancel_on_disconnect: jetty.cancel_on_disconnect,
    };
    let (limit, notes) = (jetty.timeout_hint, jetty.notes.clone());
    let conversation = Conversation::read(&bytes)?;
    let key = match idempotency_key(&headers)? {
        Some(key) => key,
        None => api.runs.retries.key((&caller, &headers), &bytes, (api.clock)()),
    };
    drop(bytes);
    let told_model = model.clone();
    let runbook = runbook(&api, &jetty, conversation.runbook).await?;
    let mut submission = submission(&collection, jetty, (model, runbook, conversation.prompt))?;
    submission.idempotency_key = Some(key);
    let mut accepted = submit(&api, submission, wish.cancel_on_disconnect).await?;
    accepted.notes.extend(notes);
    let response = match place {
        Some(place) => {
            let told = (told_model.unwrap_or_default(), (api.clock)().as_second());
            let frames = Frames::new(accepted.name.clone(), told, accepted.notes, wish);
            follow(&api, place, accepted.name.clone(), frames)
        }
        None => answer(&api, &accepted, (told_model, limit), wish).await?,
    };
    Ok(tell(response, &accepted.name))
}

/// The runbook that came with a request: in its messages, or at its URL.
async fn runbook(
    api: &Shared,
    jetty: &Jetty,
    said: Option<String>,
) -> Result<Option<String>, ChatError> {
    let Some(url) = &jetty.runbook_url else { return Ok(said) };
    if said.is_some() {
        return Err(ChatError::field(
            "jetty.runbook_url",
            "the system message is a runbook too: send one of the two",
        ));
    }
    match api.runs.documents.read(url).await {
        Ok(text) => Ok(Some(text)),
        Err(DocumentError::Refused(why)) => {
            Err(ChatError::field("jetty.runbook_url", format!("the URL {why}")))
        }
        Err(
            error @ (DocumentError::Tls(_) | DocumentError::Client(_) | DocumentError::Gone(_)),
        ) => Err(ApiError::internal("could not read a runbook's URL", error).into()),
    }
}

/// What the intake is asked for. Everything that the request decides goes over the task's settings.
fn submission(
    collection: &Collection,
    jetty: Jetty,
    (model, runbook, prompt): (Option<String>, Option<String>, Option<String>),
) -> Result<Submission, ChatError> {
    let task = jetty.task.filter(|task| !task.trim().is_empty()).ok_or_else(|| {
        ChatError::field("jetty.task", "name the task under which the run is kept")
    })?;
    if task == SEARCH {
        let problem = format!("a task cannot be called `{SEARCH}`: choose another name");
        return Err(ChatError::field("jetty.task", problem));
    }
    let lead = if runbook.is_some() { Lead::OwnRunbook } else { Lead::Request };
    let mut params = jetty.parameters;
    // A list of models names the agents too; whoever chooses one leaves the model to it.
    let agent = model.as_deref().and_then(RuntimeName::from_word).map(RuntimeName::as_str);
    match agent {
        Some(agent) => {
            params.entry("agent").or_insert(agent.into());
        }
        None => params.extend(model.map(|model| ("model".to_owned(), model.into()))),
    }
    let mut put = |key: &str, value: Option<Value>| {
        params.extend(value.map(|value| (key.to_owned(), value)));
    };
    put("model_provider", jetty.model_provider.map(Value::from));
    put("runbook_url", jetty.runbook_url.map(Value::from));
    put("instruction", runbook.map(Value::from));
    put("prompt", prompt.map(Value::from));
    let vars = jetty.template_variables;
    put("vars", (!vars.is_empty()).then_some(Value::Object(vars)));
    put("file_paths", list(jetty.file_paths));
    put("files", list(jetty.files));
    let shown = jetty.agent_env.keys().map(|name| (name.clone(), HIDDEN.into()));
    let shown: Map<String, Value> = shown.collect();
    put("agent_env", (!shown.is_empty()).then_some(Value::Object(shown)));
    Ok(Submission {
        collection: collection.name.to_string(),
        task,
        init_params: params,
        lead,
        agent_env: jetty.agent_env,
        secret_params: jetty.secret_params,
        webhook_url: jetty.webhook_url,
        webhook_secret: jetty.webhook_secret,
        ..Submission::default()
    })
}

fn list(entries: Vec<String>) -> Option<Value> {
    (!entries.is_empty()).then(|| entries.into())
}

/// Takes the run in, to the end even if the client goes away meanwhile.
async fn submit(
    api: &Shared,
    submission: Submission,
    cancel_on_disconnect: bool,
) -> Result<Accepted, ChatError> {
    let (tell, told) = oneshot::channel();
    let own = Arc::clone(api);
    api.runs.followers.track(async move {
        let accepted = own.runs.intake.submit(submission, (own.clock)()).await;
        if let Err(Ok(accepted)) = tell.send(accepted)
            && cancel_on_disconnect
        {
            cancel(&own, &accepted.name).await;
        }
    });
    let gone = |e| ApiError::internal("could not take a run in", e);
    Ok(told.await.map_err(gone)?.map_err(refusal)?)
}

/// The answer in one piece: when the run has ended, or when the client's wait is over.
async fn answer(
    api: &Shared,
    accepted: &Accepted,
    (model, limit): (Option<String>, Option<Duration>),
    wish: StreamWish,
) -> Result<Response, ChatError> {
    let most = api.runs.settings.sync_wait;
    let limit = limit.map_or(most, |limit| limit.min(most));
    let left = Leaving { api: wish.cancel_on_disconnect.then_some(api), name: &accepted.name };
    let job = wait(api, &accepted.name, limit).await;
    left.stays();
    let after_start = |error| {
        let metadata = Value::Object(identity(&accepted.name));
        ChatError::AfterStart { error, metadata }
    };
    let job = job.map_err(after_start)?;
    let seen = api.runs.records.see(job).await;
    let seen = seen.map_err(|e| after_start(crate::api::runs::unseen(e)))?;
    Completion::of(&seen, model, accepted.notes.clone()).into_response()
}

/// Stops the run of a client that goes away while it waits.
struct Leaving<'a> {
    /// `None` where nothing is to be stopped.
    api: Option<&'a Shared>,
    name: &'a RunName,
}

impl Leaving<'_> {
    /// The client has stayed.
    fn stays(mut self) {
        self.api = None;
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if let Some(api) = self.api {
            let (own, name) = (Arc::clone(api), self.name.clone());
            api.runs.followers.track(async move { cancel(&own, &name).await });
        }
    }
}
