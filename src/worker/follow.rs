//! Follows the agent's standard output while it grows: bytes to lines to events to the record.
//!
//! The CLI writes to a regular file, because through a pipe it loses its tail. So this reads a file
//! that somebody else writes, copies what it has read (secrets masked) into the results directory,
//! and notices when what it has read changes behind it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::heard::Heard;
use super::lines::{Ending, Lines, MAX_LINE_BYTES};
use crate::run::{RunFailure, RuntimeName};
use crate::runtime;
use crate::secret::{RedactedStream, Redactor};
use crate::store::{Arrivals, LogFile, StoreError};
use crate::telemetry::meters;
use crate::trajectory::{AgentEvent, Recorder, StepUpdate};

/// How much is read at once, in bytes. Large enough for speed, small enough that a flood cannot
/// keep the run's other watches waiting.
const READ_BYTES: usize = 1 << 20;

/// Most findings of one run that are noted from outside. A run can be slow many times.
const MAX_FINDINGS: usize = 20;

/// The agent's output could not be followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    #[error("could not read the agent's output `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What one look at the file brought.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// What a live view should show.
    pub(super) updates: Vec<StepUpdate>,
    /// Why the run must end now, if an event says so.
    pub(super) must_stop: Option<RunFailure>,
    /// Whether the agent has given a result and nothing has contradicted it since.
    pub(super) has_result: bool,
    /// Whether there may be more to read at once.
    pub(super) more: bool,
}

/// What is known of the stream at its end. Part of `trajectory.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seal {
    /// Bytes that the agent wrote, before masking.
    pub(super) n_bytes: u64,
    /// What looked wrong with the file itself, as whole sentences.
    pub(super) findings: Vec<String>,
}

/// Where a follower keeps what it reads.
pub(super) struct Keep {
    /// The log; `None` where the log itself is read.
    pub(super) log: Option<LogFile>,
    /// When the lines arrived.
    pub(super) arrivals: Arrivals,
}

/// Reads a growing file and folds it into a record.
pub(super) struct Follower {
    runtime: RuntimeName,
    path: PathBuf,
    file: File,
    offset: u64,
    hash: Sha256,
    redacted: RedactedStream,
    lines: Lines,
    keep: Keep,
    recorder: Recorder,
    n_lines: u64,
    heard: Heard,
    findings: Vec<String>,
    chunk: Vec<u8>,
    clean: Vec<u8>,
}

impl Follower {
    /// Opens the file. It is held open, so nobody can put another one in its place.
    pub(super) fn open(
        path: &Path,
        runtime: RuntimeName,
        redactor: Redactor,
        keep: Keep,
    ) -> Result<Self, FollowError> {
        let file = File::open(path)
            .map_err(|source| FollowError::Read { path: path.to_owned(), source })?;
        Ok(Self {
            runtime,
            path: path.to_owned(),
            file,
            offset: 0,
            hash: Sha256::new(),
            redacted: RedactedStream::new(redactor),
            lines: Lines::new(MAX_LINE_BYTES),
            keep,
            recorder: Recorder::new(),
            n_lines: 0,
            heard: Heard::default(),
            findings: Vec::new(),
            chunk: vec![0; READ_BYTES],
            clean: Vec::new(),
        })
    }

    /// Bytes read so far.
    pub(super) fn n_bytes(&self) -> u64 {
        self.offset
    }

    /// The record so far.
    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// What the agent's words told of whether the run goes on.
    pub(super) fn heard(&self) -> Heard {
        self.heard
    }

