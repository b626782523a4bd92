//! Uploaded files: what is known of them. Their bytes lie in the store.

use std::fmt;

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::Catalog;
use super::error::{CatalogError, Kind};
use super::row::{Columns, Page, number, unreadable};
use crate::run::Slug;

/// What begins the id of a file.
const FILE_PREFIX: &str = "file-";

/// The folder of sandbox uploads in a collection. No task can be called so by accident.
pub(super) const SANDBOX_FOLDER: &str = "_sandbox_uploads";

/// Hexadecimal digits of a file's id.
const N_FILE_DIGITS: usize = 24;

/// Hexadecimal digits of an upload's id.
const N_UPLOAD_DIGITS: usize = 12;

/// Longest file name, in bytes. File systems take 255; some of it is left for what the store and
/// the sandbox add.
const MAX_NAME_BYTES: usize = 200;

/// Longest media type, in bytes.
const MAX_MEDIA_TYPE_BYTES: usize = 255;

/// What an uploaded file is called on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UploadKey {
    /// `file-…`: a file of its own.
    File {
        /// The digits after the prefix.
        digits: String,
    },
    /// `COLLECTION/_sandbox_uploads/UPLOAD/NAME`: one of the files of an upload.
    Sandbox {
        /// The collection.
        collection: Slug,
        /// The digits of the upload.
        upload: String,
        /// The file's name: a single, harmless path segment.
        name: String,
    },
}

impl UploadKey {
    /// The key of a new file.
    #[must_use]
    pub fn file(drawn: Uuid) -> Self {
        Self::File { digits: drawn.simple().to_string()[..N_FILE_DIGITS].to_owned() }
    }

    /// The key of a file in a new upload. All files of one upload are given the same `drawn`.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] when the name cannot be a file's name.
    pub fn sandbox(collection: &Slug, drawn: Uuid, name: &str) -> Result<Self, CatalogError> {
        legal_name(name)?;
        let upload = drawn.simple().to_string()[..N_UPLOAD_DIGITS].to_owned();
        Ok(Self::Sandbox { collection: collection.clone(), upload, name: name.to_owned() })
    }

    /// The key that a text is; `None` when it cannot be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(digits) = text.strip_prefix(FILE_PREFIX)
            && !text.contains('/')
        {
            let digits = are_digits(digits, N_FILE_DIGITS).then(|| digits.to_owned())?;
            return Some(Self::File { digits });
        }
        let mut parts = text.splitn(4, '/');
        let (collection, folder) = (parts.next()?, parts.next()?);
        let (upload, name) = (parts.next()?, parts.next()?);
        let is_ours = folder == SANDBOX_FOLDER
            && are_digits(upload, N_UPLOAD_DIGITS)
            && legal_name(name).is_ok();
        let collection = Slug::new(collection).ok().filter(|_| is_ours)?;
        Some(Self::Sandbox { collection, upload: upload.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for UploadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { digits } => write!(f, "{FILE_PREFIX}{digits}"),
            Self::Sandbox { collection, upload, name } => {
                write!(f, "{collection}/{SANDBOX_FOLDER}/{upload}/{name}")
            }
        }
    }
}

/// What is known of an uploaded file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// What it is called on the wire.
    pub key: UploadKey,
    /// The collection that it belongs to.
    pub collection: Slug,
    /// Its own name.
    pub name: String,
    /// Its length.
    pub n_bytes: u64,
    /// Its media type, as the client said.
    pub media_type: String,
    /// When it was uploaded.
    pub created: Timestamp,
}

/// A file whose bytes are in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUpload {
    /// What it is called on the wire.
    pub key: UploadKey,
    /// Its own name.
    pub name: String,
    /// Its length.
    pub n_bytes: u64,
    /// Its media type, as the client said.
    pub media_type: String,
}

const ALL: &str = "SELECT * FROM uploads WHERE collection = $1
    ORDER BY created_at DESC, key LIMIT $2 OFFSET $3";
const BEFORE: &str =
    "SELECT * FROM uploads WHERE created_at < $1 ORDER BY created_at, key LIMIT $2";
const ONE: &str = "SELECT * FROM uploads WHERE key = $1 AND collection = $2";
const NAMED: &str = "SELECT
    (SELECT COUNT(*) FROM tasks WHERE collection = $1 AND replace(workflow, $2, '') <> workflow)
    + (SELECT COUNT(*) FROM routines WHERE collection = $1
        AND replace(overrides, $2, '') <> overrides) AS n";
const INSERT: &str = "INSERT INTO uploads (key, collection, name, n_bytes, media_type, created_at)
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (key) DO NOTHING";
const DELETE: &str = "DELETE FROM uploads WHERE key = $1 AND collection = $2";

