//! Reads a log as the product does, as far as is asked. Runs in a process of its own, so that its
//! peak memory is its own.

use std::fs::File;
use std::hint::black_box;
use std::io::Read as _;
use std::path::Path;

use jiff::Timestamp;
use runbookd::run::RuntimeName;
use runbookd::runtime::parse_line;
use runbookd::secret::{RedactedStream, Redactor, Secret};
use runbookd::trajectory::Recorder;
use runbookd::worker::{Lines, MAX_LINE_BYTES};
use serde::{Deserialize, Serialize};

use crate::common::{Outcome, peak_bytes};

/// How much is read at once, in bytes: what the product reads.
const READ_BYTES: usize = 1 << 20;

/// Two secrets, as a run with one provider's key and one of the runbook's own has them. Neither
/// stands in the log, which is the usual case.
const SECRETS: [&str; 2] =
    ["sk-ant-made-up-0123456789abcdefghijklmnopqrstuvwxyz", "made-up/token+with=odd\"characters"];

/// How far a log is read. Each does what stands above it, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Depth {
    /// Cut into lines.
    Lines,
    /// Lines read as events.
    Parse,
    /// Events folded into the record.
    Fold,
    /// Two secrets searched for before all that.
    Redact,
}

/// What a reading found, and what it took.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reading {
    pub(crate) n_lines: u64,
    /// Lines that the parser or the record did not understand: a sign that the log is wrong.
    pub(crate) n_strange: u64,
    pub(crate) n_replies: u64,
    pub(crate) peak_bytes: u64,
}

/// Reads the log at `path`.
pub(crate) fn read(path: &Path, depth: Depth) -> Outcome<Reading> {
    let mut file = File::open(path)?;
    let secrets = SECRETS.map(|value| Secret::new(value.to_owned()));
    let mut redacted = RedactedStream::new(Redactor::new(&secrets));
    let mut lines = Lines::new(MAX_LINE_BYTES);
    let mut fold = Fold { depth, n_lines: 0, recorder: Recorder::new() };
    let mut chunk = vec![0; READ_BYTES];
    let mut clean = Vec::new();
    loop {
        let n = file.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        let piece = match depth {
            Depth::Lines | Depth::Parse | Depth::Fold => &chunk[..n],
            Depth::Redact => {
                clean.clear();
                redacted.feed(&chunk[..n], &mut clean);
                &clean
            }
        };
        lines.feed(piece, |line, _| fold.take(line));
    }
    clean.clear();
    redacted.finish(&mut clean);
    lines.feed(&clean, |line, _| fold.take(line));
    lines.finish(|line, _| fold.take(line));
    fold.finish()
}

struct Fold {
    depth: Depth,
    n_lines: u64,
    recorder: Recorder,
}

impl Fold {
    fn take(&mut self, line: &[u8]) {
        self.n_lines += 1;
        match self.depth {
            Depth::Lines => {
                black_box(line);
            }
            Depth::Parse => {
                black_box(parse_line(RuntimeName::ClaudeCode, line));
            }
            Depth::Fold | Depth::Redact => {
                let event = parse_line(RuntimeName::ClaudeCode, line);
                black_box(self.recorder.record(self.n_lines, Timestamp::UNIX_EPOCH, event));
            }
        }
    }

    fn finish(self) -> Outcome<Reading> {
        let summary = self.recorder.summary();
        Ok(Reading {
            n_lines: self.n_lines,
            n_strange: summary.n_unknown + summary.n_unparsed,
            n_replies: summary.n_replies,
            peak_bytes: peak_bytes("self").ok_or("/proc/self/status has no VmHWM")?,
        })
    }
}
