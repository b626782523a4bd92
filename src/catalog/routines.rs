//! Routines: tasks that run by a cadence.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;
use url::Url;
use uuid::Uuid;

use super::Catalog;
use super::error::{CatalogError, Kind};
use super::row::{Columns, folded, unreadable};
use super::tasks;
use crate::cadence::Cadence;
use crate::run::Slug;
use crate::runbook::is_name;
use crate::secret::Secret;
use crate::workflow::Workflow;

/// Longest URL of a webhook, in bytes. Servers refuse longer ones.
const MAX_URL_BYTES: usize = 2048;

/// Longest overrides, and longest secret parameters, in bytes of JSON.
const MAX_PARAMS_BYTES: usize = 1 << 20;

/// A task with a cadence.
#[derive(Debug, Clone, PartialEq)]
pub struct Routine {
    /// Its id, which its runs carry.
    pub id: Uuid,
    /// The collection of its task.
    pub collection: Slug,
    /// Its task.
    pub task: Slug,
    /// Its name, unique among its task's routines.
    pub name: Slug,
    /// When it runs.
    pub cadence: Cadence,
    /// What is laid over the task's parameters.
    pub overrides: Map<String, Value>,
    /// Whether it has secret parameters.
    pub has_secret_params: bool,
    /// Whether it is stopped for now.
    pub paused: bool,
    /// Who is told when a run ends.
    pub webhook_url: Option<String>,
    /// When it runs next; `None` when it is paused or runs only by hand.
    pub next_run: Option<Timestamp>,
    /// Since when it is.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
    /// Everything up to here is done with.
    pub(super) last_slot: Timestamp,
    /// Grows when it begins to run at other times.
    pub(super) revision: u64,
}

/// A routine to make.
#[derive(Debug, Clone)]
pub struct NewRoutine {
    /// Its name.
    pub name: String,
    /// When it runs.
    pub cadence: Cadence,
    /// What is laid over the task's parameters: only keys that the task declares.
    pub overrides: Map<String, Value>,
    /// Values for the environment of its runs.
    pub secret_params: BTreeMap<String, Secret>,
    /// Whether it begins paused.
    pub paused: bool,
    /// Who is told when a run ends.
    pub webhook_url: Option<String>,
    /// What the message is signed with.
    pub webhook_secret: Option<Secret>,
}

/// What to change about a routine. `None` leaves a part as it is.
#[derive(Debug, Clone, Default)]
pub struct RoutinePatch {
    /// When it runs.
    pub cadence: Option<Cadence>,
    /// All overrides.
    pub overrides: Option<Map<String, Value>>,
    /// All secret parameters; empty removes them.
    pub secret_params: Option<BTreeMap<String, Secret>>,
    /// Whether it is stopped for now. Slots that pass meanwhile are not made up for.
    pub paused: Option<bool>,
    /// Who is told; `Some(None)` removes it.
    pub webhook_url: Option<Option<String>>,
    /// What the message is signed with; `Some(None)` removes it.
    pub webhook_secret: Option<Option<Secret>>,
}

/// What a routine keeps sealed.
#[derive(Debug, Clone, Default)]
pub struct RoutineSecrets {
    /// Values for the environment of its runs.
    pub params: BTreeMap<String, Secret>,
    /// What the message is signed with.
    pub webhook_secret: Option<Secret>,
}

const OF_COLLECTION: &str = "SELECT routines.*, tasks.name AS task_name FROM routines
    JOIN tasks ON tasks.collection = routines.collection AND tasks.folded = routines.task
    WHERE routines.collection = $1 ORDER BY routines.task, routines.folded";
const OF_TASK: &str = "SELECT routines.*, tasks.name AS task_name FROM routines
    JOIN tasks ON tasks.collection = routines.collection AND tasks.folded = routines.task
    WHERE routines.collection = $1 AND routines.task = $2 ORDER BY routines.folded";
const ONE: &str = "SELECT routines.*, tasks.name AS task_name FROM routines
    JOIN tasks ON tasks.collection = routines.collection AND tasks.folded = routines.task
    WHERE routines.collection = $1 AND routines.task = $2 AND routines.folded = $3";
const SEALED: &str = "SELECT sealed_params, sealed_webhook_secret FROM routines WHERE id = $1";
const INSERT: &str = "INSERT INTO routines (id, collection, task, folded, name, cadence, overrides,
    sealed_params, paused, webhook_url, sealed_webhook_secret, last_slot, next_slot, revision,
    created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 0, $12, $12)
    ON CONFLICT (collection, task, folded) DO NOTHING";
