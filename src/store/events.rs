//! The news of a run on disk, `events.jsonl`: written by one run, read by any number of watchers.
//!
//! Every line is a JSON object with `seq`, which counts from 1 without a gap, and `at`. A line that
//! tells what the agent did carries `update`, its number among those: who folds the agent's output
//! a second time knows which of them are here already. A line with which a step of a run of several
//! begins carries `part`, the step's number. The last line of a run carries `last`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::live::LiveRuns;
use crate::run::RunName;
use crate::secret::Redactor;

/// How much a reader takes at once, in bytes. Large enough for speed, small enough for many readers.
const READ_BYTES: usize = 256 << 10;

/// Longest line of the file, in bytes. Titles and first lines are clipped far below; the end of a
/// run has its warnings and its answer in it.
const MAX_LINE_BYTES: usize = 16 << 20;

/// Writes the news of one run.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    file: File,
    run: RunName,
    live: LiveRuns,
    redactor: Redactor,
    seq: u64,
    n_updates: u64,
    /// The step that began last, where the run has several, and the updates before it.
    part: Option<(u64, u64)>,
    is_closed: bool,
    /// How long the file was before a line that was refused and of which a part may be there.
    torn_at: Option<u64>,
}

/// A line of the file, as it is written.
#[derive(Serialize)]
struct Line<'a, E> {
    seq: u64,
    at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    update: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    last: bool,
    #[serde(flatten)]
    event: &'a E,
}

/// What every line has.
#[derive(Deserialize)]
struct Head {
    seq: u64,
    update: Option<u64>,
    part: Option<u64>,
    #[serde(default)]
    last: bool,
}

impl EventLog {
    /// Opens the file, or goes on with the one that is there: a line that was torn by the end of an
    /// earlier process is cut off.
    pub(super) fn open(path: PathBuf, run: RunName, live: LiveRuns) -> Result<Self, StoreError> {
        let write = |source| StoreError::Write { path: path.clone(), source };
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let file = file.map_err(write)?;
        let found = scan(&file).map_err(write)?;
        file.set_len(found.n_bytes).map_err(write)?;
        let Scanned { seq, n_updates, part, is_closed, .. } = found;
        let redactor = Redactor::shapes();
        Ok(Self { path, file, run, live, redactor, seq, n_updates, part, is_closed, torn_at: None })
    }

    /// The same with more to mask than the shapes of credentials.
    #[must_use]
    pub fn masked_by(self, redactor: Redactor) -> Self {
        Self { redactor, ..self }
    }

    /// How many updates of the agent's fold are in the file; of the last step's agent, where the run
    /// has several.
    #[must_use]
    pub fn n_updates(&self) -> u64 {
        self.n_updates - self.part.map_or(0, |(_, before)| before)
    }

    /// The number of the last line.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Whether the run's last line is there.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Appends news. After the last line there are none.
    ///
    /// # Errors
    /// [`StoreError::Write`] when the disk refuses it. Nothing of it counts then.
    pub fn append(&mut self, at: Timestamp, event: &impl Serialize) -> Result<(), StoreError> {
        let seq = self.seq + 1;
        self.write(&Line { seq, at, update: None, part: None, last: false, event })
    }

    /// Appends that a step of the run begins, unless it is told already.
    ///
    /// # Errors
    /// As [`EventLog::append`].
    pub fn begin_part(
        &mut self,
        number: u64,
        at: Timestamp,
        event: &impl Serialize,
    ) -> Result<(), StoreError> {
        if self.part.is_some_and(|(last, _)| last >= number) {
            return Ok(());
        }
        let seq = self.seq + 1;
        self.write(&Line { seq, at, update: None, part: Some(number), last: false, event })?;
        self.part = Some((number, self.n_updates));
        Ok(())
    }

    /// Appends what the agent did: the next update of its fold.
    ///
    /// # Errors
    /// As [`EventLog::append`].
    pub fn append_update(
        &mut self,
        at: Timestamp,
        event: &impl Serialize,
    ) -> Result<(), StoreError> {
        let update = self.n_updates + 1;
        let seq = self.seq + 1;
        self.write(&Line { seq, at, update: Some(update), part: None, last: false, event })?;
        self.n_updates = update;
        Ok(())
    }

