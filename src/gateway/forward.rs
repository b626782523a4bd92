//! One request on its way: looked at, passed on with the real credential, and its answer metered
//! while it comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::http::{Request, Response, StatusCode, request};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::time::timeout;

use super::admit::{SetAside, set_aside, settle};
use super::aws::signature;
use super::headers::{self, REQUEST_IDS, RETRY_COUNT};
use super::inspect::inspect;
use super::ledger::{GatewayRecord, Outcome};
use super::meter::Meter;
use super::policy::{self, Endpoint, Target};
use super::refusal::Refusal;
use super::room::Carried;
use super::server::Gate;
use crate::guard::{Judged, Verdict};
use crate::provider::Credential;
use crate::run::{ProviderTools, clipped, error_chain};
use crate::secret::Redactor;

/// How long a service may think before its answer begins: an answer in one piece begins when it is
/// finished.
const FIRST_BYTE_LIMIT: Duration = Duration::from_secs(600);

/// Largest answer that is no success, in bytes. It is a sentence, sometimes a web page.
const MAX_ERROR_BYTES: usize = 1 << 20;

/// How often the ledger is told that an answer still comes. A reader of it needs to know whether one
/// does, and not how fast.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Longest name of a model, in bytes. Amazon's longest, with an account in it, have about 150.
const MAX_MODEL_BYTES: usize = 200;

/// Answers one request.
pub(super) async fn answer(gate: Arc<Gate>, request: Request<Body>) -> Response<Body> {
    let since = Instant::now();
    let (head, body) = request.into_parts();
    let Some(seq) = gate.next_seq() else { return Refusal::UsedUp.response() };
    let record = begun(&gate, seq, &head);
    let mut passing = Passing {
        record,
        credential: Credential::None,
        since,
        told: since,
        gate,
        held: None,
        was_sent: false,
    };
    match passed_on(&mut passing, &head, body).await {
        Ok((head, answer)) => passing.answered(head, answer).await,
        Err(refusal) => passing.refused(&refusal),
    }
}

fn begun(gate: &Gate, seq: u64, head: &request::Parts) -> GatewayRecord {
    GatewayRecord {
        seq,
        at: (gate.clock)(),
        outcome: Outcome::Refused,
        method: clipped(head.method.as_str()),
        path: clipped(head.uri.path()),
        endpoint: None,
        model: None,
        model_served: None,
        n_retries: n_retries(&head.headers),
        status: None,
        usage: None,
        first_byte_ms: None,
        duration_ms: None,
        n_request_bytes: 0,
        n_answer_bytes: 0,
        provider_request_id: None,
        granted: ProviderTools::new(),
        withheld: ProviderTools::new(),
        problem: None,
        guard: Vec::new(),
        waited_ms: None,
        reserved: None,
        charged: None,
        exhausted: None,
    }
}

/// What is passed back to the agent.
struct AnswerHead {
    status: StatusCode,
    headers: HeaderMap,
}

/// Looks at a request and asks the service, up to the head of its answer.
async fn passed_on(
    passing: &mut Passing,
    head: &request::Parts,
    body: Body,
) -> Result<(AnswerHead, Option<reqwest::Response>), Refusal> {
    let gate = Arc::clone(&passing.gate);
    let target = policy::target(&gate.route, &head.method, head.uri.path());
    let Target { endpoint, model } = target.ok_or(Refusal::Path)?;
    passing.record.endpoint = Some(endpoint.as_str().to_owned());
    if endpoint == Endpoint::Liveness {
        // The agent CLI asks without its token, only to see that somebody is there.
        let head = AnswerHead { status: StatusCode::OK, headers: HeaderMap::new() };
        return Ok((head, None));
    }
    if !headers::shows(&head.headers, &gate.token) {
        return Err(Refusal::Token);
    }
    let mut body = gate.room.whole(body).await?;
    passing.record.n_request_bytes = body.as_ref().len() as u64;
    passing.names(model)?;
    if endpoint.has_prompt() {
        let found = inspect(body.as_ref()).map_err(|e| Refusal::Unreadable(e.to_string()))?;
        let tools = &gate.provider_tools;
        passing.record.granted = found.wants.intersection(tools).copied().collect();
        passing.record.withheld = found.wants.difference(tools).copied().collect();
        let broken_rule = found.broken_rule(tools);
        if passing.record.model.is_none() {
            passing.names(found.model)?;
        }
        if let Some(rule) = broken_rule {
            return Err(Refusal::Rule(rule));
        }
        body = guarded(passing, body).await?;
    }
    if let (Some(purse), Endpoint::Message) = (&gate.purse, endpoint) {
        let note = |record: &GatewayRecord| gate.note(record);
        passing.held = Some(set_aside(purse, &mut passing.record, body.as_ref(), note).await?);
    }
    passing.credential = gate.credential().await?;
    let url = url(&gate, head, endpoint);
    gate.upstream.look_at(&url).await?;
    let mut headers = headers::asked(&head.headers, &passing.credential, &gate.provider_tools);
    if let Credential::Aws(keys) = &passing.credential {
        let signed = signature(keys, (head.method.as_str(), &url), body.as_ref(), (gate.clock)());
        headers.extend(signed.map_err(Refusal::Denied)?);
    }
    let asked = gate.upstream.client.request(head.method.clone(), url);
    let asked = asked.headers(headers).body(body.into_bytes());
    passing.goes_on();
    let answer = timeout(FIRST_BYTE_LIMIT, asked.send()).await.map_err(|_| Refusal::Silent)?;
    let answer = answer.map_err(|e| {
        // Without a connection nothing was asked, and nothing is billed.
        passing.was_sent = !e.is_connect();
        unreachable(&gate, e)
    })?;
    let head = AnswerHead { status: answer.status(), headers: headers::answered(answer.headers()) };
    Ok((head, Some(answer)))
}

