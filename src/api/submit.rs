//! Starting runs: at once, or waiting for the end.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::auth::Caller;
use super::error::{ApiError, Problem};
use super::extract::{JsonBody, Segments, count_values, read_json};
use super::form::{Form, told};
use super::receive::Received;
use super::runs::{names, unseen};
use crate::intake::{Accepted, IntakeError, Submission};
use crate::queue::Job;
use crate::run::RunName;
use crate::secret::Secret;
use crate::workflow::{parse_init_params, refuse_double_wrapping};

/// Makes a repeated request the same request.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How often a run is looked at while nothing is heard of it: a run that is cancelled while it waits
/// says nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Fields that clients send and that mean nothing here.
const IGNORED: [&str; 3] = ["use_trial_keys", "bakery_host", "subscription_credential"];

/// Most fields of a request that mean nothing: each is answered with a note.
const MAX_UNKNOWN: usize = 16;

pub(super) fn routes(max_upload_bytes: usize) -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(run))
        .routes(routes!(run_sync))
        .layer(DefaultBodyLimit::max(max_upload_bytes))
}

/// A request for a run.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes the form; the form is read field by field")]
struct RunForm {
    /// A JSON object that is laid over the task's own parameters.
    init_params: Option<String>,
    /// Files for `/app/assets`; zip archives are unpacked.
    files: Option<Vec<String>>,
    /// A JSON object of secrets for this run alone; they are never recorded.
    secret_params: Option<String>,
    /// Who is told of the end.
    webhook_url: Option<String>,
    /// What signs that call.
    webhook_secret: Option<String>,
    /// `run-sync` alone: how many seconds to wait at most.
    timeout_hint: Option<u64>,
}

/// Starts a run and answers at once. The run can be looked up before this answers. A form, or JSON
/// with the same keys; `Idempotency-Key` makes a repeated request the same request.
#[utoipa::path(post, path = "/api/v1/run/{collection}/{task}", tag = "runs",
    request_body(content = RunForm, content_type = "multipart/form-data"),
    responses((status = 200, description = "The run's ids."),
        (status = 400, description = "The run could only fail; `detail` says why."),
        (status = 404, description = "There is no such task."),
        (status = 409, description = "The idempotency key was used for another request.")))]
async fn run(
    State(api): State<Shared>,
    Segments((collection, task)): Segments<(String, String)>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let (accepted, _) = submit(&api, (collection, task), request).await?;
    started(&api, accepted).await
}

/// Starts a run and answers when it has ended, or when the wait is over: then the answer has where
/// the run stands, and the run goes on.
#[utoipa::path(post, path = "/api/v1/run-sync/{collection}/{task}", tag = "runs",
    request_body(content = RunForm, content_type = "multipart/form-data"),
    responses((status = 200, description = "The trajectory and the run's ids; see `status`."),
        (status = 400, description = "The run could only fail; `detail` says why."),
        (status = 429, description = "The token waits for too many runs.")))]
async fn run_sync(
    State(api): State<Shared>,
    caller: Caller,
    Segments((collection, task)): Segments<(String, String)>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    // A place first: who cannot wait must not find a run started.
    let place = api.runs.followers.wait(&caller)?;
    let (accepted, wish) = submit(&api, (collection, task), request).await?;
    let limit = api.runs.settings.sync_wait;
    let limit = wish.map_or(limit, |wish| wish.min(limit));
    let job = wait(&api, &accepted.name, limit).await?;
    drop(place);
    let message = if job.status.is_terminal() {
        "Workflow ended"
    } else {
        "Workflow still running: follow it with the trajectory_id"
    };
    let seen = api.runs.records.see(job).await.map_err(unseen)?;
    let mut answer = response(&accepted, message, &seen.trajectory);
    // The trajectory's own keys lie beside those of the answer: some clients read these.
    answer.extend(seen.trajectory);
    Ok(Json(Value::Object(answer)))
}

/// The answer to a run that was started.
pub(super) async fn started(api: &Shared, accepted: Accepted) -> Result<Json<Value>, ApiError> {
    let message = if accepted.repeated {
        "Workflow was started by the same request before"
    } else {
        "Workflow started"
    };
    let job = row(api, &accepted.name).await?;
    let seen = api.runs.records.see(job).await.map_err(unseen)?;
    Ok(Json(Value::Object(response(&accepted, message, &seen.trajectory))))
}