const UPDATE: &str = "UPDATE routines SET cadence = $2, overrides = $3, paused = $4,
    webhook_url = $5, last_slot = $6, next_slot = $7, revision = $8, updated_at = $9 WHERE id = $1";
const SET_PARAMS: &str = "UPDATE routines SET sealed_params = $2 WHERE id = $1";
const SET_WEBHOOK_SECRET: &str = "UPDATE routines SET sealed_webhook_secret = $2 WHERE id = $1";
const DELETE: &str = "DELETE FROM routines WHERE collection = $1 AND task = $2 AND folded = $3";

impl Catalog {
    /// The routines of a collection, or of one task in it, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn routines(
        &self,
        collection: &Slug,
        task: Option<&str>,
    ) -> Result<Vec<Routine>, CatalogError> {
        let query = match task {
            Some(task) => sqlx::query(OF_TASK).bind(collection.as_str()).bind(folded(task)),
            None => sqlx::query(OF_COLLECTION).bind(collection.as_str()),
        };
        let rows = query
            .fetch_all(&mut *self.reader().await?)
            .await
            .map_err(CatalogError::act("list routines"))?;
        rows.iter().map(routine).collect()
    }

    /// One routine, by the names of its task and its own, whatever their case.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`].
    pub async fn routine(
        &self,
        collection: &Slug,
        task: &str,
        name: &str,
    ) -> Result<Routine, CatalogError> {
        one(&mut *self.reader().await?, collection, task, name).await
    }

    /// What a routine keeps sealed.
    ///
    /// # Errors
    /// [`CatalogError::Secret`] when the key file is not the one it was sealed with.
    pub async fn routine_secrets(&self, routine: &Routine) -> Result<RoutineSecrets, CatalogError> {
        let row = sqlx::query(SEALED)
            .bind(routine.id.to_string())
            .fetch_optional(&mut *self.reader().await?)
            .await
            .map_err(CatalogError::act("read the secrets of a routine"))?;
        let row = row.ok_or_else(|| CatalogError::not_found(Kind::Routine, &routine.name))?;
        let row = Columns(&row);
        let open = |sealed: Option<&str>, what| {
            let opened = sealed.map(|sealed| self.vault.open(sealed, &place(routine.id, what)));
            opened.transpose().map_err(CatalogError::Secret)
        };
        let params = match open(row.get("sealed_params")?, PARAMS)? {
            Some(json) => opened_params(&json)?,
            None => BTreeMap::new(),
        };
        let webhook_secret = open(row.get("sealed_webhook_secret")?, WEBHOOK_SECRET)?;
        Ok(RoutineSecrets { params, webhook_secret })
    }

    /// Makes a routine. It runs for the first time at the first slot after `now`.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`] when there is no such task, [`CatalogError::Exists`],
    /// [`CatalogError::Invalid`] with the override keys that the task does not declare.
    pub async fn create_routine(
        &self,
        collection: &Slug,
        task: &str,
        new: NewRoutine,
        now: Timestamp,
    ) -> Result<Routine, CatalogError> {
        let name = Slug::new(&new.name).map_err(|e| CatalogError::invalid(e.to_string()))?;
        legal_url(new.webhook_url.as_deref())?;
        let id = Uuid::new_v4();
        let sealed_params = self.sealed_params(id, &new.secret_params)?;
        let sealed_secret = self.sealed_secret(id, new.webhook_secret.as_ref())?;
        let act = || CatalogError::act("make a routine");
        let mut tx = self.write().await?;
        let task = tasks::one(&mut tx, collection, task).await?;
        legal_overrides(&task.workflow, &new.overrides)?;
        let next = new.cadence.next_after(now).map(Timestamp::as_millisecond);
        let inserted = sqlx::query(INSERT)
            .bind(id.to_string())
            .bind(collection.as_str())
            .bind(folded(task.name.as_str()))
            .bind(folded(name.as_str()))
            .bind(name.as_str())
            .bind(new.cadence.to_json().to_string())
            .bind(Value::Object(new.overrides).to_string())
            .bind(sealed_params)
            .bind(i64::from(new.paused))
            .bind(&new.webhook_url)
            .bind(sealed_secret)
            .bind(now.as_millisecond())
            .bind(next)
            .execute(&mut *tx)
            .await
            .map_err(act())?;
        if inserted.rows_affected() == 0 {
            return Err(CatalogError::exists(Kind::Routine, name));
        }
        let made = one(&mut tx, collection, task.name.as_str(), name.as_str()).await?;
        tx.commit().await.map_err(act())?;
        Ok(made)
    }

    /// Changes a routine. When it begins to run at other times, or again, it first runs at the
    /// first slot after `now`.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`], [`CatalogError::Invalid`].
    pub async fn update_routine(
        &self,
        (collection, task, name): (&Slug, &str, &str),
        patch: RoutinePatch,
        now: Timestamp,
    ) -> Result<Routine, CatalogError> {
        let mut tx = self.write().await?;
        let old = one(&mut tx, collection, task, name).await?;
        if let Some(overrides) = &patch.overrides {
            let task = tasks::one(&mut tx, collection, task).await?;
            legal_overrides(&task.workflow, overrides)?;
        }
        self.change_secrets(&mut tx, old.id, &patch).await?;
        let new = patched(old, patch, now)?;
        let next = new.cadence.next_after(new.last_slot);
        let act = || CatalogError::act("change a routine");
        sqlx::query(UPDATE)
            .bind(new.id.to_string())
            .bind(new.cadence.to_json().to_string())
            .bind(Value::Object(new.overrides).to_string())
            .bind(i64::from(new.paused))
            .bind(&new.webhook_url)
            .bind(new.last_slot.as_millisecond())
            .bind(next.map(Timestamp::as_millisecond))
            .bind(super::row::number(new.revision))
            .bind(now.as_millisecond())
            .execute(&mut *tx)
            .await
            .map_err(act())?;
        let kept = one(&mut tx, collection, task, name).await?;
        tx.commit().await.map_err(act())?;
        Ok(kept)
    }

    /// Removes a routine. Its runs stay.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`].
    pub async fn delete_routine(
        &self,
        collection: &Slug,
        task: &str,
        name: &str,
    ) -> Result<(), CatalogError> {
        let act = || CatalogError::act("remove a routine");
        let mut tx = self.write().await?;
        let removed = sqlx::query(DELETE)
            .bind(collection.as_str())
            .bind(folded(task))
            .bind(folded(name))
            .execute(&mut *tx)
            .await
            .map_err(act())?;
        if removed.rows_affected() == 0 {
            return Err(CatalogError::not_found(Kind::Routine, name));
        }
        tx.commit().await.map_err(act())
    }

    async fn change_secrets(
        &self,
        connection: &mut SqliteConnection,
        id: Uuid,
        patch: &RoutinePatch,
    ) -> Result<(), CatalogError> {
        let act = || CatalogError::act("change the secrets of a routine");
        if let Some(params) = &patch.secret_params {
            let sealed = self.sealed_params(id, params)?;
            let query = sqlx::query(SET_PARAMS).bind(id.to_string()).bind(sealed);
            query.execute(&mut *connection).await.map_err(act())?;
        }
        if let Some(secret) = &patch.webhook_secret {
            let sealed = self.sealed_secret(id, secret.as_ref())?;
            let query = sqlx::query(SET_WEBHOOK_SECRET).bind(id.to_string()).bind(sealed);
            query.execute(&mut *connection).await.map_err(act())?;
        }
        Ok(())
    }

    fn sealed_params(
        &self,
        id: Uuid,
        params: &BTreeMap<String, Secret>,
    ) -> Result<Option<String>, CatalogError> {
        if params.is_empty() {
            return Ok(None);
        }
        if let Some(name) = params.keys().find(|name| !is_name(name)) {
            return Err(CatalogError::invalid(format!(
                "the secret parameter `{name}` cannot be an environment variable: write letters, \
                 digits and `_`, not beginning with a digit"
            )));
        }
        let values = params.iter().map(|(name, value)| (name.clone(), value.expose().into()));
        let json = Secret::new(Value::Object(values.collect()).to_string());
        if json.expose().len() > MAX_PARAMS_BYTES {
            return Err(CatalogError::invalid(format!(
                "`secret_params` has {} bytes: send at most {MAX_PARAMS_BYTES}",
                json.expose().len()
            )));
        }
        let sealed = self.vault.seal(json.expose(), &place(id, PARAMS));
        sealed.map(Some).map_err(CatalogError::Secret)
    }

    fn sealed_secret(
        &self,
        id: Uuid,
        secret: Option<&Secret>,
    ) -> Result<Option<String>, CatalogError> {
        let seal = |secret: &Secret| self.vault.seal(secret.expose(), &place(id, WEBHOOK_SECRET));
        secret.map(seal).transpose().map_err(CatalogError::Secret)
    }
}