/// What goes on of a prompt where guardrails are set. Looking through a long one takes time that
/// others should not wait for.
async fn guarded(passing: &mut Passing, body: Carried) -> Result<Carried, Refusal> {
    let Some(guard) = passing.gate.guard.clone() else { return Ok(body) };
    let looking = tokio::task::spawn_blocking(move || (guard.judge(body.as_ref()), body)).await;
    let (judged, body) =
        looking.map_err(|_| Refusal::Guard("the guardrails broke down".to_owned()))?;
    let Judged { findings, verdict } = judged.map_err(|e| Refusal::Unreadable(error_chain(&e)))?;
    passing.record.guard = findings;
    match verdict {
        Verdict::Passes => Ok(body),
        Verdict::Masked(masked) => Ok(body.replaced(masked)),
        Verdict::Blocked(why) => Err(Refusal::Guard(why)),
    }
}

/// Where a request goes.
fn url(gate: &Gate, head: &request::Parts, endpoint: Endpoint) -> String {
    let route = &gate.route;
    let control = route.control.as_ref().filter(|_| endpoint == Endpoint::Models);
    let base = control.unwrap_or(&route.upstream);
    let query = head.uri.query().and_then(policy::query);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let url = format!("{base}{}{query}", head.uri.path());
    // Spelled as it is sent, for who signs it.
    url::Url::parse(&url).map_or(url, String::from)
}

/// Why a service was not reached. Its address can hold what an agent is not to know.
fn unreachable(gate: &Gate, error: reqwest::Error) -> Refusal {
    let error = error_chain(&error.without_url());
    tracing::info!(run.id = %gate.run, error, "a model service cannot be reached");
    Refusal::Unreachable(gate.redactor.redact_str(&error))
}

fn n_retries(headers: &HeaderMap) -> Option<u32> {
    headers.get(RETRY_COUNT)?.to_str().ok()?.parse().ok()
}

/// A request on its way. However it ends, the ledger gets its line: a stream whose reader goes away
/// is simply dropped.
struct Passing {
    record: GatewayRecord,
    /// As whom the service was asked.
    credential: Credential,
    since: Instant,
    /// When the ledger was told last.
    told: Instant,
    gate: Arc<Gate>,
    /// What is set aside for it, until it has ended.
    held: Option<SetAside>,
    /// Whether the service may have got it.
    was_sent: bool,
}

