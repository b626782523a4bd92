//! A log of a run: it only grows.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::StoreError;

/// A file that is only appended to. Each append reaches the kernel before it returns, so a reader
/// sees whole appends and a killed daemon loses none.
///
/// A log that was opened over an earlier one expects its bytes once more: as long as they are the
/// same they are not written again, so that readers never see the log shrink. Where they differ,
/// the earlier log is cut.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    /// How many bytes of an earlier log have not been seen again.
    n_earlier: u64,
}

impl LogFile {
    /// Opens a log whose bytes come again from the first.
    pub(super) fn open(path: PathBuf) -> Result<Self, StoreError> {
        let opened =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let with_length = opened.and_then(|file| Ok((file.metadata()?.len(), file)));
        match with_length {
            Ok((n_earlier, file)) => Ok(Self { path, file, n_earlier }),
            Err(source) => Err(StoreError::Write { path, source }),
        }
    }

    /// Starts a log anew.
    pub(super) fn replace(path: PathBuf) -> Result<Self, StoreError> {
        match File::create(&path) {
            Ok(file) => Ok(Self { path, file, n_earlier: 0 }),
            Err(source) => Err(StoreError::Write { path, source }),
        }
    }

    /// Opens a log that goes on.
    pub(super) fn extend(path: PathBuf) -> Result<Self, StoreError> {
        match OpenOptions::new().append(true).create(true).open(&path) {
            Ok(file) => Ok(Self { path, file, n_earlier: 0 }),
            Err(source) => Err(StoreError::Write { path, source }),
        }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`StoreError::Write`] when the disk refuses them.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.skip_earlier(bytes)
            .and_then(|n_same| self.file.write_all(&bytes[n_same..]))
            .map_err(|source| StoreError::Write { path: self.path.clone(), source })
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// [`StoreError::Write`] when the disk reports a fault.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(|source| StoreError::Write { path: self.path.clone(), source })
    }

    /// Where the log lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many of the bytes an earlier log holds in their place.
    fn skip_earlier(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = usize::try_from(self.n_earlier).unwrap_or(usize::MAX).min(bytes.len());
        if n == 0 {
            return Ok(0);
        }
        let mut earlier = vec![0; n];
        self.file.read_exact(&mut earlier)?;
        let n_same = earlier.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        self.n_earlier -= n as u64;
        if n_same < n {
            let place = self.file.stream_position()? - (n - n_same) as u64;
            self.file.set_len(place)?;
            self.file.seek(SeekFrom::Start(place))?;
            self.n_earlier = 0;
        }
        Ok(n_same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Whatever an earlier log holds, the log is what is appended now, or begins with it.
        #[test]
        fn a_log_is_written_over_an_earlier_one(
            earlier in "[ab]{0,12}",
            pieces in proptest::collection::vec("[ab]{0,5}", 0..6),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("log");
            std::fs::write(&path, &earlier).unwrap();
            let mut log = LogFile::open(path.clone()).unwrap();
            for piece in &pieces {
                log.append(piece.as_bytes()).unwrap();
            }
            let appended = pieces.concat();
            let expected = if earlier.starts_with(&appended) { &earlier } else { &appended };
            proptest::prop_assert_eq!(&std::fs::read_to_string(&path).unwrap(), expected);
        }
    }
}
