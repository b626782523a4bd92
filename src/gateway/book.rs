//! The ledger as the gateway's process writes it: a line for each record, with one write.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde::Serialize;

use crate::secret::Redactor;

/// A ledger that grows.
#[derive(Debug)]
pub(super) struct Book {
    file: File,
    redactor: Redactor,
    /// Whether the last line may lack its end.
    is_torn: bool,
}

impl Book {
    pub(super) fn open(path: &Path, redactor: Redactor) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut last = [b'\n'];
        if file.metadata()?.len() > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        Ok(Self { file, redactor, is_torn: last != *b"\n" })
    }

    /// Writes a line. One that was torn before it, by a full disk or by a gateway's end, ends first.
    pub(super) fn write(&mut self, record: &impl Serialize) -> io::Result<()> {
        let mut line = if self.is_torn { b"\n".to_vec() } else { Vec::new() };
        line.extend_from_slice(&self.redactor.redact_json(&serde_json::to_vec(record)?));
        line.push(b'\n');
        let written = self.file.write_all(&line);
        self.is_torn = written.is_err();
        written
    }

    /// Waits until the lines are on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::GatewayRecord;
    use super::*;

    #[test]
    fn a_line_after_one_that_was_torn_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.jsonl");
        std::fs::write(&path, r#"{"seq": 1, "#).unwrap();
        let line = r#"{"seq":2,"at":"1970-01-01T00:00:00Z","outcome":"complete","method":"GET",
            "path":"/","n_request_bytes":0,"n_answer_bytes":0}"#;
        let record: GatewayRecord = serde_json::from_str(line).unwrap();
        let mut book = Book::open(&path, Redactor::shapes()).unwrap();
        book.write(&record).unwrap();
        book.write(&record).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0]), (3, r#"{"seq": 1, "#));
        for line in &lines[1..] {
            assert_eq!(serde_json::from_str::<GatewayRecord>(line).unwrap(), record);
        }
    }
}