    /// Appends the last line, and sees to it that everything is on the disk. A second end is none.
    ///
    /// # Errors
    /// As [`EventLog::append`].
    pub fn close(&mut self, at: Timestamp, event: &impl Serialize) -> Result<(), StoreError> {
        if self.is_closed {
            return Ok(());
        }
        let seq = self.seq + 1;
        self.write(&Line { seq, at, update: None, part: None, last: true, event })?;
        self.is_closed = true;
        self.file.sync_all().map_err(|source| self.fault(source))
    }

    fn write<E: Serialize>(&mut self, line: &Line<'_, E>) -> Result<(), StoreError> {
        if self.is_closed {
            return Ok(());
        }
        let text = serde_json::to_vec(line).map_err(|e| self.fault(e.into()))?;
        let mut text = self.redactor.redact_json(&text).into_owned();
        text.push(b'\n');
        // A part of a line would make the next one unreadable.
        self.mend().map_err(|source| self.fault(source))?;
        let before = self.file.metadata().map_err(|source| self.fault(source))?.len();
        if let Err(source) = self.file.write_all(&text) {
            self.torn_at = Some(before);
            // Where this fails too, it is done before the next line.
            let _ = self.mend();
            return Err(self.fault(source));
        }
        self.seq = line.seq;
        self.live.tell(&self.run, self.seq);
        Ok(())
    }

    /// Cuts off what is there of a refused line.
    fn mend(&mut self) -> io::Result<()> {
        if let Some(n_bytes) = self.torn_at {
            self.file.set_len(n_bytes)?;
            self.torn_at = None;
        }
        Ok(())
    }

    fn fault(&self, source: io::Error) -> StoreError {
        StoreError::Write { path: self.path.clone(), source }
    }
}

/// What a file holds.
#[derive(Default)]
struct Scanned {
    n_bytes: u64,
    seq: u64,
    n_updates: u64,
    part: Option<(u64, u64)>,
    is_closed: bool,
}

/// Looks at every line up to the first that is not whole.
fn scan(file: &File) -> io::Result<Scanned> {
    let mut reader = BufReader::new(file);
    let mut found = Scanned::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        reader.by_ref().take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut line)?;
        let Some(head) = head(&line).filter(|head| head.seq == found.seq + 1) else {
            return Ok(found);
        };
        found.n_bytes += line.len() as u64;
        found.seq = head.seq;
        found.n_updates = head.update.unwrap_or(found.n_updates);
        found.part = head.part.map(|number| (number, found.n_updates)).or(found.part);
        found.is_closed = head.last;
    }
}

fn head(line: &[u8]) -> Option<Head> {
    serde_json::from_slice(line.strip_suffix(b"\n")?).ok()
}

/// A line of the file, as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its number.
    pub seq: u64,
    /// Whether nothing comes after it.
    pub last: bool,
    /// The JSON object, without a newline.
    pub json: String,
}

/// Reads the news of one run from a number on. To wait for more, take [`super::Store::watch`]
/// *before* reading: what is written in between is then announced.
#[derive(Debug)]
pub struct EventReader {
    path: PathBuf,
    after: u64,
    offset: u64,
}

impl EventReader {
    pub(super) fn new(path: PathBuf, after: u64) -> Self {
        Self { path, after, offset: 0 }
    }

    /// The next events that are there, in order; none where there are no more yet. It reads a part of
    /// the file at a time, so one call after another is needed until it gives none.
    ///
    /// # Errors
    /// [`StoreError::Read`] when the file cannot be read; one that is not there yet has no events.
    pub fn read(&mut self) -> Result<Vec<StoredEvent>, StoreError> {
        loop {
            let from = self.offset;
            let events = match self.read_part() {
                Ok(events) => events,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(source) => return Err(StoreError::Read { path: self.path.clone(), source }),
            };
            // A part may hold nothing but what the reader has seen.
            if !events.is_empty() || self.offset == from {
                return Ok(events);
            }
        }
    }

    fn read_part(&mut self) -> io::Result<Vec<StoredEvent>> {
        let mut reader = BufReader::with_capacity(READ_BYTES, File::open(&self.path)?);
        reader.seek(SeekFrom::Start(self.offset))?;
        let mut events = Vec::new();
        let mut n_read = 0;
        let mut line = Vec::new();
        while n_read < READ_BYTES {
            line.clear();
            n_read += reader.by_ref().take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut line)?;
            let Some(Head { seq, last, .. }) = head(&line) else { break };
            self.offset += line.len() as u64;
            line.pop();
            if seq > self.after {
                self.after = seq;
                events.push(StoredEvent { seq, last, json: String::from_utf8_lossy(&line).into() });
            }
        }
        Ok(events)
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{RunId, Slug};

