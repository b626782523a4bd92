//! Collections: the tenants, each with its settings.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::Catalog;
use super::error::{CatalogError, Kind};
use super::row::{Columns, Page, next_number, unreadable};
use crate::run::Slug;

/// Shortest and longest name of a collection, in bytes: as the hosted service has it.
const NAME_BYTES: std::ops::RangeInclusive<usize> = 3..=48;

/// Longest description of anything, in bytes. It is for people, in lists.
const MAX_DESCRIPTION_BYTES: usize = 16 * 1024;

/// Keys whose values are hidden in records. A list for people, so it is short.
const MAX_REDACTED_KEYS: usize = 256;

/// A collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    /// Its name, in lower case. It never changes.
    pub name: Slug,
    /// Its number on the wire.
    pub number: u64,
    /// What it is for.
    pub description: Option<String>,
    /// How many of its runs may live at once, where it has a limit of its own.
    pub concurrency: Option<u32>,
    /// Keys of parameters whose values are hidden in records.
    pub redacted_param_keys: Vec<String>,
    /// Since when it is.
    pub created: Timestamp,
}

/// What to change about a collection. `None` leaves a part as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectionPatch {
    /// The description; `Some(None)` removes it.
    pub description: Option<Option<String>>,
    /// The limit on its runs, from 1; `Some(None)` removes it.
    pub concurrency: Option<Option<u32>>,
    /// The keys whose values are hidden.
    pub redacted_param_keys: Option<Vec<String>>,
}

const ALL: &str = "SELECT * FROM collections ORDER BY name LIMIT $1 OFFSET $2";
const ONE: &str = "SELECT * FROM collections WHERE name = $1";
const INSERT: &str = "INSERT INTO collections
    (name, number, description, concurrency, redacted_param_keys, created_at)
    VALUES ($1, $2, $3, NULL, '[]', $4) ON CONFLICT (name) DO NOTHING";
const UPDATE: &str = "UPDATE collections
    SET description = $2, concurrency = $3, redacted_param_keys = $4 WHERE name = $1";
const DELETE: &str = "DELETE FROM collections WHERE name = $1";
const DELETE_TOKENS: &str = "DELETE FROM api_tokens WHERE scope = $1";
const LIMITS: &str = "SELECT name, concurrency FROM collections WHERE concurrency IS NOT NULL";

impl Catalog {
    /// Every collection, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn collections(&self, page: Page) -> Result<Vec<Collection>, CatalogError> {
        let rows = sqlx::query(ALL)
            .bind(page.limit())
            .bind(page.skip())
            .fetch_all(&mut *self.reader().await?)
            .await
            .map_err(CatalogError::act("list the collections"))?;
        rows.iter().map(collection).collect()
    }

    /// The collection of that name, whatever its case.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`].
    pub async fn collection(&self, name: &str) -> Result<Collection, CatalogError> {
        one(&mut *self.reader().await?, name).await
    }

    /// Makes a collection.
    ///
    /// # Errors
    /// [`CatalogError::Exists`] whatever the case, [`CatalogError::Invalid`].
    pub async fn create_collection(
        &self,
        name: &str,
        description: Option<&str>,
        now: Timestamp,
    ) -> Result<Collection, CatalogError> {
        let legal = legal_name(name)?;
        legal_description(description)?;
        let mut tx = self.write().await?;
        if !insert(&mut tx, &legal, description, now).await? {
            return Err(CatalogError::exists(Kind::Collection, name));
        }
        let made = one(&mut tx, name).await?;
        tx.commit().await.map_err(CatalogError::act("make a collection"))?;
        Ok(made)
    }

    /// The collection of that name, made where it is missing.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] when there is none and there cannot be one of this name.
    pub async fn ensure_collection(
        &self,
        name: &str,
        now: Timestamp,
    ) -> Result<Collection, CatalogError> {
        match self.collection(name).await {
            Err(CatalogError::NotFound { .. }) => {}
            found => return found,
        }
        let legal = legal_name(name)?;
        let mut tx = self.write().await?;
        // Another one may have made it since.
        insert(&mut tx, &legal, None, now).await?;
        let made = one(&mut tx, name).await?;
        tx.commit().await.map_err(CatalogError::act("make a collection"))?;
        Ok(made)
    }

    /// Changes a collection's settings.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`], [`CatalogError::Invalid`].
    pub async fn update_collection(
        &self,
        name: &Slug,
        patch: CollectionPatch,
    ) -> Result<Collection, CatalogError> {
        legal_patch(&patch)?;
        let mut tx = self.write().await?;
        let old = one(&mut tx, name.as_str()).await?;
        let new = Collection {
            description: patch.description.unwrap_or(old.description),
            concurrency: patch.concurrency.unwrap_or(old.concurrency),
            redacted_param_keys: patch.redacted_param_keys.unwrap_or(old.redacted_param_keys),
            ..old
        };
        let act = || CatalogError::act("change a collection");
        sqlx::query(UPDATE)
            .bind(new.name.as_str())
            .bind(&new.description)
            .bind(new.concurrency.map(i64::from))
            .bind(serde_json::Value::from(new.redacted_param_keys.clone()).to_string())
            .execute(&mut *tx)
            .await
            .map_err(act())?;
        tx.commit().await.map_err(act())?;
        Ok(new)
    }

    /// Removes a collection and everything in it that the catalog knows. The results directory and
    /// the list of runs are not touched.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`].
    pub async fn delete_collection(&self, name: &Slug) -> Result<(), CatalogError> {
        let act = || CatalogError::act("remove a collection");
        let mut tx = self.write().await?;
        let removed =
            sqlx::query(DELETE).bind(name.as_str()).execute(&mut *tx).await.map_err(act())?;
        if removed.rows_affected() == 0 {
            return Err(CatalogError::not_found(Kind::Collection, name));
        }
        // Tokens are bound to a scope, which may be the whole server, so nothing cascades to them.
        sqlx::query(DELETE_TOKENS).bind(name.as_str()).execute(&mut *tx).await.map_err(act())?;
        tx.commit().await.map_err(act())
    }

    /// How many runs may live at once in the collections that have a limit of their own.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn concurrency_limits(&self) -> Result<BTreeMap<Slug, u32>, CatalogError> {
        let rows = sqlx::query(LIMITS)
            .fetch_all(&mut *self.reader().await?)
            .await
            .map_err(CatalogError::act("list the limits of the collections"))?;
        let limit = |row: &SqliteRow| {
            let limit = Columns(row).count("concurrency")?;
            let limit = u32::try_from(limit).map_err(|_| unreadable("concurrency", limit))?;
            Ok((Columns(row).slug("name")?, limit))
        };
        rows.iter().map(limit).collect()
    }
}