impl Catalog {
    /// Notes a file whose bytes are in the store.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`], [`CatalogError::Exists`] when the key is taken (the caller draws
    /// again), [`CatalogError::NotFound`] when there is no such collection.
    pub async fn record_upload(
        &self,
        collection: &Slug,
        new: NewUpload,
        now: Timestamp,
    ) -> Result<Upload, CatalogError> {
        legal(collection, &new)?;
        let act = || CatalogError::act("note an upload");
        let mut tx = self.write().await?;
        super::collections::one(&mut tx, collection.as_str()).await?;
        let inserted = sqlx::query(INSERT)
            .bind(new.key.to_string())
            .bind(collection.as_str())
            .bind(&new.name)
            .bind(number(new.n_bytes))
            .bind(&new.media_type)
            .bind(now.as_millisecond())
            .execute(&mut *tx)
            .await
            .map_err(act())?;
        if inserted.rows_affected() == 0 {
            return Err(CatalogError::exists(Kind::Upload, &new.key));
        }
        tx.commit().await.map_err(act())?;
        self.upload(collection, &new.key).await
    }

    /// The file of that key in a collection.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`], also for a file of another collection.
    pub async fn upload(&self, collection: &Slug, key: &UploadKey) -> Result<Upload, CatalogError> {
        let row = sqlx::query(ONE)
            .bind(key.to_string())
            .bind(collection.as_str())
            .fetch_optional(&mut *self.reader().await?)
            .await
            .map_err(CatalogError::act("look an upload up"))?;
        row.as_ref().map_or_else(|| Err(CatalogError::not_found(Kind::Upload, key)), upload)
    }

    /// The files of a collection, the newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn uploads(
        &self,
        collection: &Slug,
        page: Page,
    ) -> Result<Vec<Upload>, CatalogError> {
        let rows = sqlx::query(ALL)
            .bind(collection.as_str())
            .bind(page.limit())
            .bind(page.skip())
            .fetch_all(&mut *self.reader().await?)
            .await
            .map_err(CatalogError::act("list uploads"))?;
        rows.iter().map(upload).collect()
    }

    /// At most `limit` files that were uploaded before `before`, the oldest first: those whose time
    /// is over, with all collections together.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn uploads_before(
        &self,
        before: Timestamp,
        limit: u64,
    ) -> Result<Vec<Upload>, CatalogError> {
        let rows = sqlx::query(BEFORE)
            .bind(before.as_millisecond())
            .bind(number(limit))
            .fetch_all(&mut *self.reader().await?)
            .await
            .map_err(CatalogError::act("list old uploads"))?;
        rows.iter().map(upload).collect()
    }

    /// Whether a task or a routine of the collection names an upload: its digits stand in its id and in
    /// its path alike.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn is_named(&self, collection: &Slug, digits: &str) -> Result<bool, CatalogError> {
        let row = sqlx::query(NAMED)
            .bind(collection.as_str())
            .bind(digits)
            .fetch_one(&mut *self.reader().await?)
            .await
            .map_err(CatalogError::act("look for what names an upload"))?;
        Ok(Columns(&row).count("n")? > 0)
    }

    /// Forgets a file. Its bytes are the store's to remove, before this: what is forgotten is not
    /// found again.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`].
    pub async fn delete_upload(
        &self,
        collection: &Slug,
        key: &UploadKey,
    ) -> Result<(), CatalogError> {
        let act = || CatalogError::act("forget an upload");
        let mut tx = self.write().await?;
        let removed = sqlx::query(DELETE)
            .bind(key.to_string())
            .bind(collection.as_str())
            .execute(&mut *tx)
            .await
            .map_err(act())?;
        if removed.rows_affected() == 0 {
            return Err(CatalogError::not_found(Kind::Upload, key));
        }
        tx.commit().await.map_err(act())
    }
}

fn upload(row: &SqliteRow) -> Result<Upload, CatalogError> {
    let row = Columns(row);
    let key: &str = row.get("key")?;
    Ok(Upload {
        key: UploadKey::parse(key).ok_or_else(|| unreadable("key", key))?,
        collection: row.slug("collection")?,
        name: row.get("name")?,
        n_bytes: row.count("n_bytes")?,
        media_type: row.get("media_type")?,
        created: row.time("created_at")?,
    })
}

fn legal(collection: &Slug, new: &NewUpload) -> Result<(), CatalogError> {
    legal_name(&new.name)?;
    if new.media_type.len() > MAX_MEDIA_TYPE_BYTES || new.media_type.contains(char::is_control) {
        return Err(CatalogError::invalid(format!(
            "the media type of `{}` is not usable: send one such as `text/csv`, of at most \
             {MAX_MEDIA_TYPE_BYTES} bytes",
            new.name
        )));
    }
    match &new.key {
        UploadKey::Sandbox { collection: of, .. } if of != collection => {
            Err(CatalogError::invalid(format!(
                "the file `{}` does not belong to the collection `{collection}`",
                new.key
            )))
        }
        UploadKey::File { .. } | UploadKey::Sandbox { .. } => Ok(()),
    }
}

fn legal_name(name: &str) -> Result<(), CatalogError> {
    let is_segment = !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && !matches!(name, "." | "..")
        && !name.contains(|c: char| matches!(c, '/' | '\\') || c.is_control());
    if is_segment {
        return Ok(());
    }
    let shown: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME_BYTES).collect();
    Err(CatalogError::invalid(format!(
        "the file name `{shown}` is not usable: send 1 to {MAX_NAME_BYTES} bytes without `/`, `\\` \
         and control characters"
    )))
}

fn are_digits(text: &str, n: usize) -> bool {
    text.len() == n && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
