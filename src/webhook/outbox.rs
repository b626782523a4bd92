//! What is to be told, and telling it until it is taken or given up.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::post::{Letter, Post};
use crate::catalog::{Catalog, CatalogError, Delivery, DeliveryOutcome, NewDelivery, RETRY_AFTER};
use crate::queue::{Ended, Status};
use crate::records::{RecordError, Records, wire_status};
use crate::run::{RunName, error_chain};
use crate::secret::{Redactor, Secret};
use crate::telemetry::meters;

/// Webhooks that are sent at the same time. One slow receiver must not hold the others up.
const MAX_AT_ONCE: usize = 8;

/// Between two looks into the outbox. What a run puts there is told at most this much later.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long the sending that is on its way may go on after the stop was asked for: longer than a
/// receiver may take. What is cut is told again after the next start.
const DRAIN_LIMIT: Duration = Duration::from_secs(25);

/// Longest message, in bytes. Above it the steps' outputs are left out.
const MAX_BODY_BYTES: usize = 256 << 10;

/// The parts of a trajectory that a message has.
const TOLD: [&str; 9] = [
    "name",
    "trajectory_id",
    "status",
    "storage_path",
    "steps",
    "completed_steps",
    "total_steps",
    "init_params",
    "labels",
];

/// The news could not be put into the outbox.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The run could not be looked up.
    #[error("could not sum the run up for its webhook")]
    Record(#[from] RecordError),
    /// The outbox could not be written.
    #[error("could not put a webhook into the outbox")]
    Catalog(#[from] CatalogError),
}

impl OutboxError {
    /// Whether another try would end the same way: the news are too large, or the collection has gone.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Catalog(CatalogError::Invalid { .. } | CatalogError::NotFound { .. }))
    }
}

/// Where the news of ended runs waits to be told.
#[derive(Debug, Clone)]
pub struct Outbox {
    /// Where it is kept.
    pub catalog: Catalog,
    /// What is told.
    pub records: Records,
}

/// How a run ended, and who is to know.
#[derive(Debug)]
pub struct News<'a> {
    /// The run. Its record is closed.
    pub run: &'a RunName,
    /// How it ended. The queue may not know it yet.
    pub ended: Ended,
    /// Whom to tell.
    pub url: &'a str,
    /// What to sign it with.
    pub secret: Option<Secret>,
}

impl Outbox {
    /// Puts the news that a run has ended into the outbox. Called again, it changes nothing: a run
    /// is told of once. Call it when the record is closed and before the queue is told of the end,
    /// so that a crash in between repeats it instead of losing it.
    ///
    /// # Errors
    /// [`OutboxError`] when the run cannot be read or the outbox cannot be written.
    pub async fn enqueue(&self, news: News<'_>, now: Timestamp) -> Result<(), OutboxError> {
        let RunName { collection, task, id } = news.run;
        let Some(job) = self.records.find(collection, task, id.as_str()).await? else {
            return Ok(());
        };
        let mut trajectory = self.records.see(job).await?.trajectory;
        let status = wire_status(Status::from(news.ended));
        trajectory.insert("status".to_owned(), status.into());
        let new = NewDelivery {
            run: news.run.clone(),
            url: news.url.to_owned(),
            secret: news.secret,
            body: Redactor::shapes().redact_str(&message(&trajectory)),
        };
        Ok(self.catalog.enqueue_delivery(&new, now).await?)
    }
}

/// The summary of a run that its webhook tells.
fn message(trajectory: &Map<String, Value>) -> String {
    let part =
        |key: &&str| ((*key).to_owned(), trajectory.get(*key).cloned().unwrap_or(Value::Null));
    let mut told: Map<String, Value> = TOLD.iter().map(part).collect();
    for extra in ["workflow_id", "error", "verdict"] {
        told.extend(trajectory.get(extra).map(|value| (extra.to_owned(), value.clone())));
    }
    let whole = json!(told).to_string();
    if whole.len() <= MAX_BODY_BYTES {
        return whole;
    }
    let steps = told.get_mut("steps").and_then(Value::as_object_mut);
    for step in steps.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
        step.retain(|key, _| matches!(key.as_str(), "status" | "error" | "activity"));
    }
    told.insert("init_params".to_owned(), Value::Null);
    told.insert("labels".to_owned(), json!([]));
    told.insert("is_shortened".to_owned(), true.into());
    json!(told).to_string()
}

