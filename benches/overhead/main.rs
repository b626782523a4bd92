//! What `runbookd run` costs over the agent CLI itself. See `docs/benchmarks.md`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark is read by a person")]

mod agent;
#[path = "../common/mod.rs"]
mod common;
mod engine;
mod floor;
mod product;
mod setup;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser as _, ValueEnum as _};

use common::{Outcome, Samples, Table};
use engine::Engine;
use floor::FloorRun;
use product::{Part, ProductRun};
use setup::Setup;

/// Pairs of runs, unless told otherwise.
const N_RUNS: usize = 15;

/// Pairs of a quick trial.
const N_QUICK_RUNS: usize = 2;

/// The image that runbookd takes where none is named.
const DEFAULT_IMAGE: &str = "debian:bookworm-slim";

/// Measures what `runbookd run` costs over the agent CLI itself.
#[derive(Debug, clap::Parser)]
#[command(name = "overhead")]
struct Arguments {
    /// Pairs of runs on each engine [default: 15, and 2 with --quick].
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// A small trial: two pairs.
    #[arg(long)]
    quick: bool,
    /// One engine alone, instead of all that are here.
    #[arg(long)]
    engine: Option<Engine>,
    /// The container image [default: RUNBOOKD_IMAGE, or debian:bookworm-slim].
    #[arg(long)]
    image: Option<String>,
    /// What `cargo bench` passes.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A run of the product and a run of the floor, one right after the other.
type Pair = (ProductRun, FloorRun);

#[tokio::main]
async fn main() -> ExitCode {
    if !common::is_called_by_cargo_bench() {
        return ExitCode::SUCCESS;
    }
    common::conclude(compare(Arguments::parse()).await)
}

async fn compare(arguments: Arguments) -> Outcome<()> {
    println!("{}\n", common::describe());
    let default = if arguments.quick { N_QUICK_RUNS } else { N_RUNS };
    let n_runs = arguments.runs.unwrap_or(default).max(1);
    let setup = Setup::new(arguments.image, DEFAULT_IMAGE).await?;
    println!("{n_runs} pairs of runs on each engine, in turns; image {}.\n", setup.image);
    let mut measured = Vec::new();
    for &engine in Engine::value_variants() {
        if arguments.engine.is_some_and(|chosen| chosen != engine) {
            continue;
        }
        match engine.check(&setup.image).await {
            Ok(()) => measured.push((engine, pairs(&setup, engine, n_runs).await?)),
            Err(missing) if arguments.engine.is_none() => {
                println!("{} is left out: {missing}.\n", engine.name());
            }
            Err(missing) => return Err(missing),
        }
    }
    if measured.is_empty() {
        return Err("no engine is here to be measured".into());
    }
    println!("{}\n{}", costs(&measured), parts(&measured));
    Ok(())
}

/// Takes product and floor in turns, so that they share the machine's noise.
async fn pairs(setup: &Setup, engine: Engine, n_runs: usize) -> Outcome<Vec<Pair>> {
    // Once each for the page cache: the CLI alone has 248 MB.
    let (first, _) = pair(setup, engine, None).await?;
    let mut pairs = Vec::new();
    for _ in 0..n_runs {
        pairs.push(pair(setup, engine, Some(&first)).await?);
    }
    Ok(pairs)
}

async fn pair(setup: &Setup, engine: Engine, first: Option<&ProductRun>) -> Outcome<Pair> {
    let product = product::run(setup, engine).await?;
    let instruction = &first.unwrap_or(&product).instruction;
    let floor = floor::run(setup, engine, instruction).await?;
    Ok((product, floor))
}

/// The cost of the product over the floor.
fn costs(measured: &[(Engine, Vec<Pair>)]) -> Table {
    let mut table = Table::new([
        "engine",
        "`runbookd run`, ms",
        "floor, ms",
        "ratio",
        "difference, ms",
        "without the agent, ms",
        "peak memory, MB",
    ]);
    for (engine, pairs) in measured {
        let taken = |of: fn(&Pair) -> f64| pairs.iter().map(of).collect::<Samples>();
        table.row([
            engine.name().to_owned(),
            taken(|(product, _)| ms(product.wall)).show(0),
            taken(|(_, floor)| ms(floor.wall)).show(0),
            taken(|(product, floor)| ms(product.wall) / ms(floor.wall)).show(2),
            taken(|(product, floor)| ms(product.wall) - ms(floor.wall)).show(0),
            taken(|(product, _)| ms(product.overhead())).show(0),
            taken(|(product, _)| product.peak_bytes as f64 / 1e6).show(1),
        ]);
    }
    table
}

/// Where the time of the product goes.
fn parts(measured: &[(Engine, Vec<Pair>)]) -> Table {
    let mut table = Table::new(["engine", "part of `runbookd run`", "ms: median (least to most)"]);
    for (engine, pairs) in measured {
        let mut row = |part: &str, samples: Samples| {
            table.row([engine.name().to_owned(), part.to_owned(), samples.show(0)]);
        };
        for part in Part::ALL {
            row(part.name(), pairs.iter().map(|(product, _)| ms(product.took(part))).collect());
        }
        let own = "of which the CLI's own account, from prompt to result";
        row(own, pairs.iter().map(|(product, _)| ms(product.own)).collect());
        row("the CLI's own account in the floor", pairs.iter().map(|(_, f)| ms(f.own)).collect());
    }
    table
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
