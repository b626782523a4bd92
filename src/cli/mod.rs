//! What a person types.

mod args;
mod build_log;
mod demo;
mod doctor;
pub mod exit;
mod parts;
mod progress;
mod run;
mod setup;
mod snapshot;
mod validate;

use clap::Parser as _;

use crate::config::{ConfigError, Settings};
use crate::telemetry;
use args::{Arguments, Command};
use exit::ExitCode;

/// Does what the command line says.
pub async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (settings, faults) = Settings::examine_env();
    if !faults.is_empty() && !matches!(arguments.command, Command::Doctor(_)) {
        return bad_config(&ConfigError { faults });
    }
    telemetry::start(settings.log_filter.as_deref(), settings.no_color);
    match arguments.command {
        Command::Run(run) => run::run(&run, &settings).await,
        Command::Demo(demo) => demo::demo(&demo, &settings).await,
        Command::Doctor(wanted) => doctor::doctor(&wanted, &settings, faults).await,
        Command::Validate(files) => validate::validate(&files, &settings),
        Command::Snapshot { what } => snapshot::snapshot(&what, &settings).await,
        Command::Explain { code } => validate::explain(&code),
    }
}

fn bad_config(error: &ConfigError) -> ExitCode {
    for fault in &error.faults {
        complain(fault);
    }
    ExitCode::BadConfig
}

/// Tells the person what went wrong. Standard output stays for results.
fn complain(words: &str) {
    use std::io::Write as _;
    // Where nobody reads standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "runbookd: {words}");
}