    #[derive(Serialize)]
    struct Said {
        kind: &'static str,
        text: String,
    }

    fn said(text: &str) -> Said {
        Said { kind: "said", text: text.to_owned() }
    }

    fn name() -> RunName {
        RunName {
            collection: Slug::new("team").unwrap(),
            task: Slug::new("hello").unwrap(),
            id: RunId::from_uuid(uuid::Uuid::from_u128(1 << 100)),
        }
    }

    fn log(folder: &Path) -> EventLog {
        EventLog::open(folder.join("events.jsonl"), name(), LiveRuns::default()).unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    #[test]
    fn a_line_has_its_number_its_time_and_its_payload() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path());
        log.append(now(), &said("a")).unwrap();
        log.append_update(now(), &said("b")).unwrap();
        log.close(now(), &said("c")).unwrap();
        log.close(now(), &said("never")).unwrap();
        let text = std::fs::read_to_string(folder.path().join("events.jsonl")).unwrap();
        let at = "1970-01-01T00:00:00Z";
        assert_eq!(
            text,
            format!(
                "{{\"seq\":1,\"at\":\"{at}\",\"kind\":\"said\",\"text\":\"a\"}}\n\
                 {{\"seq\":2,\"at\":\"{at}\",\"update\":1,\"kind\":\"said\",\"text\":\"b\"}}\n\
                 {{\"seq\":3,\"at\":\"{at}\",\"last\":true,\"kind\":\"said\",\"text\":\"c\"}}\n"
            )
        );
    }

    #[test]
    fn the_updates_of_each_step_are_counted_apart_and_a_step_begins_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = log(folder.path());
        first.begin_part(1, now(), &said("one")).unwrap();
        first.append_update(now(), &said("a")).unwrap();
        first.append_update(now(), &said("b")).unwrap();
        assert_eq!(first.n_updates(), 2);
        first.begin_part(2, now(), &said("two")).unwrap();
        first.append_update(now(), &said("c")).unwrap();
        drop(first);
        let mut second = log(folder.path());
        assert_eq!((second.seq(), second.n_updates()), (5, 1));
        second.begin_part(2, now(), &said("two")).unwrap();
        second.append_update(now(), &said("d")).unwrap();
        assert_eq!((second.seq(), second.n_updates()), (6, 2));
        let text = std::fs::read_to_string(folder.path().join("events.jsonl")).unwrap();
        assert!(text.contains(r#""part":2,"#) && text.contains(r#""update":4,"#), "{text}");
    }

    #[test]
    fn a_reader_goes_on_after_the_number_that_it_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut early = EventReader::new(path.clone(), 1);
        assert_eq!(early.read().unwrap(), []);
        let mut log = log(folder.path());
        log.append(now(), &said("a")).unwrap();
        assert_eq!(early.read().unwrap(), []);
        log.append(now(), &said("b")).unwrap();
        log.close(now(), &said("c")).unwrap();
        let seen: Vec<(u64, bool)> =
            early.read().unwrap().iter().map(|event| (event.seq, event.last)).collect();
        assert_eq!(seen, [(2, false), (3, true)]);
        assert_eq!(early.read().unwrap(), []);
        let mut late = EventReader::new(path, 7);
        assert_eq!(late.read().unwrap(), []);
    }

    proptest::proptest! {
        /// A process may end inside any write: nothing whole is lost, and numbers have no gap.
        #[test]
        fn a_file_cut_anywhere_is_gone_on_with(
            texts in proptest::collection::vec("[a-z\"\n]{0,20}", 1..8),
            cut in 0_usize..2_000,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("events.jsonl");
            let mut first = log(folder.path());
            for text in &texts {
                first.append_update(now(), &said(text)).unwrap();
            }
            drop(first);
            let whole = std::fs::read(&path).unwrap();
            let cut = cut.min(whole.len());
            let n_whole = whole[..cut].iter().filter(|&&b| b == b'\n').count() as u64;
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut again = log(folder.path());
            proptest::prop_assert_eq!((again.seq(), again.n_updates()), (n_whole, n_whole));
            again.append(now(), &said("after")).unwrap();
            let read = EventReader::new(path, 0).read().unwrap();
            let numbers: Vec<u64> = read.iter().map(|event| event.seq).collect();
            proptest::prop_assert_eq!(numbers, (1..=n_whole + 1).collect::<Vec<_>>());
        }
    }
}
