//! Files on their way in: from a part of a form to the results directory, within limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Bytes;
use uuid::Uuid;

use super::Shared;
use super::error::ApiError;
use super::form::Part;
use super::runs::blocking;
use crate::intake::Uploaded;
use crate::run::{Slug, error_chain};
use crate::store::{StoreError, Upload};

/// How much is collected before it is written, in bytes: few writes for a large file, little memory
/// for many uploads at the same time.
const WRITE_BYTES: usize = 256 << 10;

/// After so many bytes the disk is measured again.
const MEASURE_EVERY_BYTES: u64 = 64 << 20;

/// What fails when a file cannot be kept.
const KEEP: &str = "could not keep an upload";

/// Most files in one request.
const MAX_FILES: usize = 200;

/// What came in with one request. It is removed unless somebody takes it over, whatever becomes of
/// the request: a client that hangs up ends its handler at any point.
#[derive(Debug)]
pub(super) struct Received {
    batch: Arc<Batch>,
    pub(super) files: Vec<Uploaded>,
}

impl Received {
    pub(super) async fn new(api: &Shared, collection: Slug) -> Result<Self, ApiError> {
        let batch = Uuid::new_v4().simple().to_string();
        let name = Slug::new(&batch[..12])
            .map_err(|e| ApiError::internal("could not name an upload", e))?;
        let api = Arc::clone(api);
        let batch = Arc::new(Batch { api, collection, name, is_kept: AtomicBool::new(false) });
        batch.measure().await?;
        Ok(Self { batch, files: Vec::new() })
    }

    /// The twelve hexadecimal digits that the files of this request have in common.
    pub(super) fn batch(&self) -> &Slug {
        &self.batch.name
    }

    /// Receives one file.
    pub(super) async fn take(&mut self, mut part: Part<'_>) -> Result<(), ApiError> {
        if self.files.len() == MAX_FILES {
            return Err(ApiError::BadRequest(format!(
                "The request has more than {MAX_FILES} files: pack them into one zip archive"
            )));
        }
        let name = part.file_name().unwrap_or_default().to_owned();
        let told = name.clone();
        let mut upload = self
            .batch
            .on_disk(move |batch| batch.api.store.receive(&batch.collection, &batch.name, &told))
            .await?;
        let (mut waiting, mut measured_at) = (Vec::new(), 0);
        while let Some(chunk) = part.chunk().await? {
            waiting.extend_from_slice(&chunk);
            if waiting.len() >= WRITE_BYTES {
                upload = self.append(upload, std::mem::take(&mut waiting).into()).await?;
            }
            if upload.n_bytes() - measured_at >= MEASURE_EVERY_BYTES {
                measured_at = upload.n_bytes();
                self.batch.measure().await?;
            }
        }
        let upload = self.append(upload, waiting.into()).await?;
        let kept = self.batch.on_disk(move |_| upload.keep()).await?;
        self.files.push(Uploaded { path: kept.path, name, n_bytes: kept.n_bytes });
        Ok(())
    }

    async fn append(&self, mut upload: Upload, bytes: Bytes) -> Result<Upload, ApiError> {
        self.batch.on_disk(move |_| upload.append(&bytes).map(|()| upload)).await
    }

    /// The files, whose owner is somebody else from now on.
    pub(super) fn handed_over(self) -> Vec<Uploaded> {
        self.batch.is_kept.store(true, Ordering::Release);
        self.files
    }
}

/// The folder of what came with one request. The last who works on it removes it: a thread may still
/// write when the handler is gone already.
#[derive(Debug)]
struct Batch {
    api: Shared,
    collection: Slug,
    name: Slug,
    is_kept: AtomicBool,
}

impl Batch {
    /// Does what blocks for the batch, which is there as long as that goes on.
    async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let batch = Arc::clone(self);
        blocking(KEEP, move || work(&batch)).await
    }

    /// Refuses more where the disk has no room for it.
    async fn measure(self: &Arc<Self>) -> Result<(), ApiError> {
        let free = self.on_disk(|batch| batch.api.store.free_bytes()).await?;
        if free < self.api.settings.min_free_disk_bytes { Err(ApiError::no_room()) } else { Ok(()) }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if *self.is_kept.get_mut() {
            return;
        }
        let (store, collection) = (self.api.store.clone(), self.collection.clone());
        let name = self.name.clone();
        self.api.runs.followers.track_blocking(move || {
            if let Err(error) = store.remove_batch(&collection, &name) {
                let error = error_chain(&error);
                tracing::warn!(error, "could not remove what a refused request had sent");
            }
        });
    }
}
