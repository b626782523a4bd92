//! A long log, made of recorded streams.
//!
//! The recorded streams are short, and most of their bytes are the opening line, of which a long run
//! has one. So a long log is one opening, then the inner lines of a fixed list of streams again and
//! again, then one result. The ids in them are renewed each time, because a run's ids are never the
//! same twice and what the record keeps depends on them.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::Outcome;

/// The streams of every round: tools that work and fail, sub-agents, thinking, partial messages,
/// retries, a compaction, an MCP server, hooks.
const STREAMS: [&str; 16] = [
    "tool_write_read_edit_todo",
    "tool_use_parallel",
    "tool_failing",
    "thinking",
    "subagent",
    "subagent_explore",
    "subagent_background",
    "partial_messages",
    "partial_with_subagent",
    "permission_denials",
    "structured_output_never",
    "err_529_fallback",
    "compaction_midrun",
    "mcp_late_join",
    "hooks",
    "image_small",
];

/// The stream with a line of a third of a megabyte.
const LONG_LINES: &str = "image_big";

/// It comes once in so many rounds, so that it is a fifth of the bytes and not most of them.
const LONG_LINES_EVERY: usize = 16;

/// What a renewed id begins with: replies and tool calls.
const IDS: [&str; 2] = ["msg_", "toolu_"];

/// Whether a log's ids are those of a real run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ids {
    /// Each round has its own, as in a run.
    New,
    /// Each round has the first one's: what the record keeps for each reply does not grow.
    Repeated,
}

/// A log on the disk.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) path: PathBuf,
    pub(crate) n_bytes: u64,
    pub(crate) n_lines: u64,
}

/// Writes a log of at least `n_bytes` into `folder`.
pub(crate) fn write(folder: &Path, n_bytes: u64, ids: Ids) -> Outcome<Log> {
    let rounds = Rounds::read()?;
    let path = folder.join(format!("{n_bytes}-{ids:?}.jsonl"));
    let mut log = Log { path, n_bytes: 0, n_lines: 0 };
    let mut file = BufWriter::new(File::create(&log.path)?);
    let mut append = |log: &mut Log, text: &str| {
        log.n_bytes += text.len() as u64;
        log.n_lines += text.lines().count() as u64;
        file.write_all(text.as_bytes())
    };
    append(&mut log, &rounds.opening)?;
    for round in 0.. {
        if log.n_bytes >= n_bytes {
            break;
        }
        append(&mut log, &renewed(&rounds.inner, round, ids))?;
        if round % LONG_LINES_EVERY == 0 {
            append(&mut log, &renewed(&rounds.long, round, ids))?;
        }
    }
    append(&mut log, &rounds.result)?;
    file.flush()?;
    Ok(log)
}

/// What a log is put together from. Each part ends with a newline.
struct Rounds {
    opening: String,
    inner: String,
    long: String,
    result: String,
}

impl Rounds {
    fn read() -> Outcome<Self> {
        let [first, ..] = STREAMS;
        let (mut opening, mut result) = (String::new(), String::new());
        for line in lines_of(first)? {
            match part_of(&line)? {
                Part::Opening => opening = line,
                Part::Inner => {}
                Part::Result => result = line,
            }
        }
        let mut inner = String::new();
        for stream in STREAMS {
            inner.push_str(&inner_lines(stream)?);
        }
        Ok(Self { opening, inner, long: inner_lines(LONG_LINES)?, result })
    }
}

/// Where in a run a line belongs.
enum Part {
    Opening,
    Inner,
    Result,
}

fn part_of(line: &str) -> Outcome<Part> {
    let line: Value = serde_json::from_str(line)?;
    let word = |key: &str| line.get(key).and_then(Value::as_str);
    Ok(match (word("type"), word("subtype")) {
        (Some("system"), Some("init")) => Part::Opening,
        (Some("result"), _) => Part::Result,
        (_, _) => Part::Inner,
    })
}

fn inner_lines(stream: &str) -> Outcome<String> {
    let mut inner = String::new();
    for line in lines_of(stream)? {
        if matches!(part_of(&line)?, Part::Inner) {
            inner.push_str(&line);
        }
    }
    Ok(inner)
}

/// The lines of a recorded stream, each with its newline.
fn lines_of(stream: &str) -> Outcome<Vec<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/claude-code");
    let path = folder.join(format!("{stream}.jsonl"));
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(text.lines().map(|line| format!("{line}\n")).collect())
}

fn renewed(lines: &str, round: usize, ids: Ids) -> String {
    match ids {
        Ids::New => IDS.iter().fold(lines.to_owned(), |lines, id| {
            // Inside a JSON string: the text and its length stay as they are but for the id.
            lines.replace(&format!("\"{id}"), &format!("\"{id}{round}_"))
        }),
        Ids::Repeated => lines.to_owned(),
    }
}
