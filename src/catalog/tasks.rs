//! Tasks: a name for a workflow inside a collection.

use jiff::Timestamp;
use serde_json::Value;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::Catalog;
use super::collections::legal_description;
use super::error::{CatalogError, Kind};
use super::row::{Columns, Page, folded, next_number, unreadable};
use super::uploads::SANDBOX_FOLDER;
use crate::run::Slug;
use crate::workflow::Workflow;

/// Longest workflow, in bytes of JSON. The longest public runbook has 40 thousand; a workflow holds
/// a few of them and their parameters.
const MAX_WORKFLOW_BYTES: usize = 4 << 20;

/// Longest Croissant metadata, in bytes of JSON. It is kept for others and not read.
const MAX_METADATA_BYTES: usize = 1 << 20;

/// Longest version, in bytes. It is for people.
const MAX_VERSION_BYTES: usize = 256;

/// A task.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The collection that it belongs to.
    pub collection: Slug,
    /// Its name as it was first written.
    pub name: Slug,
    /// Its number on the wire.
    pub number: u64,
    /// What it is for.
    pub description: String,
    /// Its workflow as it was written. It was legal when it was written.
    pub workflow: Value,
    /// What clients noted about it.
    pub flags: TaskFlags,
    /// The version that its author gives it.
    pub version: Option<String>,
    /// Croissant metadata, kept as it came.
    pub croissant_metadata: Option<Value>,
    /// Since when it is.
    pub created: Timestamp,
    /// When it was last changed, if ever.
    pub updated: Option<Timestamp>,
}

/// What clients note about a task. It is kept and given back; only `is_private` means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskFlags {
    /// Whether it can be read only with a token.
    pub is_private: bool,
    /// Whether a chat made it.
    pub is_chat_flow: bool,
    /// Whether it takes files.
    pub has_file_uploads: bool,
}

/// A task to make.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTask {
    /// Its name.
    pub name: String,
    /// Its workflow.
    pub workflow: Workflow,
    /// What it is for.
    pub description: String,
    /// What clients note about it.
    pub flags: TaskFlags,
    /// The version that its author gives it.
    pub version: Option<String>,
    /// Croissant metadata.
    pub croissant_metadata: Option<Value>,
}

/// What to change about a task. `None` leaves a part as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TaskPatch {
    /// The name. Clients send it back as it is; another one is refused.
    pub name: Option<String>,
    /// The workflow.
    pub workflow: Option<Workflow>,
    /// The description.
    pub description: Option<String>,
    /// Whether it can be read only with a token.
    pub is_private: Option<bool>,
    /// Whether a chat made it.
    pub is_chat_flow: Option<bool>,
    /// Whether it takes files.
    pub has_file_uploads: Option<bool>,
    /// The version.
    pub version: Option<String>,
    /// Croissant metadata.
    pub croissant_metadata: Option<Value>,
}

const ALL: &str = "SELECT * FROM tasks WHERE collection = $1 ORDER BY folded LIMIT $2 OFFSET $3";
const ONE: &str = "SELECT * FROM tasks WHERE collection = $1 AND folded = $2";
const INSERT: &str = "INSERT INTO tasks (collection, folded, name, number, description, workflow,
    is_private, is_chat_flow, has_file_uploads, version, croissant_metadata, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    ON CONFLICT (collection, folded) DO NOTHING";
const UPDATE: &str = "UPDATE tasks SET description = $3, workflow = $4, is_private = $5,
    is_chat_flow = $6, has_file_uploads = $7, version = $8, croissant_metadata = $9,
    updated_at = $10 WHERE collection = $1 AND folded = $2";
const DELETE: &str = "DELETE FROM tasks WHERE collection = $1 AND folded = $2";

impl Default for TaskFlags {
    /// As the hosted service has it: private, and nothing else.
    fn default() -> Self {
        Self { is_private: true, is_chat_flow: false, has_file_uploads: false }
    }
}

impl NewTask {
    /// A task with nothing but its name and its workflow.
    #[must_use]
    pub fn new(name: &str, workflow: Workflow) -> Self {
        Self {
            name: name.to_owned(),
            workflow,
            description: String::new(),
            flags: TaskFlags::default(),
            version: None,
            croissant_metadata: None,
        }
    }
}