/// Sends what is in the outbox.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The outbox.
    pub catalog: Catalog,
    /// What sends.
    pub post: Post,
}

impl Sender {
    /// Sends until `drain` is cancelled, then ends what is on its way.
    pub async fn run(&self, clock: fn() -> Timestamp, drain: CancellationToken) {
        let mut sending = JoinSet::new();
        while !drain.is_cancelled() {
            self.start(&mut sending, clock).await;
            tokio::select! {
                () = drain.cancelled() => {}
                Some(_) = sending.join_next() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        let ended = async { while sending.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_LIMIT, ended).await.is_err() {
            sending.shutdown().await;
        }
    }

    /// Starts to send what is due, as far as there is room.
    async fn start(&self, sending: &mut JoinSet<()>, clock: fn() -> Timestamp) {
        while sending.len() < MAX_AT_ONCE {
            match self.catalog.claim_delivery(clock()).await {
                Ok(Some(delivery)) => {
                    let sender = self.clone();
                    sending.spawn(async move { sender.deliver(delivery, clock).await });
                }
                Ok(None) => return,
                Err(error) => {
                    let error = error_chain(&error);
                    tracing::error!(error, "the outbox of webhooks cannot be read");
                    return;
                }
            }
        }
    }

    async fn deliver(&self, delivery: Delivery, clock: fn() -> Timestamp) {
        let outcome = self.attempt(&delivery, clock()).await;
        if let Err(error) = self.catalog.finish_delivery(&delivery, outcome, clock()).await {
            // The claim runs out, and it is told again: receivers know it by the trajectory's id.
            let error = error_chain(&error);
            tracing::error!(run.id = %delivery.run, error, "a webhook's end could not be noted");
        }
    }

    /// Sends a delivery once.
    async fn attempt(&self, delivery: &Delivery, now: Timestamp) -> DeliveryOutcome {
        let letter = Letter {
            url: &delivery.url,
            secret: delivery.secret.as_ref(),
            trajectory_id: delivery.run.id.as_str(),
            body: &delivery.body,
        };
        match self.post.send(&letter, now).await {
            Ok(()) => {
                meters::webhook("delivered");
                DeliveryOutcome::Delivered
            }
            Err(refusal) => {
                let (run, attempt, error) = (&delivery.run, delivery.attempt, refusal.why);
                let error = Redactor::new(delivery.secret.as_ref()).redact_str(&error);
                tracing::warn!(run.id = %run, attempt, error, "a webhook did not arrive");
                let is_last = usize::try_from(attempt).is_ok_and(|n| n > RETRY_AFTER.len());
                meters::webhook(if refusal.may_pass && !is_last { "retried" } else { "given_up" });
                if refusal.may_pass {
                    DeliveryOutcome::Failed { error }
                } else {
                    DeliveryOutcome::Refused { error }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_summary_and_stays_short() {
        let mut trajectory = json!({
            "name": "c/t", "trajectory_id": "x", "status": "completed", "agent_steps": [1],
            "steps": {"run": {"status": "completed", "outputs": {"text": "done"}}},
        })
        .as_object()
        .unwrap()
        .clone();
        let told: Value = serde_json::from_str(&message(&trajectory)).unwrap();
        assert_eq!(told["steps"]["run"]["outputs"]["text"], "done");
        assert_eq!((told.get("agent_steps"), &told["labels"]), (None, &Value::Null));
        trajectory["steps"]["run"]["outputs"]["text"] = "x".repeat(MAX_BODY_BYTES).into();
        let text = message(&trajectory);
        let told: Value = serde_json::from_str(&text).unwrap();
        assert!(text.len() < MAX_BODY_BYTES);
        assert_eq!(told["steps"], json!({"run": {"status": "completed"}}));
    }
}
