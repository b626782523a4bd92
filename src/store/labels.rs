//! Labels of a run: a file that only grows, so that no later write of the trajectory loses one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};

use jiff::Timestamp;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::{RunFolder, StoreError};

/// The labels' file in a run's folder, one JSON object a line.
const LABELS: &str = "labels.jsonl";

/// Largest file of labels that is read, in bytes: thousands of labels.
const MAX_LABELS_BYTES: u64 = 4 << 20;

/// Something that somebody noted about a run. A line of `labels.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// What is noted, such as `quality`.
    pub key: String,
    /// The note.
    pub value: String,
    /// When it was noted.
    pub created: Timestamp,
    /// Who noted it.
    pub author: String,
}

impl RunFolder {
    /// Adds a label. When this returns, it is on the disk. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Write`] when the disk refuses it or the file is full.
    pub fn add_label(&self, label: &Label) -> Result<(), StoreError> {
        let path = self.path().join(LABELS);
        append(&path, label).map_err(|source| StoreError::Write { path, source })
    }

    /// Every label, oldest first. A line that a crash tore is passed over. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Read`] when the file is there and cannot be read.
    pub fn labels(&self) -> Result<Vec<Label>, StoreError> {
        let path = self.path().join(LABELS);
        let mut text = Vec::new();
        let read = match File::open(&path) {
            Ok(file) => file.take(MAX_LABELS_BYTES).read_to_end(&mut text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => Err(e),
        };
        read.map_err(|source| StoreError::Read { path, source })?;
        let lines = text.split(|byte| *byte == b'\n');
        Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}

fn append(path: &std::path::Path, label: &Label) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    // Two at once must not both mend the same torn line.
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    let n_bytes = file.metadata()?.len();
    let mut line = Vec::new();
    if n_bytes > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            line.push(b'\n');
        }
    }
    serde_json::to_writer(&mut line, label)?;
    line.push(b'\n');
    if n_bytes + line.len() as u64 > MAX_LABELS_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the run has too many labels"));
    }
    file.write_all(&line)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(value: &str) -> Label {
        let (key, author) = ("quality".to_owned(), "me".to_owned());
        Label { key, value: value.to_owned(), created: Timestamp::UNIX_EPOCH, author }
    }

    #[test]
    fn labels_written_at_once_are_all_kept_and_a_torn_line_costs_only_itself() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(root.path().join("run")).unwrap();
        assert_eq!(folder.labels().unwrap(), []);
        std::fs::write(folder.path().join(LABELS), r#"{"key":"to"#).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let folder = &folder;
                scope.spawn(move || {
                    for n in 0..10 {
                        folder.add_label(&label(&format!("{writer}-{n} \n\"ü"))).unwrap();
                    }
                });
            }
        });
        let mut values: Vec<_> = folder.labels().unwrap().into_iter().map(|l| l.value).collect();
        values.sort();
        values.dedup();
        assert_eq!(values.len(), 80);
    }
}
