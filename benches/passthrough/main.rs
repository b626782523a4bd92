//! What passing a chat request on adds to asking the model directly. See `docs/benchmarks.md`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark is read by a person")]

#[path = "../common/mod.rs"]
mod common;
mod load;
mod product;
#[path = "../../tests/integration/support/upstream.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "the tests need more of it, and fail by unwrapping"
)]
mod upstream;

use std::process::ExitCode;

use clap::Parser as _;

use common::{Outcome, Samples, Table};
use load::{Kind, Load, Taken, Target};
use product::Product;
use upstream::FakeModel;

/// Turns, unless told otherwise.
const N_TURNS: usize = 7;

/// Requests of one client in one turn, unless told otherwise: a hundredth of them is a few.
const N_REQUESTS: usize = 400;

/// What a quick trial has of both.
const QUICK: (usize, usize) = (2, 40);

/// How many clients ask at the same time.
const CLIENTS: [usize; 2] = [1, 16];

/// Measures what passing a chat request on adds to asking the model directly.
#[derive(Debug, clap::Parser)]
#[command(name = "passthrough")]
struct Arguments {
    /// Turns [default: 7, and 2 with --quick].
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// A small trial: two turns of 40 requests.
    #[arg(long)]
    quick: bool,
    /// What `cargo bench` passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    if !common::is_called_by_cargo_bench() {
        return ExitCode::SUCCESS;
    }
    common::conclude(measure(&Arguments::parse()))
}

fn measure(arguments: &Arguments) -> Outcome<()> {
    println!("{}\n", common::describe());
    let (n_turns, n_requests) = if arguments.quick { QUICK } else { (N_TURNS, N_REQUESTS) };
    let n_turns = arguments.runs.unwrap_or(n_turns).max(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (table, peak) = runtime.block_on(compare(n_turns, n_requests))?;
    println!("{n_turns} turns of {n_requests} requests for each client.\n\n{table}");
    println!("Peak memory of the server: {:.1} MB.", peak as f64 / 1e6);
    Ok(())
}

async fn compare(n_turns: usize, n_requests: usize) -> Outcome<(Table, u64)> {
    let model = FakeModel::start().await;
    let product = Product::start(&model.base_url()).await?;
    let direct = Target::new(&model.base_url(), "sk-made-up")?;
    let passed = Target::new(&product.base_url(), product.token())?;
    let mut table = Table::new([
        "what is timed",
        "clients",
        "",
        "direct, ms",
        "passed on, ms",
        "ratio",
        "difference, ms",
    ]);
    for kind in [Kind::Whole, Kind::FirstByte] {
        for n_clients in CLIENTS {
            let load = Load { kind, n_clients, n_requests };
            // Not counted: it makes the connections.
            load.put_on(&direct).await?;
            load.put_on(&passed).await?;
            let mut turns = Vec::new();
            for _ in 0..n_turns {
                turns.push((load.put_on(&direct).await?, load.put_on(&passed).await?));
            }
            add_rows(&mut table, &load, &turns);
        }
    }
    let peak = product.stop().await?;
    Ok((table, peak))
}

fn add_rows(table: &mut Table, load: &Load, turns: &[(Taken, Taken)]) {
    for share in [50, 99] {
        let of = |value: fn(f64, f64) -> f64| -> Samples {
            turns.iter().map(|(a, b)| value(a.percentile(share), b.percentile(share))).collect()
        };
        table.row([
            load.kind.name().to_owned(),
            load.n_clients.to_string(),
            format!("p{share}"),
            of(|direct, _| direct).show(2),
            of(|_, passed| passed).show(2),
            of(|direct, passed| passed / direct).show(2),
            of(|direct, passed| passed - direct).show(2),
        ]);
    }
}
