//! How fast an agent's output becomes a record, and in how much memory. See `docs/benchmarks.md`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark is read by a person")]

#[path = "../common/mod.rs"]
mod common;
mod log;
mod reading;
mod way;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;

use common::{Outcome, Samples, Table};
use log::{Ids, Log};
use reading::Depth;
use way::{WAYS, Way};

/// The log that the speed is taken on, in bytes: seconds of work for the slowest way.
const LONG_BYTES: u64 = 200_000_000;

/// A tenth of it, for the peak memory: the difference is what grows with a log.
const SHORT_BYTES: u64 = LONG_BYTES / 10;

/// What a quick trial divides both by.
const QUICK_SHARE: u64 = 10;

/// Runs of each way, unless told otherwise.
const N_RUNS: usize = 7;

/// Runs of a quick trial.
const N_QUICK_RUNS: usize = 2;

/// Measures how fast an agent's output becomes a record, and in how much memory.
#[derive(Debug, clap::Parser)]
#[command(name = "ingest")]
struct Arguments {
    /// Runs of each way, in turns [default: 7, and 2 with --quick].
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// A small trial: a tenth of the log and two runs.
    #[arg(long)]
    quick: bool,
    /// Reads this log once and says what it took. This is how the benchmark calls itself.
    #[arg(long, value_name = "FILE", requires = "depth", hide = true)]
    read: Option<PathBuf>,
    /// See `read`.
    #[arg(long, hide = true)]
    depth: Option<Depth>,
    /// What `cargo bench` passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    if !common::is_called_by_cargo_bench() {
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    let outcome = match (&arguments.read, arguments.depth) {
        (Some(path), Some(depth)) => read(path, depth),
        (Some(_), None) | (None, _) => compare(&arguments),
    };
    common::conclude(outcome)
}

fn read(path: &Path, depth: Depth) -> Outcome<()> {
    println!("{}", serde_json::to_string(&reading::read(path, depth)?)?);
    Ok(())
}

fn compare(arguments: &Arguments) -> Outcome<()> {
    println!("{}\n", common::describe());
    let share = if arguments.quick { QUICK_SHARE } else { 1 };
    let default = if arguments.quick { N_QUICK_RUNS } else { N_RUNS };
    let n_runs = arguments.runs.unwrap_or(default).max(1);
    let folder = tempfile::tempdir()?;
    let write = |n_bytes: u64, ids| log::write(folder.path(), n_bytes / share, ids);
    let long = write(LONG_BYTES, Ids::New)?;
    println!(
        "{:.0} MB, {} lines of {:.0} bytes on average, {n_runs} runs of each way, in turns.\n",
        megabytes(long.n_bytes),
        long.n_lines,
        long.n_bytes as f64 / long.n_lines as f64,
    );
    let speeds = speeds(&long, n_runs)?;
    let memory = [
        (Ids::New, write(SHORT_BYTES, Ids::New)?, long),
        (Ids::Repeated, write(SHORT_BYTES, Ids::Repeated)?, write(LONG_BYTES, Ids::Repeated)?),
    ];
    println!("{speeds}\n{}", peaks(&memory)?);
    Ok(())
}

/// Takes the ways in turns, so that they share the machine's noise.
fn speeds(log: &Log, n_runs: usize) -> Outcome<Table> {
    // Once for the page cache, which all of them read from.
    Way::WordCount.speed(log)?;
    let mut rounds: Vec<[f64; WAYS.len()]> = Vec::new();
    for _ in 0..n_runs {
        let mut round = [f64::NAN; WAYS.len()];
        for (speed, way) in round.iter_mut().zip(WAYS) {
            *speed = way.speed(log)?;
        }
        rounds.push(round);
    }
    let mut table = Table::new(["way", "MB/s: median (least to most)", "times `wc`", "times `jq`"]);
    for (place, way) in WAYS.iter().enumerate() {
        let taken = |of: fn(&[f64; WAYS.len()], usize) -> f64| -> Samples {
            rounds.iter().map(|round| of(round, place)).collect()
        };
        table.row([
            way.name().to_owned(),
            taken(|round, place| round[place]).show(0),
            taken(|round, place| round[place] / round[0]).show(3),
            taken(|round, place| round[place] / round[1]).show(2),
        ]);
    }
    Ok(table)
}

/// The peak memory with a short and with a long log of each kind.
fn peaks(logs: &[(Ids, Log, Log)]) -> Outcome<Table> {
    let mut table = Table::new([
        "replies' ids",
        "way",
        "log, MB",
        "replies",
        "peak memory, MB",
        "more for the long log, MB",
    ]);
    for (ids, short, long) in logs {
        for depth in [Depth::Lines, Depth::Fold, Depth::Redact] {
            let (small, large) = (way::product(short, depth)?, way::product(long, depth)?);
            table.row([
                match ids {
                    Ids::New => "as in a run".to_owned(),
                    Ids::Repeated => "repeated".to_owned(),
                },
                Way::Product(depth).name().to_owned(),
                format!("{:.0} and {:.0}", megabytes(short.n_bytes), megabytes(long.n_bytes)),
                format!("{} and {}", small.n_replies, large.n_replies),
                format!(
                    "{:.1} and {:.1}",
                    megabytes(small.peak_bytes),
                    megabytes(large.peak_bytes)
                ),
                format!("{:.1}", megabytes(large.peak_bytes) - megabytes(small.peak_bytes)),
            ]);
        }
    }
    Ok(table)
}

fn megabytes(n_bytes: u64) -> f64 {
    n_bytes as f64 / 1e6
}