fn response(
    accepted: &Accepted,
    message: &str,
    trajectory: &Map<String, Value>,
) -> Map<String, Value> {
    let name = &accepted.name;
    let mut trajectory = trajectory.clone();
    trajectory.shift_remove("agent_steps");
    let steps = trajectory.get("steps").and_then(Value::as_object);
    let last = steps.and_then(|steps| steps.values().next_back());
    let result = last.and_then(|step| step.get("outputs")).cloned().unwrap_or_else(|| json!({}));
    let mut answer = Map::new();
    answer.insert("message".to_owned(), message.into());
    answer.insert("workflow_id".to_owned(), name.workflow_id().into());
    answer.insert("trajectory_id".to_owned(), name.id.as_str().into());
    answer.insert("status".to_owned(), trajectory.get("status").cloned().unwrap_or_default());
    answer.insert("result".to_owned(), result);
    let metadata = format!("{}/{}/{}.json", name.collection, name.task, name.id);
    answer.insert("metadata".to_owned(), metadata.into());
    answer.insert("notes".to_owned(), accepted.notes.clone().into());
    answer.insert("trajectory".to_owned(), Value::Object(trajectory));
    answer
}

/// Waits for the end of a run, or for the end of the wait.
pub(super) async fn wait(api: &Shared, name: &RunName, limit: Duration) -> Result<Job, ApiError> {
    let deadline = tokio::time::Instant::now() + limit;
    let mut news = api.store.watch(name);
    loop {
        let job = row(api, name).await?;
        let is_over = tokio::time::Instant::now() >= deadline;
        if job.status.is_terminal() || is_over || api.readiness.is_draining() {
            return Ok(job);
        }
        let until = deadline.min(tokio::time::Instant::now() + LOOK_EVERY);
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            heard = news.changed() => if heard.is_err() {
                tokio::time::sleep_until(until).await;
            }
        }
    }
}

async fn row(api: &Shared, name: &RunName) -> Result<Job, ApiError> {
    let found = api.queue.get(name).await;
    found
        .map_err(|e| ApiError::internal("could not look a run up", e))?
        .ok_or_else(|| ApiError::NotFound(format!("The run '{}' was removed", name.id)))
}

/// Reads a request and takes it in. Says too how long the client wants to wait.
async fn submit(
    api: &Shared,
    (collection, task): (String, String),
    request: Request,
) -> Result<(Accepted, Option<Duration>), ApiError> {
    if api.readiness.is_draining() {
        let detail = "The server is stopping: send the request again in a minute".to_owned();
        return Err(ApiError::Unavailable { detail, source: None });
    }
    let (collection, task) = names(api, &collection, &task).await?;
    let key = idempotency_key(request.headers())?;
    let mut received = Received::new(api, collection.clone()).await?;
    let fields = if is_json(request.headers()) {
        from_json(request, api).await?
    } else {
        from_form(request, api, &mut received).await?
    };
    let wish = Submission {
        collection: collection.to_string(),
        task: task.to_string(),
        init_params: fields.init_params,
        // From here on they are the intake's, which goes on without us.
        uploads: received.handed_over(),
        secret_params: fields.secret_params,
        webhook_url: fields.webhook_url,
        webhook_secret: fields.webhook_secret,
        routine: None,
        idempotency_key: key,
        ..Submission::default()
    };
    let mut accepted = api.runs.intake.submit(wish, (api.clock)()).await.map_err(refusal)?;
    accepted.notes.extend(fields.notes);
    Ok((accepted, fields.timeout_hint))
}

/// What a request's form or JSON says.
#[derive(Debug, Default)]
struct Fields {
    init_params: Map<String, Value>,
    secret_params: BTreeMap<String, Secret>,
    webhook_url: Option<String>,
    webhook_secret: Option<Secret>,
    timeout_hint: Option<Duration>,
    notes: Vec<String>,
}

/// The key that makes a repeated request the same request, where there is one.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = key.to_str().map_err(|_| {
        ApiError::BadRequest("the Idempotency-Key must be visible ASCII text".to_owned())
    })?;
    Ok(Some(key.to_owned()))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    !kind.to_ascii_lowercase().starts_with("multipart/")
}

/// JSON with the form's keys, or nothing at all.
async fn from_json(request: Request, api: &Shared) -> Result<Fields, ApiError> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded")) {
        return Err(ApiError::BadRequest(
            "send the request as multipart/form-data (curl -F, not -d), or as JSON with \
             `Content-Type: application/json`"
                .to_owned(),
        ));
    }
    let read = tokio::time::timeout(api.settings.answer_limit, read_json(request, api)).await;
    let bytes =
        read.map_err(|_| ApiError::TooSlow("the request's body came too slowly".to_owned()))??;
    if bytes.is_empty() {
        return Ok(Fields::default());
    }
    let JsonBody(body): JsonBody<Map<String, Value>> =
        super::extract::from_json(&bytes).map(JsonBody)?;
    let mut fields = Fields::default();
    for (name, value) in body {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                value.to_string()
            }
        };
        fields.read(&name, text)?;
    }
    Ok(fields)
}