impl Catalog {
    /// The tasks of a collection, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn tasks(&self, collection: &Slug, page: Page) -> Result<Vec<Task>, CatalogError> {
        let rows = sqlx::query(ALL)
            .bind(collection.as_str())
            .bind(page.limit())
            .bind(page.skip())
            .fetch_all(&mut *self.reader().await?)
            .await
            .map_err(CatalogError::act("list the tasks of a collection"))?;
        rows.iter().map(task).collect()
    }

    /// The task of that name, whatever its case.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`].
    pub async fn task(&self, collection: &Slug, name: &str) -> Result<Task, CatalogError> {
        one(&mut *self.reader().await?, collection, name).await
    }

    /// Makes a task.
    ///
    /// # Errors
    /// [`CatalogError::Exists`] whatever the case, [`CatalogError::Invalid`],
    /// [`CatalogError::NotFound`] when there is no such collection.
    pub async fn create_task(
        &self,
        collection: &Slug,
        new: NewTask,
        now: Timestamp,
    ) -> Result<Task, CatalogError> {
        let mut tx = self.write().await?;
        if !insert(&mut tx, collection, &new, now).await? {
            return Err(CatalogError::exists(Kind::Task, &new.name));
        }
        let made = one(&mut tx, collection, &new.name).await?;
        tx.commit().await.map_err(CatalogError::act("make a task"))?;
        Ok(made)
    }

    /// The task of that name, made where it is missing. One that is there stays as it is.
    ///
    /// # Errors
    /// As [`Catalog::create_task`], but for a task that is there.
    pub async fn ensure_task(
        &self,
        collection: &Slug,
        new: NewTask,
        now: Timestamp,
    ) -> Result<Task, CatalogError> {
        match self.task(collection, &new.name).await {
            Err(CatalogError::NotFound { .. }) => {}
            found => return found,
        }
        let mut tx = self.write().await?;
        // Another one may have made it since.
        insert(&mut tx, collection, &new, now).await?;
        let made = one(&mut tx, collection, &new.name).await?;
        tx.commit().await.map_err(CatalogError::act("make a task"))?;
        Ok(made)
    }

    /// Changes a task.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`], [`CatalogError::Invalid`].
    pub async fn update_task(
        &self,
        collection: &Slug,
        name: &str,
        patch: TaskPatch,
        now: Timestamp,
    ) -> Result<Task, CatalogError> {
        let mut tx = self.write().await?;
        let old = one(&mut tx, collection, name).await?;
        let new = patched(old, patch, now)?;
        let act = || CatalogError::act("change a task");
        sqlx::query(UPDATE)
            .bind(collection.as_str())
            .bind(folded(new.name.as_str()))
            .bind(&new.description)
            .bind(new.workflow.to_string())
            .bind(i64::from(new.flags.is_private))
            .bind(i64::from(new.flags.is_chat_flow))
            .bind(i64::from(new.flags.has_file_uploads))
            .bind(&new.version)
            .bind(new.croissant_metadata.as_ref().map(Value::to_string))
            .bind(now.as_millisecond())
            .execute(&mut *tx)
            .await
            .map_err(act())?;
        // Read back, so that its times are as precise as every other reader sees them.
        let kept = one(&mut tx, collection, new.name.as_str()).await?;
        tx.commit().await.map_err(act())?;
        Ok(kept)
    }

    /// Removes a task and its routines. Its runs stay.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`].
    pub async fn delete_task(&self, collection: &Slug, name: &str) -> Result<(), CatalogError> {
        let act = || CatalogError::act("remove a task");
        let mut tx = self.write().await?;
        let removed = sqlx::query(DELETE)
            .bind(collection.as_str())
            .bind(folded(name))
            .execute(&mut *tx)
            .await
            .map_err(act())?;
        if removed.rows_affected() == 0 {
            return Err(CatalogError::not_found(Kind::Task, name));
        }
        tx.commit().await.map_err(act())
    }
}

/// The task of that name, whatever its case.
pub(super) async fn one(
    connection: &mut SqliteConnection,
    collection: &Slug,
    name: &str,
) -> Result<Task, CatalogError> {
    let row = sqlx::query(ONE)
        .bind(collection.as_str())
        .bind(folded(name))
        .fetch_optional(connection)
        .await
        .map_err(CatalogError::act("look a task up"))?;
    row.as_ref().map_or_else(|| Err(CatalogError::not_found(Kind::Task, name)), task)
}

