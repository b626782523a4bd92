//! The environment of a collection: its names can be seen, its values are sealed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value};
use sqlx::SqliteConnection;

use super::Catalog;
use super::error::{CatalogError, Kind};
use super::row::{Columns, number};
use crate::run::Slug;
use crate::runbook::is_name;
use crate::secret::Secret;

/// Longest value, in bytes. Linux takes 128 KiB for one variable, its name included.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;

/// All names and values of a collection together, in bytes. A process gets at least 128 KiB and at
/// most a few megabytes for its environment and its arguments together.
pub const MAX_ENVIRONMENT_BYTES: usize = 512 * 1024;

/// Longest name, in bytes.
const MAX_NAME_BYTES: usize = 256;

const NAMES: &str = "SELECT name FROM environment_variables WHERE collection = $1 ORDER BY name";
const VALUES: &str =
    "SELECT name, sealed FROM environment_variables WHERE collection = $1 ORDER BY name";
const SET: &str =
    "INSERT INTO environment_variables (collection, name, sealed, n_bytes, updated_at)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (collection, name) DO UPDATE SET
    sealed = excluded.sealed, n_bytes = excluded.n_bytes, updated_at = excluded.updated_at";
const UNSET: &str = "DELETE FROM environment_variables WHERE collection = $1 AND name = $2";
const CLEAR: &str = "DELETE FROM environment_variables WHERE collection = $1";
const SIZE: &str = "SELECT CAST(COALESCE(SUM(n_bytes + LENGTH(name)), 0) AS BIGINT) AS size
    FROM environment_variables WHERE collection = $1";
const COLLECTION: &str = "SELECT name FROM collections WHERE name = $1";

/// What to do with one variable.
enum Change<'a> {
    Set(&'a str),
    Unset,
}

impl Catalog {
    /// The names of a collection's variables, sorted.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn environment_names(&self, collection: &Slug) -> Result<Vec<String>, CatalogError> {
        sqlx::query_scalar(NAMES)
            .bind(collection.as_str())
            .fetch_all(&mut *self.reader().await?)
            .await
            .map_err(CatalogError::act("list the variables of a collection"))
    }

    /// The variables of a collection with their values.
    ///
    /// # Errors
    /// [`CatalogError::Secret`] names the variable that cannot be opened and the key file.
    pub async fn environment(
        &self,
        collection: &Slug,
    ) -> Result<BTreeMap<String, Secret>, CatalogError> {
        let rows = sqlx::query(VALUES)
            .bind(collection.as_str())
            .fetch_all(&mut *self.reader().await?)
            .await
            .map_err(CatalogError::act("read the variables of a collection"))?;
        let open = |row| {
            let row = Columns(row);
            let (name, sealed): (String, &str) = (row.get("name")?, row.get("sealed")?);
            let place = place(collection, &name);
            let value = self.vault.open(sealed, &place).map_err(CatalogError::Secret)?;
            Ok((name, value))
        };
        rows.iter().map(open).collect()
    }

    /// Lays a patch over a collection's variables: a text sets one, a null removes one, the others
    /// stay. Either all of it is done or none. Returns the names that there are now.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] names the variable that is neither text nor null, has an illegal
    /// name, or is too long. [`CatalogError::NotFound`] when there is no such collection.
    pub async fn patch_environment(
        &self,
        collection: &Slug,
        patch: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<Vec<String>, CatalogError> {
        let changes = changes(patch)?;
        let mut tx = self.write().await?;
        known(&mut tx, collection).await?;
        for (name, change) in changes {
            self.apply(&mut tx, collection, (name, change), now).await?;
        }
        let act = || CatalogError::act("change the variables of a collection");
        let size: i64 = sqlx::query_scalar(SIZE)
            .bind(collection.as_str())
            .fetch_one(&mut *tx)
            .await
            .map_err(act())?;
        if size > number(MAX_ENVIRONMENT_BYTES as u64) {
            return Err(CatalogError::invalid(format!(
                "the environment variables of the collection would have {size} bytes together: \
                 {MAX_ENVIRONMENT_BYTES} is the most. Remove some by setting them to null"
            )));
        }
        let names = sqlx::query_scalar(NAMES)
            .bind(collection.as_str())
            .fetch_all(&mut *tx)
            .await
            .map_err(act())?;
        tx.commit().await.map_err(act())?;
        Ok(names)
    }

    /// Removes every variable of a collection.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`] when there is no such collection.
    pub async fn clear_environment(&self, collection: &Slug) -> Result<(), CatalogError> {
        let act = || CatalogError::act("remove the variables of a collection");
        let mut tx = self.write().await?;
        known(&mut tx, collection).await?;
        sqlx::query(CLEAR).bind(collection.as_str()).execute(&mut *tx).await.map_err(act())?;
        tx.commit().await.map_err(act())
    }

    async fn apply(
        &self,
        connection: &mut SqliteConnection,
        collection: &Slug,
        (name, change): (&str, Change<'_>),
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let query = match change {
            Change::Unset => sqlx::query(UNSET).bind(collection.as_str()).bind(name),
            Change::Set(value) => {
                let sealed = self.vault.seal(value, &place(collection, name));
                sqlx::query(SET)
                    .bind(collection.as_str())
                    .bind(name)
                    .bind(sealed.map_err(CatalogError::Secret)?)
                    .bind(number(value.len() as u64))
                    .bind(now.as_millisecond())
            }
        };
        let act = CatalogError::act("change the variables of a collection");
        query.execute(connection).await.map_err(act).map(|_| ())
    }
}

/// What a value is sealed for: it cannot be opened as another variable's.
fn place(collection: &Slug, name: &str) -> String {
    format!("environment/{collection}/{name}")
}

async fn known(connection: &mut SqliteConnection, collection: &Slug) -> Result<(), CatalogError> {
    let found: Option<String> = sqlx::query_scalar(COLLECTION)
        .bind(collection.as_str())
        .fetch_optional(connection)
        .await
        .map_err(CatalogError::act("look a collection up"))?;
    found.map(|_| ()).ok_or_else(|| CatalogError::not_found(Kind::Collection, collection))
}

/// What a patch does, unless something in it cannot be done.
fn changes(patch: &Map<String, Value>) -> Result<Vec<(&str, Change<'_>)>, CatalogError> {
    let change = |(name, value)| Ok((String::as_str(name), change(name, value)?));
    patch.iter().map(change).collect()
}

fn change<'a>(name: &str, value: &'a Value) -> Result<Change<'a>, CatalogError> {
    let problem = match value {
        // A name that is not legal cannot be there, so removing it does nothing.
        Value::Null => return Ok(Change::Unset),
        _ if name.len() > MAX_NAME_BYTES || !is_name(name) => {
            let shown: String = name.chars().take(MAX_NAME_BYTES).collect();
            format!(
                "the environment variable name `{shown}` is not usable: write up to \
                 {MAX_NAME_BYTES} letters, digits and `_`, not beginning with a digit"
            )
        }
        Value::String(text) if text.len() > MAX_VALUE_BYTES => format!(
            "the environment variable `{name}` has {} bytes: write at most {MAX_VALUE_BYTES}",
            text.len()
        ),
        Value::String(text) if text.contains('\0') => format!(
            "the environment variable `{name}` holds a NUL byte, which no environment can carry"
        ),
        Value::String(text) => return Ok(Change::Set(text)),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => format!(
            "the environment variable `{name}` must be a text, or null to remove it: put other \
             values in quotes"
        ),
    };
    Err(CatalogError::invalid(problem))
}
