//! Downloads: a file is there whole under its name, or it is not there.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use tempfile::NamedTempFile;

use super::attempts::{Again, attempt};
use super::connect::Client;
use super::error::ClientError;
use crate::run::RunName;

/// How long nothing may come of a download. The server gives a client as long.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// The end of every zip archive without a comment: its directory's place.
const ARCHIVE_END: [u8; 4] = *b"PK\x05\x06";

/// How long that end is, in bytes.
const ARCHIVE_END_BYTES: u64 = 22;

impl Client {
    /// Writes all files of a run into one zip archive. What has the name already is replaced.
    ///
    /// # Errors
    /// [`ClientError`]; then there is no such file.
    pub async fn download(&self, run: &RunName, to: &Path) -> Result<(), ClientError> {
        let (collection, task) = (run.collection.as_str(), run.task.as_str());
        let path = ["api", "v1", "trajectory", collection, task, run.id.as_str(), "download"];
        attempt(Again::Safe, async || {
            let mut file = self.fetch(self.request(Method::GET, &path), to).await?;
            // The server cannot say any more that something went wrong once it has begun.
            if !is_whole_archive(file.as_file_mut()).map_err(|e| wrote(to, e))? {
                return Err(ClientError::Torn);
            }
            keep(file, to)
        })
        .await
    }

    /// Writes one stored file of a run, by its path in the run's folder.
    ///
    /// # Errors
    /// As [`Client::download`].
    pub async fn download_file(
        &self,
        run: &RunName,
        path: &str,
        to: &Path,
    ) -> Result<(), ClientError> {
        let segments = stored(run, path);
        attempt(Again::Safe, async || {
            let file = self.fetch(self.request(Method::GET, &segments), to).await?;
            keep(file, to)
        })
        .await
    }

    /// Writes one stored file of a run to wherever it is wanted, while it comes.
    ///
    /// # Errors
    /// [`ClientError`]; a part may have been written then.
    pub async fn read_file(
        &self,
        run: &RunName,
        path: &str,
        to: &mut impl Write,
    ) -> Result<(), ClientError> {
        let segments = stored(run, path);
        let request = self.request(Method::GET, &segments);
        self.pour(request, to, |e| wrote(Path::new("standard output"), e)).await
    }

    /// Receives an answer into a file beside the one that it will be.
    async fn fetch(
        &self,
        request: RequestBuilder,
        to: &Path,
    ) -> Result<NamedTempFile, ClientError> {
        let mut file = NamedTempFile::new_in(folder(to)).map_err(|e| wrote(to, e))?;
        self.pour(request, &mut file, |e| wrote(to, e)).await?;
        Ok(file)
    }

    /// Passes an answer on while it comes.
    async fn pour(
        &self,
        request: RequestBuilder,
        to: &mut impl Write,
        unwritten: impl Fn(std::io::Error) -> ClientError,
    ) -> Result<(), ClientError> {
        let sent = tokio::time::timeout(SILENCE_LIMIT, self.send(request)).await;
        let mut response = sent.map_err(|_| self.silent())??;
        loop {
            let chunk = tokio::time::timeout(SILENCE_LIMIT, response.chunk()).await;
            match chunk.map_err(|_| self.silent())?.map_err(|e| self.broken(e))? {
                Some(chunk) => to.write_all(&chunk).map_err(&unwritten)?,
                None => return to.flush().map_err(unwritten),
            }
        }
    }

    fn silent(&self) -> ClientError {
        let server = self.server().to_owned();
        ClientError::Lost { server, limit_s: SILENCE_LIMIT.as_secs() }
    }
}

/// The path of a stored file of a run.
fn stored<'a>(run: &'a RunName, path: &'a str) -> Vec<&'a str> {
    let (collection, task) = (run.collection.as_str(), run.task.as_str());
    let inside = path.split('/').filter(|segment| !segment.is_empty());
    ["api", "v1", "file", collection, task, run.id.as_str()].into_iter().chain(inside).collect()
}

fn folder(to: &Path) -> PathBuf {
    match to.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// Gives the file its name.
fn keep(file: NamedTempFile, to: &Path) -> Result<(), ClientError> {
    file.as_file().sync_all().map_err(|e| wrote(to, e))?;
    file.persist(to).map(drop).map_err(|e| wrote(to, e.error))
}

fn wrote(path: &Path, source: std::io::Error) -> ClientError {
    ClientError::File { act: "write", path: path.to_owned(), source }
}

fn is_whole_archive(file: &mut File) -> std::io::Result<bool> {
    let n_bytes = file.metadata()?.len();
    let Some(end) = n_bytes.checked_sub(ARCHIVE_END_BYTES) else { return Ok(false) };
    file.seek(SeekFrom::Start(end))?;
    let mut found = [0; 4];
    file.read_exact(&mut found)?;
    Ok(found == ARCHIVE_END)
}