const PARAMS: &str = "secret_params";
const WEBHOOK_SECRET: &str = "webhook_secret";

/// What a value is sealed for: it cannot be opened as another routine's.
fn place(id: Uuid, what: &str) -> String {
    format!("routine/{id}/{what}")
}

fn opened_params(json: &Secret) -> Result<BTreeMap<String, Secret>, CatalogError> {
    let params: BTreeMap<String, String> = serde_json::from_str(json.expose())
        .map_err(|_| unreadable("sealed_params", "not an object of texts"))?;
    Ok(params.into_iter().map(|(name, value)| (name, Secret::new(value))).collect())
}

/// A routine with a patch over it.
fn patched(old: Routine, patch: RoutinePatch, now: Timestamp) -> Result<Routine, CatalogError> {
    let webhook_url = patch.webhook_url.unwrap_or(old.webhook_url);
    legal_url(webhook_url.as_deref())?;
    let cadence = patch.cadence.unwrap_or_else(|| old.cadence.clone());
    let paused = patch.paused.unwrap_or(old.paused);
    let begins_anew = cadence != old.cadence || paused != old.paused;
    Ok(Routine {
        // A clock that was set back must not let a slot be claimed again.
        last_slot: if begins_anew { old.last_slot.max(now) } else { old.last_slot },
        revision: old.revision + u64::from(begins_anew),
        overrides: patch.overrides.unwrap_or(old.overrides),
        cadence,
        paused,
        webhook_url,
        ..old
    })
}

