//! The figures of `GET /metrics`: their names, their units, and the only place that counts them.
//!
//! No figure has a label with a tenant's words (collection, task, token): a monitor reads all of
//! them, and names that clients choose would fill its memory.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

const HTTP_SECONDS: &str = "runbookd_http_request_seconds";
const RUNS: &str = "runbookd_runs_total";
const RUNS_LIVE: &str = "runbookd_runs_live";
const RUNS_BY_ACTIVITY: &str = "runbookd_runs_by_activity";
const QUEUE_JOBS: &str = "runbookd_queue_jobs";
const QUEUE_OLDEST: &str = "runbookd_queue_oldest_seconds";
const SANDBOX_START: &str = "runbookd_sandbox_start_seconds";
const EVENT_LAG: &str = "runbookd_event_lag_seconds";
const TOKENS: &str = "runbookd_tokens_total";
const COST: &str = "runbookd_cost_microdollars_total";
const GATEWAY_FIRST_BYTE: &str = "runbookd_gateway_first_byte_seconds";
const GATEWAY_REQUESTS: &str = "runbookd_gateway_request_seconds";
const BUDGET_REFUSED: &str = "runbookd_budget_refused_total";
const EGRESS: &str = "runbookd_egress_attempts_total";
const CHATS: &str = "runbookd_chats_total";
const WEBHOOKS: &str = "runbookd_webhook_deliveries_total";

/// Borders of what a client waits for, in seconds.
const SHORT: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Borders of what a sandbox takes to start and a model to answer, in seconds: from a namespace to an
/// image's download, from a list of models to a long reply.
const LONG: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];

/// One recorder for the process: `metrics` has one place for it.
static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Kinds of tokens, as the provider bills them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Input that did not touch the cache.
    Input,
    /// Output.
    Output,
    /// Input read from the cache.
    CacheRead,
    /// Input written to the cache.
    CacheWrite,
}

/// Starts counting. Before it, and without it, every figure is dropped at no cost.
pub fn start() {
    RECORDER.get_or_init(install);
}

/// All figures in the text format of Prometheus. Empty where [`start`] was not called.
#[must_use]
pub fn render() -> String {
    let handle = RECORDER.get().and_then(Option::as_ref);
    handle.map(PrometheusHandle::render).unwrap_or_default()
}

/// Folds the samples that came since the last call, so that they do not pile up between scrapes.
pub fn upkeep() {
    if let Some(Some(handle)) = RECORDER.get() {
        handle.run_upkeep();
    }
}

/// A request was answered. `route` is the path's pattern, never the path.
pub fn answered(method: &'static str, route: &str, status: u16, took: Duration) {
    let labels = [
        ("method", method.to_owned()),
        ("route", route.to_owned()),
        ("status", status.to_string()),
    ];
    histogram!(HTTP_SECONDS, &labels).record(took);
}

/// A run ended with this status, in the words of the wire.
pub fn run_ended(status: &'static str) {
    counter!(RUNS, "status" => status).increment(1);
}

/// So many runs have a living sandbox here.
pub fn runs_live(n: usize) {
    gauge!(RUNS_LIVE).set(float(n as u64));
}

/// So many runs do this now, in the words of the wire.
pub fn runs_by_activity(activity: &'static str, n: usize) {
    gauge!(RUNS_BY_ACTIVITY, "activity" => activity).set(float(n as u64));
}

/// So many jobs of the queue have this status.
pub fn queue_jobs(status: &'static str, n: u64) {
    gauge!(QUEUE_JOBS, "status" => status).set(float(n));
}

/// The oldest job that could run has waited so long.
pub fn queue_oldest(waited: Duration) {
    gauge!(QUEUE_OLDEST).set(waited.as_secs_f64());
}

/// A sandbox was made, with everything in its place.
pub fn sandbox_made(engine: &'static str, took: Duration) {
    histogram!(SANDBOX_START, "engine" => engine).record(took);
}

/// An event of an agent was recorded so long after it could have been.
pub fn event_lag(lag: Duration) {
    histogram!(EVENT_LAG).record(lag);
}

/// A run used so many tokens.
pub fn tokens(kind: TokenKind, n: u64) {
    let kind = match kind {
        TokenKind::Input => "input",
        TokenKind::Output => "output",
        TokenKind::CacheRead => "cache_read",
        TokenKind::CacheWrite => "cache_write",
    };
    counter!(TOKENS, "kind" => kind).increment(n);
}

