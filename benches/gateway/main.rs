//! What the gateway adds to a model's answers, beside LiteLLM's proxy. See `docs/benchmarks.md`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark is read by a person")]
#![expect(clippy::disallowed_methods, reason = "a benchmark's clock is the machine's")]

#[path = "../common/mod.rs"]
mod common;
mod litellm;
mod load;
mod product;
mod upstream;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;

use common::{Outcome, Samples, Table};
use litellm::LiteLlm;
use load::{Load, Taken, Target};
use product::{Product, TOKEN};
use upstream::Model;

/// Turns, unless told otherwise.
const N_TURNS: usize = 5;

/// Clients, and the requests of each in one turn.
const LOADS: [(usize, usize); 3] = [(1, 100), (16, 20), (64, 8)];

/// What of the requests a quick trial has: a fraction.
const QUICK: usize = 4;

/// Measures what the gateway adds to a model's streamed answers, beside LiteLLM's proxy.
#[derive(Debug, clap::Parser)]
#[command(name = "gateway")]
struct Arguments {
    /// Turns [default: 5, and 2 with --quick].
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// A small trial: two turns of a quarter of the requests.
    #[arg(long)]
    quick: bool,
    /// The program `litellm` (`pip install 'litellm[proxy]'`); without it the gateway is compared
    /// with the direct way alone.
    #[arg(long, value_name = "PATH")]
    litellm: Option<PathBuf>,
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
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(compare(arguments))
}

/// One way to the model, and what came of each turn on it.
struct Way {
    name: &'static str,
    target: Target,
}

async fn compare(arguments: &Arguments) -> Outcome<()> {
    let n_turns = arguments.runs.unwrap_or(if arguments.quick { 2 } else { N_TURNS }).max(1);
    let model = Model::start().await?;
    let product = Product::start(&model.base_url()).await?;
    let peer = match &arguments.litellm {
        Some(program) => Some(LiteLlm::start(program, &model.base_url()).await?),
        None => None,
    };
    let mut ways = vec![
        Way {
            name: "directly",
            target: Target::new(&model.base_url(), None, "sk-made-up", litellm::MODEL)?,
        },
        Way {
            name: "runbookd's gateway",
            target: Target::new("http://model", Some(product.socket()), TOKEN, litellm::MODEL)?,
        },
    ];
    if let Some(peer) = &peer {
        let target = Target::new(peer.base_url(), None, litellm::KEY, litellm::MODEL)?;
        ways.push(Way { name: "LiteLLM", target });
    }
    let mut table = Table::new([
        "way",
        "clients",
        "first byte p50, ms",
        "first byte p99, ms",
        "streams/s",
        "times directly (p50)",
        "of the direct streams/s",
    ]);
    for (n_clients, n_requests) in LOADS {
        let n_requests = if arguments.quick { n_requests.div_ceil(QUICK) } else { n_requests };
        let turns = take_turns(&ways, Load { n_clients, n_requests }, n_turns).await?;
        add_rows(&mut table, &ways, n_clients, &turns);
    }
    println!("{n_turns} turns.\n\n{table}");
    if let Some(peak) = peer.as_ref().and_then(LiteLlm::peak) {
        println!("Peak memory of LiteLLM's proxy: {:.1} MB.", peak as f64 / 1e6);
    }
    println!("Peak memory of the gateway: {:.1} MB.", product.stop().await? as f64 / 1e6);
    Ok(())
}

/// All ways one after the other, again and again, so that they share the machine's noise.
async fn take_turns(ways: &[Way], load: Load, n_turns: usize) -> Outcome<Vec<Vec<Taken>>> {
    for way in ways {
        // Not counted: it makes the connections.
        load.put_on(&way.target).await?;
    }
    let mut turns = Vec::new();
    for _ in 0..n_turns {
        let mut turn = Vec::new();
        for way in ways {
            turn.push(load.put_on(&way.target).await?);
        }
        turns.push(turn);
    }
    Ok(turns)
}

fn add_rows(table: &mut Table, ways: &[Way], n_clients: usize, turns: &[Vec<Taken>]) {
    for (place, way) in ways.iter().enumerate() {
        let of = |value: &dyn Fn(&Taken, &Taken) -> f64| -> Samples {
            turns.iter().map(|turn| value(&turn[0], &turn[place])).collect()
        };
        table.row([
            way.name.to_owned(),
            n_clients.to_string(),
            of(&|_, taken| taken.first_byte(50)).show(2),
            of(&|_, taken| taken.first_byte(99)).show(2),
            of(&|_, taken| taken.per_second).show(0),
            of(&|direct, taken| taken.first_byte(50) / direct.first_byte(50)).show(1),
            of(&|direct, taken| taken.per_second / direct.per_second).show(3),
        ]);
    }
}
