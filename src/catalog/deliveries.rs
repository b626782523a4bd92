//! The outbox of webhooks: what is to be told, kept until it is told or given up.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::Catalog;
use super::error::{CatalogError, Kind};
use super::routines::legal_url;
use super::row::{Columns, number};
use crate::run::{RunId, RunName};
use crate::secret::Secret;

/// How long after a failed attempt the next one is made. A receiver that is deployed anew is back
/// after the first ones; one that is mended by a person the next morning is still told.
pub const RETRY_AFTER: [Duration; 6] = [
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(8 * 3600),
];

/// Attempts for one delivery.
const MAX_ATTEMPTS: u64 = RETRY_AFTER.len() as u64 + 1;

/// How long one attempt may take before another sender may take it over: longer than any sender
/// waits for an answer.
const CLAIM_LIMIT: Duration = Duration::from_secs(120);

/// Longest body, in bytes. A summary of a run has a few kilobytes.
const MAX_BODY_BYTES: usize = 1 << 20;

/// How much of an error is kept, in characters.
const MAX_ERROR_CHARS: usize = 500;

/// Something to tell.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    /// The run that it is about. A run is told of once.
    pub run: RunName,
    /// Whom to tell.
    pub url: String,
    /// What to sign it with.
    pub secret: Option<Secret>,
    /// What to say, as it is sent and signed.
    pub body: String,
}

/// Something to tell, claimed by one sender for one attempt.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its id.
    pub id: Uuid,
    /// The run that it is about.
    pub run: RunName,
    /// Whom to tell.
    pub url: String,
    /// What to sign it with.
    pub secret: Option<Secret>,
    /// What to say.
    pub body: String,
    /// Which attempt this is, from 1.
    pub attempt: u64,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The receiver took it.
    Delivered,
    /// It did not arrive. It is tried again while there are attempts left.
    Failed {
        /// Why, for a person; no secrets.
        error: String,
    },
    /// It can never arrive, such as at an address that is forbidden.
    Refused {
        /// Why, for a person; no secrets.
        error: String,
    },
}

/// Where a delivery stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryState {
    /// It is tried again then.
    Waiting {
        /// When.
        next: Timestamp,
    },
    /// The receiver took it.
    Delivered,
    /// It was given up.
    Failed {
        /// What came of the last attempt.
        error: String,
    },
}

const INSERT: &str =
    "INSERT INTO webhook_deliveries (id, collection, task, run, url, sealed_secret,
    body, state, attempts, next_at, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, 'waiting', 0, $8, $8, $8)
    ON CONFLICT (collection, task, run) DO NOTHING";

/// A sender that died in the last attempt told nobody how it ended.
const GIVE_UP: &str = "UPDATE webhook_deliveries SET state = 'failed', updated_at = $2,
    last_error = COALESCE(last_error, 'the sender ended during the last attempt')
    WHERE state = 'waiting' AND attempts >= $1 AND next_at <= $2";
const CLAIM: &str = "UPDATE webhook_deliveries
    SET attempts = attempts + 1, next_at = $2, updated_at = $1
    WHERE id = (SELECT id FROM webhook_deliveries
        WHERE state = 'waiting' AND next_at <= $1 ORDER BY next_at, id LIMIT 1 {skip})
    RETURNING id, collection, task, run, url, sealed_secret, body, attempts";
const FINISH: &str = "UPDATE webhook_deliveries
    SET state = $3, next_at = $4, last_error = $5, updated_at = $6
    WHERE id = $1 AND attempts = $2 AND state = 'waiting'";
const ONE: &str = "SELECT * FROM webhook_deliveries
    WHERE collection = $1 AND task = $2 AND run = $3";
const NEXT: &str = "SELECT MIN(next_at) AS next_at FROM webhook_deliveries WHERE state = 'waiting'";
const PRUNE: &str = "DELETE FROM webhook_deliveries WHERE state <> 'waiting' AND updated_at < $1";

impl Catalog {
    /// Puts something into the outbox. A run that is in it stays as it is.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] for an unusable address or a body that is too long.
    pub async fn enqueue_delivery(
        &self,
        new: &NewDelivery,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        legal_url(Some(&new.url))?;
        if new.body.len() > MAX_BODY_BYTES {
            return Err(CatalogError::invalid(format!(
                "the message of a webhook has {} bytes: {MAX_BODY_BYTES} is the most",
                new.body.len()
            )));
        }
        let id = Uuid::now_v7();
        let seal = |secret: &Secret| self.vault.seal(secret.expose(), &place(id));
        let sealed = new.secret.as_ref().map(seal).transpose().map_err(CatalogError::Secret)?;
        let act = || CatalogError::act("put a webhook into the outbox");
        let mut tx = self.write().await?;
        super::collections::one(&mut tx, new.run.collection.as_str()).await?;
        sqlx::query(INSERT)
            .bind(id.to_string())
            .bind(new.run.collection.as_str())
            .bind(new.run.task.as_str())
            .bind(new.run.id.as_str())
            .bind(&new.url)
            .bind(sealed)
            .bind(&new.body)
            .bind(now.as_millisecond())
            .execute(&mut *tx)
            .await
            .map_err(act())?;
        tx.commit().await.map_err(act())
    }

