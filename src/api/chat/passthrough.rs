//! Chat requests that carry no runbook out: they are passed on to a model, and recorded.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::response::Response;
use jiff::Timestamp;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::budget::Size;
use super::chats::{Place, Room};
use super::error::ChatError;
use super::relay::relay;
use super::request::ChatRequest;
use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::usage::narrowed;
use crate::catalog::{Collection, NewTask};
use crate::guard::{Guard, GuardFinding, Guardrails, Judged, Unreadable, Verdict};
use crate::run::{RunId, RunName};
use crate::secret::{Keyring, Redactor, Secret};
use crate::spend::Purse;
use crate::upstream::{Endpoint, Keys, RawBody, Service, choose};
use crate::workflow::Workflow;

/// The task under which chats are recorded that name none.
const TASK: &str = "_chat";

/// Digits of a chat's id. There are many more chats than runs, and nobody draws again when two meet.
const ID_DIGITS: usize = 16;

/// The headers of a client that go on. No other does: they can hold what is for us alone.
const PASSED_ON: [&str; 6] = [
    "accept",
    "anthropic-beta",
    "anthropic-version",
    "openai-beta",
    "openai-organization",
    "openai-project",
];

/// A request that is passed on.
#[derive(Debug)]
pub(super) struct Chat {
    /// What it is recorded as.
    pub(super) name: RunName,
    /// The model that is asked for.
    pub(super) model: String,
    /// Whether the answer is to come piece by piece.
    pub(super) stream: bool,
    /// Who is asked.
    pub(super) endpoint: Endpoint,
    /// The headers that go on.
    pub(super) headers: HeaderMap,
    /// The body that goes on.
    pub(super) body: Bytes,
    /// Keys whose values are not recorded.
    pub(super) hidden: Vec<String>,
    /// Masks the collection's keys.
    pub(super) redactor: Redactor,
    /// What the guardrails found in it.
    pub(super) guard: Vec<GuardFinding>,
    /// What it may spend.
    pub(super) purse: Purse,
    /// How much it may take of it.
    pub(super) size: Size,
    /// When it came.
    pub(super) created: Timestamp,
    /// They are free again when this is dropped.
    pub(super) place: (Place, Room),
}

/// Passes a request on to the model service that it means. The bytes of the answer come back as they
/// are, when they come; what was asked and answered is recorded.
pub(super) async fn passthrough(
    api: Shared,
    collection: Collection,
    request: ChatRequest,
    room: Room,
) -> Result<Response, ChatError> {
    let chat = admit(&api, collection, request, room).await?;
    let (head, answered) = oneshot::channel();
    // The chat outlives its client: that it went away is recorded too.
    api.chats.track(relay(Arc::clone(&api), chat, head));
    answered.await.map_err(|gone| ApiError::internal("passing a chat on broke off", gone).into())
}

/// Everything that can be known to fail is refused here, before anybody is asked.
async fn admit(
    api: &Shared,
    collection: Collection,
    request: ChatRequest,
    room: Room,
) -> Result<Chat, ChatError> {
    if api.readiness.is_draining() {
        let detail = "The server is stopping: send the request again in a minute".to_owned();
        return Err(ApiError::Unavailable { detail, source: None }.into());
    }
    let created = (api.clock)();
    let place = api.chats.place(&collection.name).await?;
    let jetty = request.jetty.as_ref();
    let model = request.model.clone().ok_or_else(|| {
        ChatError::field("model", "name the model that is to answer, such as \"claude-sonnet-4-6\"")
    })?;
    let own = api.catalog.environment(&collection.name).await.map_err(ApiError::from)?;
    let own: Keyring = own.into_iter().collect();
    let keys = Keys { own: &own, shared: api.runs.intake.settings.shared_keys.as_ref() };
    let named = jetty.and_then(|jetty| jetty.model_provider.as_deref());
    let endpoint =
        choose(named, &model, keys, api.chats.upstream.reach()).map_err(ApiError::BadRequest)?;
    let task = jetty.and_then(|jetty| jetty.task.as_deref()).unwrap_or(TASK);
    let task = NewTask::new(task, Workflow::of_passthrough_task());
    let task = api.catalog.ensure_task(&collection.name, task, created).await;
    let task = task.map_err(ApiError::from)?.name;
    let id = Uuid::new_v4().simple().to_string();
    let id =
        RunId::new(&id[..ID_DIGITS]).map_err(|e| ApiError::internal("could not draw an id", e))?;
    let body = RawBody::read(&request.bytes)
        .map_err(|_| ChatError::field("", "the body must be one JSON object"))?
        .without_ours(&request.bytes);
    let redactor = redactor(keys, &endpoint);
    let rails = rails(api, &own)?;
    let (body, guard) = guarded(rails, &own, &redactor, body).await?;
    let spend = api.runs.intake.spend.clone();
    let allowance = narrowed(api, &own);
    let purse = Purse::of_collection(spend, collection.name.clone(), allowance, api.clock);
    let size = Size::read(&body)?;
    Ok(Chat {
        name: RunName { collection: collection.name, task, id },
        model,
        stream: request.stream,
        endpoint,
        headers: passed_on(&request.headers),
        body,
        hidden: collection.redacted_param_keys,
        redactor,
        guard,
        purse,
        size,
        created,
        place: (place, room),
    })
}

/// What the server and the collection want of prompts.
fn rails(api: &Shared, own: &Keyring) -> Result<Guardrails, ApiError> {
    let read = Guardrails::read(|name| own.get(name).map(Secret::expose));
    let wanted = read.map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        ApiError::BadRequest(format!("The collection's environment: {}", faults.join("; ")))
    })?;
    Ok(wanted.and(api.runs.intake.settings.guard))
}

/// What goes on of a request, and what was found in it.
async fn guarded(
    rails: Guardrails,
    own: &Keyring,
    redactor: &Redactor,
    body: Bytes,
) -> Result<(Bytes, Vec<GuardFinding>), ChatError> {
    let redactor = redactor.knowing(own.secrets());
    let Some(guard) = Guard::new(rails, redactor) else { return Ok((body, Vec::new())) };
    // Looking through a long prompt takes time that others should not wait for.
    let looking = tokio::task::spawn_blocking(move || (guard.judge(&body), body)).await;
    let (judged, body) = looking.map_err(|e| ApiError::internal("the guardrails broke down", e))?;
    let unread =
        |e: Unreadable| ChatError::field("messages", format!("{e}: it cannot be passed on"));
    let Judged { findings, verdict } = judged.map_err(unread)?;
    match verdict {
        Verdict::Passes => Ok((body, findings)),
        Verdict::Masked(masked) => Ok((masked.into(), findings)),
        Verdict::Blocked(why) => {
            Err(ChatError::field("messages", format!("blocked by policy: {why}")))
        }
    }
}

/// Masks every key with which a model could be asked, whoever it is that repeats it.
fn redactor(keys: Keys<'_>, endpoint: &Endpoint) -> Redactor {
    let names = Service::ALL.into_iter().flat_map(|service| service.keys().iter().copied());
    let known = names.flat_map(|name| [keys.own.get(name), keys.shared.and_then(|k| k.get(name))]);
    Redactor::new(known.flatten().chain([&endpoint.key]))
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let wanted = headers.iter().filter(|(name, _)| PASSED_ON.contains(&name.as_str()));
    wanted.map(|(name, value)| (name.clone(), value.clone())).collect()
}