/// Nobody watches a routine's run begin, so a key that would do nothing is refused here.
fn legal_overrides(workflow: &Value, overrides: &Map<String, Value>) -> Result<(), CatalogError> {
    let n_bytes = serde_json::to_string(overrides).map_or(0, |json| json.len());
    if n_bytes > MAX_PARAMS_BYTES {
        return Err(CatalogError::invalid(format!(
            "`init_params_overrides` has {n_bytes} bytes: send at most {MAX_PARAMS_BYTES}"
        )));
    }
    let workflow = Workflow::parse(workflow).map_err(|e| {
        CatalogError::invalid(format!("the task's workflow cannot be run, so mend it first: {e}"))
    })?;
    let undeclared = workflow.undeclared(overrides);
    if undeclared.is_empty() {
        return Ok(());
    }
    let named = |keys: &mut dyn Iterator<Item = &String>| {
        keys.map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
    };
    let declared = named(&mut workflow.init_params().keys());
    let declared = if declared.is_empty() { "none".to_owned() } else { declared };
    Err(CatalogError::invalid(format!(
        "`init_params_overrides` has keys that the task's `init_params` do not declare: {}. \
         Declared: {declared}",
        named(&mut undeclared.iter())
    )))
}

/// Whether a webhook's address can be one at all. Whether it may be reached is decided when it is.
pub(super) fn legal_url(url: Option<&str>) -> Result<(), CatalogError> {
    let Some(url) = url else { return Ok(()) };
    let parsed = Url::parse(url)
        .ok()
        .filter(|parsed| matches!(parsed.scheme(), "http" | "https") && parsed.has_host());
    if parsed.is_some() && url.len() <= MAX_URL_BYTES {
        return Ok(());
    }
    // The address is not repeated: it may hold a token.
    Err(CatalogError::invalid(format!(
        "`webhook_url` is not usable: write an address such as `https://example.com/hook` of at \
         most {MAX_URL_BYTES} bytes"
    )))
}

async fn one(
    connection: &mut SqliteConnection,
    collection: &Slug,
    task: &str,
    name: &str,
) -> Result<Routine, CatalogError> {
    let row = sqlx::query(ONE)
        .bind(collection.as_str())
        .bind(folded(task))
        .bind(folded(name))
        .fetch_optional(connection)
        .await
        .map_err(CatalogError::act("look a routine up"))?;
    row.as_ref().map_or_else(|| Err(CatalogError::not_found(Kind::Routine, name)), routine)
}

pub(super) fn routine(row: &SqliteRow) -> Result<Routine, CatalogError> {
    let row = Columns(row);
    let id: &str = row.get("id")?;
    let cadence = Cadence::parse(&row.json("cadence")?).map_err(|e| unreadable("cadence", e))?;
    let Value::Object(overrides) = row.json("overrides")? else {
        return Err(unreadable("overrides", "not an object"));
    };
    let sealed_params: Option<&str> = row.get("sealed_params")?;
    let paused = row.flag("paused")?;
    Ok(Routine {
        id: id.parse().map_err(|_| unreadable("id", id))?,
        collection: row.slug("collection")?,
        task: row.slug("task_name")?,
        name: row.slug("name")?,
        cadence,
        overrides,
        has_secret_params: sealed_params.is_some(),
        paused,
        webhook_url: row.get("webhook_url")?,
        next_run: row.maybe_time("next_slot")?.filter(|_| !paused),
        created: row.time("created_at")?,
        updated: row.time("updated_at")?,
        last_slot: row.time("last_slot")?,
        revision: row.count("revision")?,
    })
}