/// A run cost so much, known in this way (`reported` or `estimated`). An unknown cost is not counted.
pub fn cost(basis: &'static str, microdollars: u64) {
    counter!(COST, "basis" => basis).increment(microdollars);
}

/// A request of an agent to its model ended in this way; it took so long in all, and so long to the
/// first byte of an answer, where there was one.
pub fn gateway_request(outcome: &'static str, took: Duration, first_byte: Option<Duration>) {
    histogram!(GATEWAY_REQUESTS, "outcome" => outcome).record(took);
    first_byte.iter().for_each(|first| histogram!(GATEWAY_FIRST_BYTE).record(*first));
}

/// A request was refused because a run, a day or a month (`span`) had no room for it.
pub fn budget_refused(span: &'static str) {
    counter!(BUDGET_REFUSED, "span" => span).increment(1);
}

/// So many attempts of a run to get out of its sandbox ended in this way (`allowed`, `denied` or
/// `failed`) by a rule of this kind. `rule` is one of a few words, never a host.
pub fn egress(outcome: &'static str, rule: &'static str, n: u64) {
    counter!(EGRESS, "outcome" => outcome, "rule" => rule).increment(n);
}

/// A chat that was passed on to a model ended with this status, in the words of the wire.
pub fn chat_ended(status: &'static str) {
    counter!(CHATS, "status" => status).increment(1);
}

/// A webhook was sent, with this outcome (`delivered`, `retried` or `given_up`).
pub fn webhook(outcome: &'static str) {
    counter!(WEBHOOKS, "outcome" => outcome).increment(1);
}

fn install() -> Option<PrometheusHandle> {
    let suffixes = [
        (EVENT_LAG, SHORT),
        (GATEWAY_FIRST_BYTE, LONG),
        (GATEWAY_REQUESTS, LONG),
        (HTTP_SECONDS, SHORT),
        (SANDBOX_START, LONG),
    ];
    let builder =
        suffixes.into_iter().fold(PrometheusBuilder::new(), |builder, (name, borders)| {
            builder
                .set_buckets_for_metric(Matcher::Full(name.to_owned()), borders)
                .expect("the borders are not empty")
        });
    match builder.install_recorder() {
        Ok(handle) => {
            describe();
            Some(handle)
        }
        Err(e) => {
            tracing::warn!(error = %e, "nothing is counted: the process has another recorder");
            None
        }
    }
}

fn describe() {
    describe_histogram!(HTTP_SECONDS, Unit::Seconds, "Time to the head of an answer.");
    describe_counter!(RUNS, "Runs that ended, by status.");
    describe_counter!(BUDGET_REFUSED, "Requests without room in a budget, by span.");
    describe_gauge!(RUNS_LIVE, "Runs with a living sandbox.");
    describe_gauge!(RUNS_BY_ACTIVITY, "Runs whose agent is attended, by what they are doing.");
    describe_gauge!(QUEUE_JOBS, "Jobs of the queue, by status.");
    describe_gauge!(QUEUE_OLDEST, Unit::Seconds, "Wait of the oldest job that could run.");
    describe_histogram!(
        SANDBOX_START,
        Unit::Seconds,
        "Time to make a sandbox and start its agent."
    );
    describe_histogram!(EVENT_LAG, Unit::Seconds, "From an agent's line to its record.");
    describe_counter!(TOKENS, "Tokens that runs used, by kind.");
    describe_counter!(
        COST,
        "Known costs of runs in millionths of a dollar, by how they are known."
    );
    describe_histogram!(
        GATEWAY_FIRST_BYTE,
        Unit::Seconds,
        "From an agent's request to the first byte of its model's answer."
    );
    describe_histogram!(
        GATEWAY_REQUESTS,
        Unit::Seconds,
        "Requests of agents to their models, by how they ended."
    );
    describe_counter!(
        EGRESS,
        "Attempts of sandboxes to get out, by outcome and kind of rule, counted at a run's end."
    );
    describe_counter!(CHATS, "Chats that were passed on to a model, by how they ended.");
    describe_counter!(WEBHOOKS, "Webhooks that were sent, by outcome.");
}

/// A gauge is a float; 2^53 jobs are not to be expected.
#[expect(clippy::cast_precision_loss, reason = "such a queue does not exist")]
fn float(n: u64) -> f64 {
    n as f64
}
