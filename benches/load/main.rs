//! What a server bears: submits, runs, followers, memory. See `docs/benchmarks.md`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark is read by a person")]

mod agent;
#[path = "../common/mod.rs"]
mod common;
mod lag;
mod server;
mod submit;
mod tail;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

use agent::Agent;
use common::{Outcome, Samples, Table};
use server::Server;
use submit::Load;
use tail::Tail;

/// Clients that submit at the same time.
const SUBMITTERS: [usize; 3] = [1, 8, 64];

/// Runs of each load, unless told otherwise.
const N_RUNS: usize = 400;

/// Turns: each has every load once.
const N_TURNS: usize = 3;

/// Runs of each load in a quick trial.
const N_QUICK_RUNS: usize = 64;

/// Runs that are there at the same time when memory is measured.
const N_LIVE: usize = 50;

/// How long a server is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(3);

/// Measures what a server bears.
#[derive(Debug, clap::Parser)]
#[command(name = "load")]
struct Arguments {
    /// Runs of each load [default: 400, and 64 with --quick].
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// A small trial.
    #[arg(long)]
    quick: bool,
    /// How many runs go on at the same time.
    #[arg(long, value_name = "N", default_value_t = 4)]
    slots: usize,
    /// What `cargo bench` passes.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The engine: its sandboxes cost the least, so that most of what is measured is the server.
const ENGINE: &str = "bubblewrap";

#[tokio::main]
async fn main() -> ExitCode {
    if !common::is_called_by_cargo_bench() {
        return ExitCode::SUCCESS;
    }
    // The HTTP client wants one, even for addresses without TLS; nobody else has chosen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    common::conclude(measure(Arguments::parse()).await)
}

async fn measure(arguments: Arguments) -> Outcome<()> {
    println!("{}\n", common::describe());
    let (n_runs, n_turns) = if arguments.quick { (N_QUICK_RUNS, 1) } else { (N_RUNS, N_TURNS) };
    let n_runs = arguments.runs.unwrap_or(n_runs).max(1);
    println!(
        "{n_runs} runs of each load, {} at the same time, on {ENGINE}; {n_turns} turns.\n",
        arguments.slots,
    );
    println!("{}", loads(&arguments, (n_runs, n_turns)).await?);
    println!("{}", followers().await?);
    println!("{}", memory().await?);
    Ok(())
}

/// One load and its floors, one right after the other.
struct Turn {
    appends: Tail,
    bare: f64,
    load: Load,
}

async fn turn(n_submitters: usize, slots: usize, n_runs: usize) -> Outcome<Turn> {
    // A server of its own for each, so that none has the others' rows.
    let server = Server::start(Agent::Noop, ENGINE, slots).await?;
    let appends = submit::appends(server.home(), n_runs)?;
    let bare = submit::bare(slots, n_runs).await?;
    let (server, load) = submit::load(server, n_submitters, n_runs).await?;
    server.stop().await?;
    Ok(Turn { appends, bare, load })
}

/// Submits and runs, beside their floors.
async fn loads(arguments: &Arguments, (n_runs, n_turns): (usize, usize)) -> Outcome<Table> {
    let mut table = Table::new([
        "submitters",
        "submit p50, ms",
        "submit p99, ms",
        "an append p50, ms",
        "an append p99, ms",
        "runs/s",
        "bare sandboxes/s",
        "ratio",
    ]);
    let mut turns = SUBMITTERS.map(|_| Vec::new());
    for _ in 0..n_turns {
        for (n_submitters, taken) in SUBMITTERS.iter().zip(&mut turns) {
            taken.push(turn(*n_submitters, arguments.slots, n_runs).await?);
        }
    }
    for (n_submitters, turns) in SUBMITTERS.iter().zip(&turns) {
        let taken = |of: &dyn Fn(&Turn) -> f64| turns.iter().map(of).collect::<Samples>();
        table.row([
            n_submitters.to_string(),
            taken(&|turn| turn.load.submits.quantile(0.5)).show(1),
            taken(&|turn| turn.load.submits.quantile(0.99)).show(1),
            taken(&|turn| turn.appends.quantile(0.5)).show(1),
            taken(&|turn| turn.appends.quantile(0.99)).show(1),
            taken(&|turn| turn.load.runs_per_second).show(1),
            taken(&|turn| turn.bare).show(1),
            taken(&|turn| turn.load.runs_per_second / turn.bare).show(2),
        ]);
    }
    Ok(table)
}

/// From an agent's word to a client.
async fn followers() -> Outcome<Table> {
    let server = Server::start(Agent::Clock, ENGINE, 1).await?;
    let lag = lag::lag(&server).await?;
    server.stop().await?;
    let mut table = Table::new(["words", "said to heard p50, ms", "p99, ms"]);
    table.row([
        lag.len().to_string(),
        format!("{:.1}", lag.quantile(0.5)),
        format!("{:.1}", lag.quantile(0.99)),
    ]);
    Ok(table)
}

/// The server's memory, alone and with many runs.
async fn memory() -> Outcome<Table> {
    let server = Server::start(Agent::Sleeper, ENGINE, N_LIVE).await?;
    tokio::time::sleep(SETTLE).await;
    let idle = server.resident_bytes()?;
    let mut runs = Vec::with_capacity(N_LIVE);
    let measured = with_live_runs(&server, &mut runs).await;
    // Whatever came of it: agents that sleep must not stay behind.
    server.cancel(&runs).await?;
    server.stop().await?;
    let (busy, peak) = measured?;
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let mut table = Table::new(["", "memory, MB"]);
    let each = (mb(busy) - mb(idle)) / N_LIVE as f64;
    for (what, value) in [
        ("resident, no run".to_owned(), format!("{:.1}", mb(idle))),
        (format!("resident, {N_LIVE} live runs"), format!("{:.1}", mb(busy))),
        ("more for each run".to_owned(), format!("{each:.2}")),
        ("peak until then".to_owned(), format!("{:.1}", mb(peak))),
    ] {
        table.row([what, value]);
    }
    Ok(table)
}

/// What the server holds with many runs, and the most that it has held.
async fn with_live_runs(server: &Server, runs: &mut Vec<String>) -> Outcome<(u64, u64)> {
    for _ in 0..N_LIVE {
        runs.push(server.submit().await?);
    }
    server.await_status("running", N_LIVE).await?;
    tokio::time::sleep(SETTLE).await;
    Ok((server.resident_bytes()?, server.peak_bytes()?))
}
