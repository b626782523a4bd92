//! Masking secrets in the files that a run leaves.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::folder::{RunFolder, UNFINISHED};
use super::layout::Area;
use crate::secret::{RedactedStream, Redactor};

/// How much of a file tells whether it is a text, in bytes.
const TEXT_HEAD_BYTES: u64 = 8 << 10;

/// How much of a file is masked at once, in bytes.
const REDACT_CHUNK_BYTES: usize = 1 << 20;

/// Deepest folder that is masked. The collector refuses deeper ones.
const MAX_REDACT_DEPTH: usize = 64;

/// What was masked in the files of an area. Part of `trajectory.json`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaskedFiles {
    /// Texts that were looked through.
    pub n_texts: u64,
    /// Those of them that held a secret.
    pub n_masked: u64,
    /// Other files, which are as the agent left them.
    pub n_binary: u64,
}

impl RunFolder {
    /// Masks secrets in the texts of an area. Other files stay as they are: a mask would break them.
    ///
    /// # Errors
    /// [`StoreError::Read`] or [`StoreError::Write`]; the files before the fault are masked.
    pub fn redact_texts(&self, area: Area, redactor: &Redactor) -> Result<MaskedFiles, StoreError> {
        let mut found = MaskedFiles::default();
        visit_files(&self.area(area), 0, &mut |file| {
            let read = |source| StoreError::Read { path: file.to_owned(), source };
            if !is_text(file).map_err(read)? {
                found.n_binary += 1;
                return Ok(());
            }
            let masked = redact_file(file, redactor)
                .map_err(|source| StoreError::Write { path: file.to_owned(), source })?;
            found.n_texts += 1;
            found.n_masked += u64::from(masked);
            Ok(())
        })?;
        Ok(found)
    }

    /// Masks known secrets in every file of an area. Returns how many files held one.
    ///
    /// # Errors
    /// [`StoreError::Read`] or [`StoreError::Write`]; the files before the fault are masked.
    pub fn redact(&self, area: Area, redactor: &Redactor) -> Result<usize, StoreError> {
        let mut n_masked = 0;
        visit_files(&self.area(area), 0, &mut |file| {
            let masked = redact_file(file, redactor)
                .map_err(|source| StoreError::Write { path: file.to_owned(), source })?;
            n_masked += usize::from(masked);
            Ok(())
        })?;
        Ok(n_masked)
    }
}

/// Whether a file is a text, judged by its first bytes: those of pictures, archives and documents
/// have control characters among them. A text of 16-bit characters is none.
fn is_text(path: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    File::open(path)?.take(TEXT_HEAD_BYTES).read_to_end(&mut head)?;
    let is_written =
        |byte: &u8| !byte.is_ascii_control() || b"\t\n\r\x08\x0b\x0c\x1b".contains(byte);
    Ok(!head.starts_with(b"%PDF-") && head.iter().all(is_written))
}

/// Calls `visit` for each regular file below `folder`, following no link.
pub(super) fn visit_files(
    folder: &Path,
    depth: usize,
    visit: &mut dyn FnMut(&Path) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    if depth > MAX_REDACT_DEPTH {
        return Ok(());
    }
    let unreadable = |source| StoreError::Read { path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let kind = entry.file_type().map_err(unreadable)?;
        if kind.is_dir() {
            visit_files(&entry.path(), depth + 1, visit)?;
        } else if kind.is_file() {
            visit(&entry.path())?;
        }
    }
    Ok(())
}

/// Rewrites a file with its secrets masked; leaves one without secrets alone.
fn redact_file(path: &Path, redactor: &Redactor) -> io::Result<bool> {
    let mut source = File::open(path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut masked = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
    let mut stream = RedactedStream::new(redactor.clone());
    let mut chunk = vec![0; REDACT_CHUNK_BYTES];
    let mut out = Vec::new();
    loop {
        let n = source.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        stream.feed(&chunk[..n], &mut out);
        masked.write_all(&out)?;
        out.clear();
    }
    let found = stream.finish(&mut out);
    masked.write_all(&out)?;
    if found == 0 {
        return Ok(false);
    }
    masked.as_file().set_permissions(source.metadata()?.permissions())?;
    masked.persist(path).map_err(|e| e.error)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn folder() -> (tempfile::TempDir, RunFolder) {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(root.path().join("run")).unwrap();
        (root, folder)
    }

    #[test]
    fn texts_are_masked_and_what_is_none_stays() {
        let (_root, folder) = folder();
        let results = folder.area(Area::Results);
        let write = |name: &str, bytes: &[u8]| std::fs::write(results.join(name), bytes).unwrap();
        write("a.txt", "ü k=sk-made-up-1234 \u{1b}[0m end\n".as_bytes());
        write("b.txt", b"plain");
        write("c.bin", b"\x00 sk-made-up-1234");
        write("d.pdf", b"%PDF-1.7 sk-made-up-1234");
        let redactor = Redactor::new(&[Secret::new("sk-made-up-1234".to_owned())]);
        let found = folder.redact_texts(Area::Results, &redactor).unwrap();
        assert_eq!(found, MaskedFiles { n_texts: 2, n_masked: 1, n_binary: 2 });
        let read = |name: &str| std::fs::read_to_string(results.join(name)).unwrap();
        assert_eq!(read("a.txt"), "ü k=[redacted] \u{1b}[0m end\n");
        assert!(read("c.bin").contains("1234") && read("d.pdf").contains("1234"));
    }

    #[test]
    fn secrets_in_session_files_are_masked_and_other_files_are_not_touched() {
        let (_root, folder) = folder();
        let sessions = folder.area(Area::Sessions).join("projects");
        std::fs::create_dir_all(&sessions).unwrap();
        std::fs::write(sessions.join("a.jsonl"), "k=sk-made-up-1234 end").unwrap();
        std::fs::write(sessions.join("b.jsonl"), "plain").unwrap();
        let redactor = Redactor::new(&[Secret::new("sk-made-up-1234".to_owned())]);
        assert_eq!(folder.redact(Area::Sessions, &redactor).unwrap(), 1);
        assert_eq!(std::fs::read(sessions.join("a.jsonl")).unwrap(), b"k=[redacted] end");
        assert_eq!(std::fs::read(sessions.join("b.jsonl")).unwrap(), b"plain");
        assert_eq!(folder.session_files().unwrap().len(), 2);
    }
}
