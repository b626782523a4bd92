//! Writing an archive as a stream: nothing is held back and nothing is sought.

use std::io::{self, Read, Write};

use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, ZipWriter};

/// How much is packed at once, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// Files from this size on get the long form of their header, which holds any size.
const LARGE_BYTES: u64 = 0xF000_0000;

/// An archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Its reader has gone, or takes too long.
    #[error("could not write the archive")]
    Write(#[source] io::Error),
    /// A file that belongs into it cannot be read.
    #[error("could not read `{path}`")]
    Read {
        /// Its path in the archive.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// An archive that is being written.
#[derive(Debug)]
pub struct Packer<W: Write> {
    zip: ZipWriter<StreamWriter<W>>,
}

impl<W: Write> Packer<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self { zip: ZipWriter::new_stream(out) }
    }

    /// Adds a file. Reads at most `n_bytes`, so that a file that grows does not do so for ever.
    ///
    /// # Errors
    /// [`PackError`] when it cannot be read or the archive cannot be written.
    pub fn add(&mut self, path: &str, n_bytes: u64, from: impl Read) -> Result<(), PackError> {
        let write = |e: zip::result::ZipError| PackError::Write(io::Error::other(e));
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .large_file(n_bytes >= LARGE_BYTES);
        self.zip.start_file(path, options).map_err(write)?;
        let mut from = from.take(n_bytes);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = from.read(&mut chunk);
            let n = read.map_err(|source| PackError::Read { path: path.to_owned(), source })?;
            if n == 0 {
                return Ok(());
            }
            self.zip.write_all(&chunk[..n]).map_err(PackError::Write)?;
        }
    }

    /// Writes the archive's directory. Without it an archive cannot be opened.
    ///
    /// # Errors
    /// [`PackError::Write`] when it cannot be written.
    pub fn finish(self) -> Result<W, PackError> {
        let stream = self.zip.finish().map_err(|e| PackError::Write(io::Error::other(e)))?;
        Ok(stream.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::archive::{UnpackLimits, extract};

    #[test]
    fn what_was_packed_comes_out_again() {
        let mut packer = Packer::new(Vec::new());
        packer.add("results/a.md", 5, &b"hello"[..]).unwrap();
        packer.add("logs/ü.txt", 3, &b"grows"[..]).unwrap();
        let bytes = packer.finish().unwrap();
        let to = tempfile::tempdir().unwrap();
        extract(Cursor::new(bytes), to.path(), &UnpackLimits::INPUTS, &|| true).unwrap();
        assert_eq!(std::fs::read(to.path().join("results/a.md")).unwrap(), b"hello");
        assert_eq!(std::fs::read(to.path().join("logs/ü.txt")).unwrap(), b"gro");
    }
}