impl Passing {
    /// Which model is asked for.
    fn names(&mut self, model: Option<String>) -> Result<(), Refusal> {
        self.record.model = model.as_deref().map(clipped);
        match model {
            Some(model) if model.len() > MAX_MODEL_BYTES => {
                Err(Refusal::Body("the model's name is longer than 200 bytes"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// From here on the service may bill it.
    fn goes_on(&mut self) {
        self.record.outcome = Outcome::InFlight;
        self.gate.note(&self.record);
        self.record.outcome = Outcome::Abandoned;
        self.was_sent = true;
    }

    /// More of the answer has come.
    fn has_come(&mut self, n_bytes: usize) {
        self.record.n_answer_bytes += n_bytes as u64;
        if self.told.elapsed() >= PROGRESS_EVERY {
            self.told = Instant::now();
            let record = GatewayRecord { outcome: Outcome::InFlight, ..self.record.clone() };
            self.gate.note(&record);
        }
    }

    fn refused(mut self, refusal: &Refusal) -> Response<Body> {
        self.record.outcome = match refusal {
            Refusal::Unreachable(_) | Refusal::Silent => Outcome::Unreachable,
            Refusal::Token
            | Refusal::Path
            | Refusal::Body(_)
            | Refusal::Unreadable(_)
            | Refusal::Rule(_)
            | Refusal::Guard(_)
            | Refusal::Denied(_)
            | Refusal::UsedUp
            | Refusal::Exhausted(_)
            | Refusal::Unpriced(_)
            | Refusal::Busy { .. }
            | Refusal::Crowded
            | Refusal::Uncounted => Outcome::Refused,
        };
        self.record.status = Some(refusal.status().as_u16());
        self.record.problem = Some(clipped(&refusal.message()));
        refusal.response()
    }

    /// Hands the answer on.
    async fn answered(
        mut self,
        head: AnswerHead,
        answer: Option<reqwest::Response>,
    ) -> Response<Body> {
        self.record.status = Some(head.status.as_u16());
        self.record.first_byte_ms = Some(self.elapsed_ms());
        let id = REQUEST_IDS.iter().find_map(|name| head.headers.get(*name)?.to_str().ok());
        self.record.provider_request_id = id.map(clipped);
        let body = match answer {
            None => {
                self.record.outcome = Outcome::Complete;
                Body::empty()
            }
            Some(answer) if head.status.is_success() => {
                let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
                let meter = Meter::new(kind.unwrap_or_default());
                Body::from_stream(metered(self, meter, answer.bytes_stream()))
            }
            Some(answer) => Body::from(self.failed(answer).await),
        };
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        response
    }

    /// An error of the service, which may repeat the credential that it did not like.
    async fn failed(mut self, mut answer: reqwest::Response) -> Vec<u8> {
        self.record.outcome = Outcome::Failed;
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = answer.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ERROR_BYTES {
                body.truncate(MAX_ERROR_BYTES);
                break;
            }
        }
        let body = self.gate.redactor.redact_str(&String::from_utf8_lossy(&body));
        let body = Redactor::new(self.credential.secret()).redact_str(&body);
        self.record.n_answer_bytes = body.len() as u64;
        self.record.problem = Some(clipped(&body));
        body.into_bytes()
    }

    /// The answer's bytes have ended, whole or not.
    fn ended(&mut self, meter: Meter, is_whole: bool) {
        let found = meter.finish(is_whole);
        let is_message = self.record.endpoint.as_deref() == Some(Endpoint::Message.as_str());
        self.record.outcome = if is_whole && (found.is_complete || !is_message) {
            Outcome::Complete
        } else {
            Outcome::Broken
        };
        self.learn(found);
    }

    fn learn(&mut self, found: super::meter::Metered) {
        self.record.model_served = found.model.as_deref().map(clipped);
        self.record.usage = found.usage;
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.record.duration_ms = Some(self.elapsed_ms());
        if let Some(held) = self.held.take() {
            settle(held, &mut self.record, self.was_sent);
        }
        self.gate.note(&self.record);
    }
}

/// An answer as it passes, read along.
struct Metering {
    passing: Passing,
    /// Taken when the bytes have ended.
    meter: Option<Meter>,
}

impl Drop for Metering {
    /// The agent went away in the middle of the answer.
    fn drop(&mut self) {
        if let Some(meter) = self.meter.take() {
            self.passing.learn(meter.finish(false));
        }
    }
}

/// The same bytes, untouched.
fn metered<S>(
    passing: Passing,
    meter: Meter,
    bytes: S,
) -> impl Stream<Item = Result<Bytes, reqwest::Error>>
where
    S: Stream<Item = Result<Bytes, reqwest::Error>> + Unpin,
{
    let metering = Metering { passing, meter: Some(meter) };
    futures_util::stream::unfold((metering, bytes), |(mut metering, mut bytes)| async move {
        let next = bytes.next().await;
        match &next {
            Some(Ok(chunk)) => {
                metering.passing.has_come(chunk.len());
                metering.meter.iter_mut().for_each(|meter| meter.feed(chunk));
            }
            Some(Err(_)) | None => {
                if let Some(meter) = metering.meter.take() {
                    metering.passing.ended(meter, next.is_none());
                }
            }
        }
        next.map(|chunk| (chunk, (metering, bytes)))
    })
}