    /// Notes something that looked wrong, as a whole sentence for the record.
    pub(super) fn note(&mut self, finding: String) {
        if self.findings.len() < MAX_FINDINGS && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// Reads what is new, at most [`READ_BYTES`] of it.
    pub(super) fn advance(&mut self, now: Timestamp) -> Result<Progress, FollowError> {
        let n = self.read_chunk().map_err(|source| self.unreadable(source))?;
        if n > 0 {
            self.note_lag(now);
        }
        self.clean.clear();
        self.redacted.feed(&self.chunk[..n], &mut self.clean);
        let mut progress = self.ingest(now)?;
        progress.more = n == READ_BYTES;
        Ok(progress)
    }

    /// Takes what is left after the agent's end, and looks at the whole file once more.
    pub(super) fn finish(mut self, now: Timestamp) -> Result<(Recorder, Seal), FollowError> {
        while self.advance(now)?.more {}
        self.clean.clear();
        let empty = RedactedStream::new(Redactor::nothing());
        std::mem::replace(&mut self.redacted, empty).finish(&mut self.clean);
        self.ingest(now)?;
        let lines = std::mem::replace(&mut self.lines, Lines::new(MAX_LINE_BYTES));
        let Self { runtime, recorder, n_lines, keep, .. } = &mut self;
        lines.finish(|line, ending| {
            *n_lines += 1;
            let arrived = keep.arrivals.of(*n_lines).unwrap_or(now);
            recorder.record(*n_lines, arrived, event(*runtime, line, ending));
        });
        keep.arrivals.note(*n_lines, now)?;
        if let Some(log) = &keep.log {
            log.sync()?;
        }
        if !self.is_unchanged().map_err(|source| self.unreadable(source))? {
            self.findings.push(
                "The agent's output file was changed after it was read; the log holds what was \
                 read first."
                    .to_owned(),
            );
        }
        let seal = Seal { n_bytes: self.offset, findings: self.findings };
        Ok((self.recorder, seal))
    }

    /// Notes how long the newest of what was read has lain there.
    fn note_lag(&self, now: Timestamp) {
        let written = self.file.metadata().and_then(|metadata| metadata.modified()).ok();
        let written = written.and_then(|written| Timestamp::try_from(written).ok());
        // A clock that was set back gives nothing to note.
        let lag = written.and_then(|written| Duration::try_from(now.duration_since(written)).ok());
        if let Some(lag) = lag {
            meters::event_lag(lag);
        }
    }

    fn read_chunk(&mut self) -> io::Result<usize> {
        let length = self.file.metadata()?.len();
        if length < self.offset {
            self.findings.push(format!(
                "The agent's output file shrank from {} to {length} bytes; what was read stays.",
                self.offset
            ));
            self.offset = length;
            // What comes now does not follow what was hashed; the final check says "changed".
        }
        self.file.seek(SeekFrom::Start(self.offset))?;
        let mut n = 0;
        while n < self.chunk.len() {
            match self.file.read(&mut self.chunk[n..])? {
                0 => break,
                some => n += some,
            }
        }
        self.hash.update(&self.chunk[..n]);
        self.offset += n as u64;
        Ok(n)
    }

    /// Writes the clean bytes to the log and folds their lines into the record.
    fn ingest(&mut self, now: Timestamp) -> Result<Progress, FollowError> {
        if let Some(log) = &mut self.keep.log {
            log.append(&self.clean)?;
        }
        let mut progress = Progress::default();
        let Self { runtime, lines, recorder, n_lines, heard, clean, keep, .. } = self;
        lines.feed(clean, |line, ending| {
            *n_lines += 1;
            let event = event(*runtime, line, ending);
            heard.take(&event);
            if progress.must_stop.is_none() {
                progress.must_stop = runtime::early_stop(*runtime, &event);
            }
            // Read a second time, a line keeps the time of the first.
            let arrived = keep.arrivals.of(*n_lines).unwrap_or(now);
            progress.updates.extend(recorder.record(*n_lines, arrived, event));
        });
        keep.arrivals.note(*n_lines, now)?;
        let summary = recorder.summary();
        progress.has_result = summary.last_result.is_some() && !summary.went_on_after_result;
        Ok(progress)
    }

    /// Whether the file's first bytes are still those that were read.
    fn is_unchanged(&mut self) -> io::Result<bool> {
        let mut hash = Sha256::new();
        self.file.seek(SeekFrom::Start(0))?;
        let mut left = self.offset;
        while left > 0 {
            let n = self.file.read(&mut self.chunk)?;
            if n == 0 {
                return Ok(false);
            }
            let n = n.min(usize::try_from(left).unwrap_or(n));
            hash.update(&self.chunk[..n]);
            left -= n as u64;
        }
        Ok(hash.finalize() == self.hash.clone().finalize())
    }

    fn unreadable(&self, source: io::Error) -> FollowError {
        FollowError::Read { path: self.path.clone(), source }
    }
}

fn event(runtime: RuntimeName, line: &[u8], ending: Ending) -> AgentEvent {
    match ending {
        Ending::Newline | Ending::EndOfStream => runtime::parse_line(runtime, line),
        Ending::TooLong => {
            AgentEvent::Unparsed { reason: format!("it is longer than {MAX_LINE_BYTES} bytes") }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::{ProptestConfig, any};
    use proptest::sample::Index;

    use super::*;
    use crate::run::{RunId, RunName, Slug};
    use crate::secret::Secret;
    use crate::store::{RunFolder, Store};
    use crate::trajectory::Step;

    const STREAM: &[u8] = include_bytes!("../../tests/golden/claude-code/permission_denials.jsonl");

    /// Stands in the stream: its beginning is held back where a piece ends in it.
    const SECRET: &str = "touched' was blocked";

    /// Reads the stream while it grows by pieces that end at `cuts`. The first piece comes at second
    /// `start`, each other one a second later.
    fn follow(folder: &RunFolder, cuts: &[Index], start: i64) -> (Vec<StepUpdate>, Vec<Step>) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(STREAM.len())).collect();
        cuts.push(STREAM.len());
        cuts.sort_unstable();
        let path = folder.path().join("stdout");
        let mut stdout = File::create(&path).unwrap();
        let redactor = Redactor::new(&[Secret::new(SECRET.to_owned())]);
        let keep = Keep {
            log: Some(folder.agent_log("claude-code").unwrap()),
            arrivals: folder.arrivals().unwrap(),
        };
        let mut follower = Follower::open(&path, RuntimeName::ClaudeCode, redactor, keep).unwrap();
        let mut updates = Vec::new();
        let mut written = 0;
        let mut now = Timestamp::from_second(start).unwrap();
        for cut in cuts {
            stdout.write_all(&STREAM[written..cut]).unwrap();
            written = cut;
            updates.extend(follower.advance(now).unwrap().updates);
            now = now.checked_add(jiff::SignedDuration::from_secs(1)).unwrap();
        }
        let (recorder, seal) = follower.finish(now).unwrap();
        assert_eq!((seal.n_bytes, seal.findings), (STREAM.len() as u64, vec![]));
        (updates, recorder.steps().cloned().collect())
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// What a process told before it was killed, the next one tells in the same order and with
        /// the same times, wherever its pieces end.
        #[test]
        fn a_stream_that_is_read_again_gives_the_same_record(
            first in proptest::collection::vec(any::<Index>(), 0..12),
            second in proptest::collection::vec(any::<Index>(), 0..12),
        ) {
            let root = tempfile::tempdir().unwrap();
            let name = RunName {
                collection: Slug::new("team").unwrap(),
                task: Slug::new("hello").unwrap(),
                id: RunId::from_uuid(uuid::Uuid::nil()),
            };
            let folder = Store::open(root.path()).unwrap().run(&name).unwrap();
            let log = || std::fs::read_to_string(folder.agent_log_path("claude-code")).unwrap();
            let told = follow(&folder, &first, 1_000);
            let kept = log();
            proptest::prop_assert!(!told.0.is_empty() && !kept.contains(SECRET));
            let told_again = follow(&folder, &second, 9_000);
            proptest::prop_assert_eq!(told, told_again);
            proptest::prop_assert_eq!(kept, log());
        }
    }
}
