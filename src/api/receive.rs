//! Files on their way in: from a part of a form to the results directory, within limits.

use std::time::Duration;

use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{FromRequest as _, Request};
use uuid::Uuid;

use super::Shared;
use super::error::{ApiError, Problem};
use super::runs::blocking;
use crate::intake::Uploaded;
use crate::run::Slug;
use crate::store::StoragePath;

/// How much is collected before it is written, in bytes.
const WRITE_BYTES: usize = 1 << 20;

/// How long a client may send nothing. A slow line still sends something every minute.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// What fails when a file cannot be kept.
const KEEP: &str = "could not keep an upload";

/// Most files in one request.
const MAX_FILES: usize = 200;

/// What came in with one request. Whoever refuses the request forgets it.
#[derive(Debug)]
pub(super) struct Received {
    api: Shared,
    collection: Slug,
    batch: Slug,
    pub(super) files: Vec<Uploaded>,
}

impl Received {
    pub(super) fn new(api: &Shared, collection: Slug) -> Result<Self, ApiError> {
        let free = api.store.free_bytes();
        let free = free.map_err(|e| ApiError::internal("could not measure the disk", e))?;
        if free < api.settings.min_free_disk_bytes {
            return Err(ApiError::Unavailable {
                detail:
                    "The server's disk is nearly full: it takes nothing new until there is room; \
                         its operator can remove old runs"
                        .to_owned(),
                source: None,
            });
        }
        let batch = Uuid::new_v4().simple().to_string();
        let batch = Slug::new(&batch[..12])
            .map_err(|e| ApiError::internal("could not name an upload", e))?;
        Ok(Self { api: api.clone(), collection, batch, files: Vec::new() })
    }

    /// The twelve hexadecimal digits that the files of this request have in common.
    pub(super) fn batch(&self) -> &Slug {
        &self.batch
    }

    /// Receives one file.
    pub(super) async fn take(&mut self, mut field: Field<'_>) -> Result<(), ApiError> {
        if self.files.len() == MAX_FILES {
            return Err(ApiError::BadRequest(format!(
                "The request has more than {MAX_FILES} files: pack them into one zip archive"
            )));
        }
        let name = field.file_name().unwrap_or_default().to_owned();
        let (store, collection, batch) =
            (self.api.store.clone(), self.collection.clone(), self.batch.clone());
        let told = name.clone();
        let mut upload = blocking(KEEP, move || store.receive(&collection, &batch, &told)).await?;
        let mut waiting = Vec::new();
        loop {
            let chunk = chunk(&mut field, &self.api).await?;
            waiting.extend_from_slice(chunk.as_deref().unwrap_or_default());
            if chunk.is_none() || waiting.len() >= WRITE_BYTES {
                let bytes = std::mem::take(&mut waiting);
                upload = blocking(KEEP, move || upload.append(&bytes).map(|()| upload)).await?;
            }
            if chunk.is_none() {
                break;
            }
        }
        let kept = blocking(KEEP, move || upload.keep()).await?;
        self.files.push(Uploaded { path: kept.path, name, n_bytes: kept.n_bytes });
        Ok(())
    }

    /// Removes what came in: the request is refused.
    pub(super) async fn forget(self) -> Result<(), ApiError> {
        let (store, files) = (self.api.store.clone(), self.files);
        blocking("could not remove an upload", move || {
            let paths = files.iter().filter_map(|file| StoragePath::parse(&file.path).ok());
            paths.into_iter().try_for_each(|path| store.remove_upload(&path))
        })
        .await
    }
}

/// The text of a field that is no file.
pub(super) async fn text(
    mut field: Field<'_>,
    name: &str,
    api: &Shared,
) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = chunk(&mut field, api).await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > api.settings.max_json_bytes {
            return Err(ApiError::TooLarge(format!(
                "the field `{name}` is larger than {} bytes: send large inputs as files",
                api.settings.max_json_bytes
            )));
        }
    }
    String::from_utf8(bytes).map_err(|_| {
        ApiError::Invalid(vec![Problem::of_field(name, "value_error", "it must be UTF-8 text")])
    })
}

/// The form of a request.
pub(super) async fn form(request: Request, api: &Shared) -> Result<Multipart, ApiError> {
    Multipart::from_request(request, api)
        .await
        .map_err(|fault| ApiError::BadRequest(format!("the form cannot be read: {fault}")))
}

/// The next field of a form.
pub(super) async fn next<'f>(
    form: &'f mut Multipart,
    api: &Shared,
) -> Result<Option<Field<'f>>, ApiError> {
    let limit = api.runs.settings.max_upload_bytes;
    match tokio::time::timeout(SILENCE_LIMIT, form.next_field()).await {
        Ok(field) => field.map_err(|fault| broken(&fault, limit)),
        Err(_) => Err(silent()),
    }
}

async fn chunk(field: &mut Field<'_>, api: &Shared) -> Result<Option<axum::body::Bytes>, ApiError> {
    let limit = api.runs.settings.max_upload_bytes;
    match tokio::time::timeout(SILENCE_LIMIT, field.chunk()).await {
        Ok(chunk) => chunk.map_err(|fault| broken(&fault, limit)),
        Err(_) => Err(silent()),
    }
}

fn silent() -> ApiError {
    ApiError::TooSlow(format!("nothing was sent for {} s", SILENCE_LIMIT.as_secs()))
}

fn broken(fault: &MultipartError, limit: usize) -> ApiError {
    let said = fault.body_text();
    // axum tells the limit from a broken form by its status alone.
    if fault.status().as_u16() == 413 {
        ApiError::TooLarge(format!("the request is larger than {limit} bytes"))
    } else {
        ApiError::BadRequest(format!("the form cannot be read: {said}"))
    }
}
