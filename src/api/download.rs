//! All files of a run in one archive, packed while it is sent.

use std::convert::Infallible;
use std::io::{self, Write};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::error::ApiError;
use super::extract::Segments;
use super::runs::{blocking, find};
use super::stored::disposition;
use crate::archive::{PackError, Packer};
use crate::run::RunName;
use crate::store::{Listing, StoragePath, Store};

/// Most files in one archive. A sandbox's collector takes fewer.
const MAX_FILES: usize = 50_000;

/// How much is handed to the connection at once, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// Chunks that wait for the connection: a megabyte for each download.
const N_CHUNKS: usize = 16;

/// How long a client may take nothing of what is there for it.
const WRITE_LIMIT: Duration = Duration::from_secs(60);

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(download))
}

/// Sends every file of a run as one zip archive.
#[utoipa::path(get, path = "/api/v1/trajectory/{collection}/{task}/{id}/download", tag = "files",
    responses((status = 200, description = "The archive.", content_type = "application/zip"),
        (status = 404, description = "There is no such run."),
        (status = 429, description = "Too many archives are being sent.")))]
async fn download(
    State(api): State<Shared>,
    Segments(path): Segments<(String, String, String)>,
) -> Result<Response, ApiError> {
    let name = find(&api, &path).await?.name;
    let place = api.runs.followers.download()?;
    let folder = StoragePath::parse(&name.to_string())
        .map_err(|e| ApiError::internal("could not name the folder of a run", e))?;
    let (store, wanted) = (api.store.clone(), folder.clone());
    let act = "could not list the files of a run";
    let listing = blocking(act, move || store.list_files(&wanted, MAX_FILES)).await?;
    if listing.cut_off {
        return Err(ApiError::BadRequest(format!(
            "The run has more than {MAX_FILES} files, which is too many for one archive: get them \
             one by one with `GET /api/v1/list-files?prefix={folder}` and `GET /api/v1/file/…`"
        )));
    }
    let file_name = format!("{}-{}.zip", name.task, name.id);
    let (sender, receiver) = mpsc::channel(N_CHUNKS);
    let (store, runtime) = (api.store.clone(), Handle::current());
    api.runs.followers.track_blocking(move || {
        let pipe = Pipe { sender, runtime, chunk: Vec::with_capacity(CHUNK_BYTES) };
        if let Err(error) = pack(&store, &name, &listing, pipe) {
            // Without its directory the archive does not open, so nobody takes it for whole.
            let error = crate::run::error_chain(&error);
            tracing::info!(run.id = %name, error, "a download was not finished");
        }
        drop(place);
    });
    let body = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (Ok::<Bytes, Infallible>(chunk), receiver))
    });
    let headers = [
        (CONTENT_TYPE, "application/zip".to_owned()),
        (CONTENT_DISPOSITION, disposition(&file_name)),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

fn pack(store: &Store, name: &RunName, listing: &Listing, pipe: Pipe) -> Result<(), PackError> {
    let mut packer = Packer::new(pipe);
    let folder = format!("{name}/");
    for file in &listing.files {
        let inside = file.path.strip_prefix(&folder).unwrap_or(&file.path);
        let unread = |source| PackError::Read { path: inside.to_owned(), source };
        let path = StoragePath::parse(&file.path).map_err(|e| unread(io::Error::other(e)))?;
        // A file that has gone since it was listed is left out.
        if let Some(stored) = store.open_file(&path).map_err(|e| unread(io::Error::other(e)))? {
            packer.add(inside, stored.n_bytes, stored.file)?;
        }
    }
    let mut pipe = packer.finish()?;
    pipe.flush().map_err(PackError::Write)
}

/// From a thread that may block to a connection. It holds a bounded part of the archive.
struct Pipe {
    sender: mpsc::Sender<Bytes>,
    runtime: Handle,
    chunk: Vec<u8>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES));
        let sent = self.sender.send_timeout(chunk.into(), WRITE_LIMIT);
        self.runtime
            .block_on(sent)
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client takes nothing more"))
    }
}
