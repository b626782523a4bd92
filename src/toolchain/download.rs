//! Downloads a package's tarball: streamed, bounded, checked, and tried again where that helps.

use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client, Response};
use sha2::{Digest as _, Sha512};
use tokio::fs::File;
use tokio::io::{AsyncWriteExt as _, BufWriter};
use tracing::warn;
use url::Url;

use super::cache::Slot;
use super::error::{DownloadError, Origin, ToolchainError};
use super::fetch::{FetchProgress, Limits, OnProgress};
use crate::secret::Secret;

/// How much is gathered before it is written; the network delivers in pieces of a few KiB.
const BUFFER_BYTES: usize = 1 << 20;

/// One package to download from one registry.
pub(super) struct Download<'a> {
    pub(super) client: Client,
    pub(super) registry: &'a Url,
    pub(super) token: Option<&'a Secret>,
    pub(super) slot: &'a Slot,
    pub(super) limits: &'a Limits,
}

impl Download<'_> {
    /// Writes the pinned tarball to `path`. After an error, what lies there is worth nothing.
    ///
    /// A new try starts from the first byte: the hash then covers exactly one answer.
    pub(super) async fn run(
        &self,
        path: &Path,
        progress: OnProgress<'_>,
    ) -> Result<(), ToolchainError> {
        let mut pauses = self.limits.pauses.iter();
        loop {
            let failure = match self.attempt(path, progress).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            let Some(pause) = pauses.next().filter(|_| failure.is_transient()) else {
                return Err(failure);
            };
            warn!(
                error = &failure as &dyn std::error::Error,
                "the download of an agent CLI failed; trying again in {} ms",
                pause.as_millis()
            );
            tokio::time::sleep(*pause).await;
        }
    }

    /// Asks for the tarball and hangs up when the answer begins.
    pub(super) async fn ask(&self) -> Result<(), ToolchainError> {
        self.request().await.map(drop).map_err(|source| self.failed(source))
    }

    async fn attempt(&self, path: &Path, progress: OnProgress<'_>) -> Result<(), ToolchainError> {
        let response = self.request().await.map_err(|source| self.failed(source))?;
        self.receive(response, path, progress).await
    }

    /// Asks for the tarball; a success says that its content may follow.
    async fn request(&self) -> Result<Response, DownloadError> {
        let mut request = self.client.get(self.slot.pin.tarball_url(self.registry));
        if let Some(token) = self.token {
            // reqwest takes the header away when a redirect leads to another host.
            request = request.bearer_auth(token.expose());
        }
        // A redirect's URL may hold a signature, so errors go without it.
        let response = request
            .send()
            .await
            .map_err(|error| DownloadError::Unreachable(error.without_url()))?;
        match response.status().as_u16() {
            200 => self.check_announced_length(response),
            status @ (401 | 403) => Err(DownloadError::Refused { status }),
            404 => Err(DownloadError::NotFound),
            status @ 500..=599 => Err(DownloadError::Unavailable { status }),
            status => Err(DownloadError::Unexpected { status }),
        }
    }

    fn check_announced_length(&self, response: Response) -> Result<Response, DownloadError> {
        let expected_bytes = self.slot.pin.tarball.n_bytes;
        match response.content_length() {
            Some(got_bytes) if got_bytes != expected_bytes => {
                Err(DownloadError::WrongLength { expected_bytes, got_bytes })
            }
            Some(_) | None => Ok(response),
        }
    }

    async fn receive(
        &self,
        mut response: Response,
        path: &Path,
        progress: OnProgress<'_>,
    ) -> Result<(), ToolchainError> {
        let in_cache = |source| ToolchainError::cache(path, source);
        let expected_bytes = self.slot.pin.tarball.n_bytes;
        let mut received_bytes = 0;
        let mut hasher = Sha512::new();
        let mut file =
            BufWriter::with_capacity(BUFFER_BYTES, new_file(path).await.map_err(in_cache)?);
        progress(FetchProgress::Downloading { received_bytes, total_bytes: expected_bytes });
        while received_bytes < expected_bytes {
            let (chunk, source) = match response.chunk().await {
                Ok(chunk) => (chunk, None),
                Err(error) => (None, Some(error.without_url())),
            };
            let Some(chunk) = chunk else {
                let broke_off = DownloadError::BrokeOff { received_bytes, expected_bytes, source };
                return Err(self.failed(broke_off));
            };
            received_bytes += chunk.len() as u64;
            if received_bytes > expected_bytes {
                return Err(self.failed(DownloadError::TooLong { expected_bytes }));
            }
            hasher.update(&chunk);
            file.write_all(&chunk).await.map_err(in_cache)?;
            progress(FetchProgress::Downloading { received_bytes, total_bytes: expected_bytes });
        }
        file.flush().await.map_err(in_cache)?;
        self.check_integrity(&hasher.finalize()).map_err(|source| self.failed(source))
    }

    fn check_integrity(&self, sha512: &[u8]) -> Result<(), DownloadError> {
        let got = format!("sha512-{}", STANDARD.encode(sha512));
        let expected = &self.slot.pin.tarball.hash;
        if got != *expected {
            return Err(DownloadError::WrongIntegrity { expected: expected.clone(), got });
        }
        Ok(())
    }

    fn failed(&self, source: DownloadError) -> ToolchainError {
        let slot = self.slot;
        let origin = Box::new(Origin {
            url: slot.pin.tarball_url(self.registry).to_string(),
            registry: self.registry.to_string(),
            member: slot.pin.member,
            destination: slot.executable.clone(),
        });
        ToolchainError::Download { origin, source }
    }
}

/// An empty new file at `path`. A failed try's file is not written over: its last write may still
/// be under way on another thread, and would land among the new bytes.
async fn new_file(path: &Path) -> io::Result<File> {
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => File::create_new(path).await,
    }
}