/// The collection of that name, whatever its case.
pub(super) async fn one(
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<Collection, CatalogError> {
    let row = sqlx::query(ONE)
        .bind(name.to_ascii_lowercase())
        .fetch_optional(connection)
        .await
        .map_err(CatalogError::act("look a collection up"))?;
    row.as_ref().map_or_else(|| Err(CatalogError::not_found(Kind::Collection, name)), collection)
}

/// Whether the row was new.
async fn insert(
    connection: &mut SqliteConnection,
    name: &Slug,
    description: Option<&str>,
    now: Timestamp,
) -> Result<bool, CatalogError> {
    let number = next_number(connection, "collection").await?;
    let inserted = sqlx::query(INSERT)
        .bind(name.as_str())
        .bind(number)
        .bind(description)
        .bind(now.as_millisecond())
        .execute(connection)
        .await
        .map_err(CatalogError::act("make a collection"))?;
    Ok(inserted.rows_affected() == 1)
}

fn collection(row: &SqliteRow) -> Result<Collection, CatalogError> {
    let row = Columns(row);
    let concurrency: Option<i64> = row.get("concurrency")?;
    let concurrency = concurrency
        .map(|n| u32::try_from(n).map_err(|_| unreadable("concurrency", n)))
        .transpose()?;
    let keys = row.json("redacted_param_keys")?;
    Ok(Collection {
        name: row.slug("name")?,
        number: row.count("number")?,
        description: row.get("description")?,
        concurrency,
        redacted_param_keys: serde_json::from_value(keys)
            .map_err(|_| unreadable("redacted_param_keys", "not a list of texts"))?,
        created: row.time("created_at")?,
    })
}

/// The name in lower case: it is the same name in any case, and a folder on disk.
fn legal_name(name: &str) -> Result<Slug, CatalogError> {
    let folded = name.to_ascii_lowercase();
    let is_legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
    let fits = NAME_BYTES.contains(&name.len()) && folded.bytes().all(is_legal);
    Slug::new(&folded).ok().filter(|_| fits).ok_or_else(|| {
        let shown: String = name.chars().take(2 * NAME_BYTES.end()).collect();
        CatalogError::invalid(format!(
            "the collection name `{shown}` is not usable: write {} to {} characters of `a` to `z`, \
             `0` to `9`, `_` and `-`",
            NAME_BYTES.start(),
            NAME_BYTES.end()
        ))
    })
}

pub(super) fn legal_description(description: Option<&str>) -> Result<(), CatalogError> {
    match description {
        Some(text) if text.len() > MAX_DESCRIPTION_BYTES => Err(CatalogError::invalid(format!(
            "the description has {} bytes: write at most {MAX_DESCRIPTION_BYTES}",
            text.len()
        ))),
        Some(_) | None => Ok(()),
    }
}

fn legal_patch(patch: &CollectionPatch) -> Result<(), CatalogError> {
    legal_description(patch.description.as_ref().and_then(Option::as_deref))?;
    if patch.concurrency == Some(Some(0)) {
        return Err(CatalogError::invalid(
            "the concurrency limit is 0: write at least 1, or null for the server's own limit",
        ));
    }
    let n_keys = patch.redacted_param_keys.as_ref().map_or(0, Vec::len);
    if n_keys > MAX_REDACTED_KEYS {
        return Err(CatalogError::invalid(format!(
            "`redacted_param_keys` names {n_keys} keys: write at most {MAX_REDACTED_KEYS}"
        )));
    }
    Ok(())
}
