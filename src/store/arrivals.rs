//! When the lines of an agent's output arrived, so that a record that is folded again has the same
//! times. One line of JSON for each look that found something: `[lines so far, time]`.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;

use jiff::Timestamp;

use super::StoreError;

/// The times of an agent's lines.
#[derive(Debug)]
pub struct Arrivals {
    path: PathBuf,
    file: File,
    /// What an earlier process saw: up to this line, at this time.
    known: Vec<(u64, Timestamp)>,
    /// The first of the known that may still be asked for.
    next: usize,
    n_noted: u64,
}

impl Arrivals {
    /// Opens the file, or goes on with the one that is there.
    pub(super) fn open(path: PathBuf) -> Result<Self, StoreError> {
        let write = |source| StoreError::Write { path: path.clone(), source };
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let file = file.map_err(write)?;
        let mut known: Vec<(u64, Timestamp)> = Vec::new();
        let mut n_bytes = 0;
        let mut reader = BufReader::new(&file);
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|n| n > 0) {
            // A torn line is the last; without it times are told a moment later.
            let Ok(entry) = serde_json::from_str(&line) else { break };
            known.push(entry);
            n_bytes += line.len() as u64;
            line.clear();
        }
        drop(reader);
        file.set_len(n_bytes).map_err(write)?;
        let n_noted = known.last().map_or(0, |&(n_lines, _)| n_lines);
        Ok(Self { path, file, known, next: 0, n_noted })
    }

    /// When line `number` arrived, if that was noted. Lines are asked for in order.
    pub fn of(&mut self, number: u64) -> Option<Timestamp> {
        while self.known.get(self.next).is_some_and(|&(n_lines, _)| n_lines < number) {
            self.next += 1;
        }
        self.known.get(self.next).map(|&(_, at)| at)
    }

    /// Notes that the lines up to `n_lines` have arrived by now, unless that is known.
    ///
    /// # Errors
    /// [`StoreError::Write`] when the disk refuses it.
    pub fn note(&mut self, n_lines: u64, now: Timestamp) -> Result<(), StoreError> {
        if n_lines <= self.n_noted {
            return Ok(());
        }
        self.n_noted = n_lines;
        let line = format!("[{n_lines},\"{now}\"]\n");
        self.file
            .write_all(line.as_bytes())
            .map_err(|source| StoreError::Write { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_reader_of_the_same_lines_sees_the_times_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arrivals.jsonl");
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut first = Arrivals::open(path.clone()).unwrap();
        assert_eq!(first.of(1), None);
        first.note(2, at(10)).unwrap();
        first.note(2, at(11)).unwrap();
        first.note(5, at(20)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"[9,\"20"].concat()).unwrap();
        let mut second = Arrivals::open(path.clone()).unwrap();
        let times: Vec<Option<Timestamp>> = (1..=6).map(|number| second.of(number)).collect();
        let (a, b) = (Some(at(10)), Some(at(20)));
        assert_eq!(times, [a, a, b, b, b, None]);
        second.note(4, at(30)).unwrap();
        second.note(6, at(30)).unwrap();
        assert_eq!(Arrivals::open(path).unwrap().known.last(), Some(&(6, at(30))));
    }
}