    /// Claims the delivery that has waited longest, for one attempt. Whoever does not finish it in
    /// time loses it to the next who asks.
    ///
    /// # Errors
    /// When the database cannot be written or the secret cannot be opened.
    pub async fn claim_delivery(&self, now: Timestamp) -> Result<Option<Delivery>, CatalogError> {
        let act = || CatalogError::act("take a webhook from the outbox");
        let mut tx = self.write().await?;
        sqlx::query(GIVE_UP)
            .bind(number(MAX_ATTEMPTS))
            .bind(now.as_millisecond())
            .execute(&mut *tx)
            .await
            .map_err(act())?;
        let row = sqlx::query(self.database.sql(CLAIM))
            .bind(now.as_millisecond())
            .bind(later(now, CLAIM_LIMIT).as_millisecond())
            .fetch_optional(&mut *tx)
            .await
            .map_err(act())?;
        // Also without a row: something may have been given up.
        tx.commit().await.map_err(act())?;
        row.map(|row| self.delivery(&row)).transpose()
    }

    /// Notes what came of an attempt. Returns `false` when another sender has taken it over.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn finish_delivery(
        &self,
        delivery: &Delivery,
        outcome: DeliveryOutcome,
        now: Timestamp,
    ) -> Result<bool, CatalogError> {
        let retry = usize::try_from(delivery.attempt).ok().and_then(|n| n.checked_sub(1));
        let retry = retry.and_then(|n| RETRY_AFTER.get(n));
        let (state, next, error) = match (outcome, retry) {
            (DeliveryOutcome::Delivered, _) => ("delivered", now, None),
            (DeliveryOutcome::Failed { error }, Some(wait)) => {
                ("waiting", later(now, *wait), Some(error))
            }
            (DeliveryOutcome::Failed { error }, None) | (DeliveryOutcome::Refused { error }, _) => {
                ("failed", now, Some(error))
            }
        };
        let error = error.map(|error| error.chars().take(MAX_ERROR_CHARS).collect::<String>());
        let act = || CatalogError::act("note what came of a webhook");
        let mut tx = self.write().await?;
        let noted = sqlx::query(FINISH)
            .bind(delivery.id.to_string())
            .bind(number(delivery.attempt))
            .bind(state)
            .bind(next.as_millisecond())
            .bind(error)
            .bind(now.as_millisecond())
            .execute(&mut *tx)
            .await
            .map_err(act())?;
        tx.commit().await.map_err(act())?;
        Ok(noted.rows_affected() == 1)
    }

    /// Where the delivery about a run stands.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`] when nobody was to be told of it.
    pub async fn delivery_state(&self, run: &RunName) -> Result<DeliveryState, CatalogError> {
        let row = sqlx::query(ONE)
            .bind(run.collection.as_str())
            .bind(run.task.as_str())
            .bind(run.id.as_str())
            .fetch_optional(&mut *self.reader().await?)
            .await
            .map_err(CatalogError::act("look a webhook up"))?;
        let row = row.ok_or_else(|| CatalogError::not_found(Kind::Delivery, run))?;
        let row = Columns(&row);
        match row.get("state")? {
            "waiting" => Ok(DeliveryState::Waiting { next: row.time("next_at")? }),
            "delivered" => Ok(DeliveryState::Delivered),
            "failed" => {
                let error: Option<String> = row.get("last_error")?;
                Ok(DeliveryState::Failed { error: error.unwrap_or_default() })
            }
            other => Err(super::row::unreadable("state", other)),
        }
    }

    /// When the next delivery is to be tried; `None` when there is none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn next_delivery(&self) -> Result<Option<Timestamp>, CatalogError> {
        let row = sqlx::query(NEXT)
            .fetch_one(&mut *self.reader().await?)
            .await
            .map_err(CatalogError::act("look for the next webhook"))?;
        Columns(&row).maybe_time("next_at")
    }

    /// Forgets the deliveries that ended before `before`. Returns how many.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn prune_deliveries(&self, before: Timestamp) -> Result<u64, CatalogError> {
        let act = || CatalogError::act("forget old webhooks");
        let mut tx = self.write().await?;
        let pruned = sqlx::query(PRUNE)
            .bind(before.as_millisecond())
            .execute(&mut *tx)
            .await
            .map_err(act())?;
        tx.commit().await.map_err(act())?;
        Ok(pruned.rows_affected())
    }

    fn delivery(&self, row: &SqliteRow) -> Result<Delivery, CatalogError> {
        let row = Columns(row);
        let id: &str = row.get("id")?;
        let id: Uuid = id.parse().map_err(|_| super::row::unreadable("id", id))?;
        let run: &str = row.get("run")?;
        let sealed: Option<&str> = row.get("sealed_secret")?;
        let secret = sealed.map(|sealed| self.vault.open(sealed, &place(id))).transpose();
        Ok(Delivery {
            id,
            run: RunName {
                collection: row.slug("collection")?,
                task: row.slug("task")?,
                id: RunId::new(run).map_err(|_| super::row::unreadable("run", run))?,
            },
            url: row.get("url")?,
            secret: secret.map_err(CatalogError::Secret)?,
            body: row.get("body")?,
            attempt: row.count("attempts")?,
        })
    }
}

/// What a secret is sealed for: it cannot be opened as another delivery's.
fn place(id: Uuid) -> String {
    format!("delivery/{id}")
}

/// A later moment; at the end of the calendar the same.
fn later(now: Timestamp, wait: Duration) -> Timestamp {
    now.checked_add(wait).unwrap_or(now)
}
