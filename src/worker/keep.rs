//! Keeps the end of a log that something in the sandbox wrote, its secrets masked.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::secret::{RedactedStream, Redactor};
use crate::store::{LogFile, StoreError};

/// Most of a log that is kept, in bytes. The agent's standard error is empty in a good run, and an
/// installer writes a few hundred kilobytes.
const MAX_KEPT_BYTES: u64 = 16 << 20;

/// How much of the end goes into a failure, in bytes.
const TAIL_BYTES: usize = 4096;

/// A log could not be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeepError {
    #[error("could not read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Copies the end of `from` into `log` and gives the last of it.
pub(super) fn keep_end(
    from: &Path,
    mut log: LogFile,
    redactor: &Redactor,
) -> Result<String, KeepError> {
    let unreadable = |source| KeepError::Read { path: from.to_owned(), source };
    let (bytes, n_left_out) = read_end(from).map_err(unreadable)?;
    let mut clean = Vec::new();
    let mut stream = RedactedStream::new(redactor.clone());
    stream.feed(&bytes, &mut clean);
    stream.finish(&mut clean);
    if n_left_out > 0 {
        log.append(format!("[the first {n_left_out} bytes are left out]\n").as_bytes())?;
    }
    log.append(&clean)?;
    log.sync()?;
    let tail = &clean[clean.len().saturating_sub(TAIL_BYTES)..];
    Ok(String::from_utf8_lossy(tail).into_owned())
}

/// The last bytes of a file, and how many stand before them.
fn read_end(path: &Path) -> io::Result<(Vec<u8>, u64)> {
    let mut file = File::open(path)?;
    let n_left_out = file.metadata()?.len().saturating_sub(MAX_KEPT_BYTES);
    file.seek(SeekFrom::Start(n_left_out))?;
    let mut bytes = Vec::new();
    file.take(MAX_KEPT_BYTES).read_to_end(&mut bytes)?;
    Ok((bytes, n_left_out))
}