async fn from_form(
    request: Request,
    api: &Shared,
    received: &mut Received,
) -> Result<Fields, ApiError> {
    let mut form = Form::of(request, api).await?;
    let mut fields = Fields::default();
    while let Some(part) = form.next().await? {
        let name = part.name();
        match (name.as_str(), part.file_name()) {
            ("files", Some(_)) => received.take(part).await?,
            ("file", Some(_)) => {
                let msg = "files are sent in the field `files`, one part each";
                return Err(ApiError::Invalid(vec![Problem::of_field("file", "unexpected", msg)]));
            }
            _ => {
                let text = part.text().await?;
                fields.read(&name, text)?;
            }
        }
    }
    Ok(fields)
}

impl Fields {
    fn read(&mut self, name: &str, text: String) -> Result<(), ApiError> {
        match name {
            "init_params" => {
                count_values(text.as_bytes())?;
                self.init_params =
                    parse_init_params(&text).map_err(|e| invalid(name, e.to_string()))?;
                refuse_double_wrapping(&self.init_params)
                    .map_err(|e| invalid(name, e.to_string()))?;
            }
            "secret_params" => self.secret_params = secrets(&text)?,
            "webhook_url" => self.webhook_url = Some(text).filter(|text| !text.is_empty()),
            "webhook_secret" => {
                self.webhook_secret = Some(text).filter(|text| !text.is_empty()).map(Secret::new);
            }
            "timeout_hint" => {
                let seconds = text.trim().parse::<f64>().ok();
                let hint = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                let msg = "it must be a number of seconds".to_owned();
                self.timeout_hint = Some(hint.ok_or_else(|| invalid(name, msg))?);
            }
            ignored if IGNORED.contains(&ignored) => {}
            _ if self.notes.len() == MAX_UNKNOWN => {
                return Err(ApiError::BadRequest(format!(
                    "The request has more than {MAX_UNKNOWN} fields that are not known; parameters \
                     of the task go into `init_params`"
                )));
            }
            other => self.notes.push(format!(
                "The field `{}` is not known and does nothing; parameters of the task go into \
                 `init_params`.",
                told(other)
            )),
        }
        Ok(())
    }
}

fn invalid(field: &str, msg: String) -> ApiError {
    ApiError::Invalid(vec![Problem::of_field(field, "value_error", msg)])
}

/// The secrets of a request. Nothing of them is in an error.
fn secrets(text: &str) -> Result<BTreeMap<String, Secret>, ApiError> {
    let not_an_object = || {
        let msg = "`secret_params` must be a JSON object of names and texts, such as \
                   `{\"API_KEY\": \"…\"}`";
        invalid("secret_params", msg.to_owned())
    };
    if text.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    count_values(text.as_bytes())?;
    // The shell client's extra brace comes here too.
    let params = parse_init_params(text).map_err(|_| not_an_object())?;
    let mut secrets = BTreeMap::new();
    for (name, value) in params {
        let Value::String(value) = value else {
            return Err(invalid("secret_params", format!("the value of `{name}` must be a text")));
        };
        secrets.insert(name, Secret::new(value));
    }
    Ok(secrets)
}

/// What a client hears of a request that was not taken in.
pub(super) fn refusal(error: IntakeError) -> ApiError {
    match error {
        IntakeError::Unknown(text) => ApiError::NotFound(text),
        IntakeError::Refused(problems) => ApiError::BadRequest(problems.join(" ")),
        IntakeError::BudgetUsedUp { wait, .. } => {
            ApiError::TooMany { detail: error.to_string(), retry_after: wait.as_secs() + 1 }
        }
        IntakeError::NoRoom => ApiError::no_room(),
        IntakeError::KeyUsed(_) => ApiError::Conflict(error.to_string()),
        IntakeError::Spend(_)
        | IntakeError::Catalog(_)
        | IntakeError::Seal(_)
        | IntakeError::Files(_)
        | IntakeError::Queue(_)
        | IntakeError::Discard(_)
        | IntakeError::Gone(_) => ApiError::internal("could not take a run in", error),
    }
}