/// Whether the row was new.
async fn insert(
    connection: &mut SqliteConnection,
    collection: &Slug,
    new: &NewTask,
    now: Timestamp,
) -> Result<bool, CatalogError> {
    let name = Slug::new(&new.name).map_err(|e| CatalogError::invalid(e.to_string()))?;
    if name.as_str().eq_ignore_ascii_case(SANDBOX_FOLDER) {
        let problem = format!("a task cannot be called `{SANDBOX_FOLDER}`: uploads lie there");
        return Err(CatalogError::invalid(problem));
    }
    legal_description(Some(&new.description))?;
    let workflow = new.workflow.document().to_string();
    legal_length("workflow", workflow.len(), MAX_WORKFLOW_BYTES)?;
    legal_extras(new.version.as_deref(), new.croissant_metadata.as_ref())?;
    super::collections::one(connection, collection.as_str()).await?;
    let inserted = sqlx::query(INSERT)
        .bind(collection.as_str())
        .bind(folded(name.as_str()))
        .bind(name.as_str())
        .bind(next_number(connection, "task").await?)
        .bind(&new.description)
        .bind(workflow)
        .bind(i64::from(new.flags.is_private))
        .bind(i64::from(new.flags.is_chat_flow))
        .bind(i64::from(new.flags.has_file_uploads))
        .bind(&new.version)
        .bind(new.croissant_metadata.as_ref().map(Value::to_string))
        .bind(now.as_millisecond())
        .execute(connection)
        .await
        .map_err(CatalogError::act("make a task"))?;
    Ok(inserted.rows_affected() == 1)
}

/// A task with a patch over it.
fn patched(old: Task, patch: TaskPatch, now: Timestamp) -> Result<Task, CatalogError> {
    if let Some(name) = patch.name.filter(|name| folded(name) != folded(old.name.as_str())) {
        return Err(CatalogError::invalid(format!(
            "the task `{}` cannot be renamed to `{name}`, because its runs are kept under its name: \
             make a new task and remove this one",
            old.name
        )));
    }
    legal_description(patch.description.as_deref())?;
    let workflow = patch.workflow.map(|workflow| workflow.document().clone());
    if let Some(workflow) = &workflow {
        legal_length("workflow", workflow.to_string().len(), MAX_WORKFLOW_BYTES)?;
    }
    legal_extras(patch.version.as_deref(), patch.croissant_metadata.as_ref())?;
    Ok(Task {
        description: patch.description.unwrap_or(old.description),
        workflow: workflow.unwrap_or(old.workflow),
        flags: TaskFlags {
            is_private: patch.is_private.unwrap_or(old.flags.is_private),
            is_chat_flow: patch.is_chat_flow.unwrap_or(old.flags.is_chat_flow),
            has_file_uploads: patch.has_file_uploads.unwrap_or(old.flags.has_file_uploads),
        },
        version: patch.version.or(old.version),
        croissant_metadata: patch.croissant_metadata.or(old.croissant_metadata),
        updated: Some(now),
        ..old
    })
}

fn legal_extras(version: Option<&str>, metadata: Option<&Value>) -> Result<(), CatalogError> {
    legal_length("version", version.map_or(0, str::len), MAX_VERSION_BYTES)?;
    let n_bytes = metadata.map_or(0, |metadata| metadata.to_string().len());
    legal_length("croissant_metadata", n_bytes, MAX_METADATA_BYTES)
}

fn legal_length(what: &str, n_bytes: usize, most: usize) -> Result<(), CatalogError> {
    if n_bytes <= most {
        return Ok(());
    }
    Err(CatalogError::invalid(format!("`{what}` has {n_bytes} bytes: send at most {most}")))
}

fn task(row: &SqliteRow) -> Result<Task, CatalogError> {
    let row = Columns(row);
    let metadata: Option<&str> = row.get("croissant_metadata")?;
    let metadata = metadata.map(|_| row.json("croissant_metadata")).transpose()?;
    let workflow = row.json("workflow")?;
    if !workflow.is_object() {
        return Err(unreadable("workflow", "not an object"));
    }
    Ok(Task {
        collection: row.slug("collection")?,
        name: row.slug("name")?,
        number: row.count("number")?,
        description: row.get("description")?,
        workflow,
        flags: TaskFlags {
            is_private: row.flag("is_private")?,
            is_chat_flow: row.flag("is_chat_flow")?,
            has_file_uploads: row.flag("has_file_uploads")?,
        },
        version: row.get("version")?,
        croissant_metadata: metadata,
        created: row.time("created_at")?,
        updated: row.maybe_time("updated_at")?,
    })
}
