//! The ways through a log that are compared, each a process of its own.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use clap::ValueEnum as _;

use super::log::Log;
use super::reading::{Depth, Reading};
use crate::common::Outcome;

/// A way through a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// `wc -l`: nobody reads the bytes in less.
    WordCount,
    /// `jq -c .type`: what a person would do, and what parses all of the JSON.
    Jq,
    /// The product, as far as is said.
    Product(Depth),
}

/// The ways in the order of the table. The first two are the floors.
pub(crate) const WAYS: [Way; 6] = [
    Way::WordCount,
    Way::Jq,
    Way::Product(Depth::Lines),
    Way::Product(Depth::Parse),
    Way::Product(Depth::Fold),
    Way::Product(Depth::Redact),
];

impl Way {
    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WordCount => "`wc -l`",
            Self::Jq => "`jq -c .type`",
            Self::Product(Depth::Lines) => "lines",
            Self::Product(Depth::Parse) => "lines, parse",
            Self::Product(Depth::Fold) => "lines, parse, fold",
            Self::Product(Depth::Redact) => "redact, lines, parse, fold",
        }
    }

    /// Goes through `log` once. Gives megabytes in a second, of the whole process.
    pub(crate) fn speed(self, log: &Log) -> Outcome<f64> {
        let begun = Instant::now();
        match self {
            Self::WordCount => {
                succeed(Command::new("wc").arg("-l").arg(&log.path))?;
            }
            Self::Jq => {
                let mut jq = Command::new("jq");
                // Thrown away by itself: a pipe to us would measure the pipe.
                succeed(jq.args(["-c", ".type"]).arg(&log.path).stdout(Stdio::null()))?;
            }
            Self::Product(depth) => {
                product(log, depth)?;
            }
        }
        Ok(log.n_bytes as f64 / 1e6 / begun.elapsed().as_secs_f64())
    }
}

/// Reads `log` in a new process of this program.
pub(crate) fn product(log: &Log, depth: Depth) -> Outcome<Reading> {
    let depth = depth.to_possible_value().ok_or("a depth without a name")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--bench", "--depth", depth.get_name(), "--read"]).arg(&log.path);
    let reading: Reading = serde_json::from_slice(&succeed(&mut command)?.stdout)?;
    if reading.n_lines != log.n_lines || reading.n_strange != 0 {
        return Err(format!("the log of {} lines was read as {reading:?}", log.n_lines).into());
    }
    Ok(reading)
}

/// Waits without a limit: each of the programs reads a regular file to its end.
fn succeed(command: &mut Command) -> Outcome<Output> {
    let program = Path::new(command.get_program()).display().to_string();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("`{program}` must be here to be measured: {e}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{program}` ended with {}: {}", output.status, words.trim()).into())
}
