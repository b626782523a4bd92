//! Every recorded stream, from its bytes to its outcome.

use std::fmt::Write as _;
use std::path::PathBuf;

use expect_test::expect_file;
use jiff::{SignedDuration, Timestamp};

use super::{AgentEnd, OutcomeFacts, end_warnings, outcome, parse_line};
use crate::run::RunStatus;
use crate::trajectory::{Recorder, Usage, UsageReport};

/// A stream that was recorded with the pinned CLI, with how its process ended.
pub(super) struct Recorded {
    pub(super) name: String,
    pub(super) stream: Vec<u8>,
    end: AgentEnd,
    stderr: String,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/claude-code")
}

pub(super) fn recorded_streams() -> Vec<Recorded> {
    let index = std::fs::read_to_string(folder().join("INDEX.tsv")).unwrap();
    index.lines().skip(1).map(recorded).collect()
}

fn recorded(row: &str) -> Recorded {
    let fields: Vec<&str> = row.split('\t').collect();
    let [file, code, stderr] = fields[..] else { panic!("{row:?} has not three fields") };
    let code: i32 = code.parse().unwrap();
    Recorded {
        name: file.trim_end_matches(".jsonl").to_owned(),
        stream: std::fs::read(folder().join(file)).unwrap(),
        // The recorder of the streams wrote a death by signal as a negative code.
        end: if code < 0 { AgentEnd::Signaled(-code) } else { AgentEnd::Exited(code) },
        stderr: stderr.to_owned(),
    }
}

/// Records a stream whose lines arrive a second apart.
pub(super) fn record(stream: &[u8]) -> Recorder {
    let mut recorder = Recorder::new();
    let mut at = Timestamp::UNIX_EPOCH;
    for (line, bytes) in (1..).zip(stream.split_inclusive(|&byte| byte == b'\n')) {
        at += SignedDuration::from_secs(1);
        recorder.record(line, at, parse_line(bytes));
    }
    recorder
}

fn facts<'a>(recorded: &'a Recorded, recorder: &'a Recorder) -> OutcomeFacts<'a> {
    OutcomeFacts {
        summary: recorder.summary(),
        end: recorded.end,
        stopped: None,
        stderr_tail: &recorded.stderr,
        provider: "anthropic",
        credential: "ANTHROPIC_API_KEY",
        max_turns: None,
    }
}

fn counts(usage: &Usage) -> String {
    let Usage { input, output, cache_read, requests_seen, .. } = usage;
    let cost = usage.cost_usd.map_or("unknown".to_owned(), |cost| format!("${cost:.6}"));
    let written = usage.cache_write();
    format!(
        "{input} in, {output} out, {cache_read} read, {written} written, {requests_seen} seen, {cost}"
    )
}

fn usage_lines(report: &UsageReport, out: &mut String) {
    for (model, usage) in report.by_model.iter() {
        writeln!(out, "    {:?} {model}: {}", report.source, counts(usage)).unwrap();
    }
}

#[test]
fn every_recorded_stream_has_its_outcome() {
    let mut table = String::new();
    for recorded in recorded_streams() {
        let recorder = record(&recorded.stream);
        let facts = facts(&recorded, &recorder);
        let name = &recorded.name;
        match outcome(&facts) {
            RunStatus::Failed(failure) => {
                writeln!(table, "{name}: failed {}\n    {failure}", failure.code()).unwrap();
            }
            status @ (RunStatus::Pending
            | RunStatus::Running
            | RunStatus::Completed
            | RunStatus::Cancelled) => {
                writeln!(table, "{name}: {}", status.as_str()).unwrap();
            }
        }
        usage_lines(&recorder.usage(), &mut table);
        for warning in recorder.warnings().into_iter().chain(end_warnings(&facts)) {
            writeln!(table, "    ! {warning}").unwrap();
        }
    }
    expect_file!["../../../tests/golden/claude-code/outcomes.txt"].assert_eq(&table);
}
