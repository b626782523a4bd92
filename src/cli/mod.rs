//! What a person types.

mod args;
mod build_log;
mod demo;
mod doctor;
pub mod exit;
mod gateway;
mod parts;
mod progress;
mod relay;
mod remote;
mod run;
mod serve;
mod serve_work;
mod setup;
mod snapshot;
mod suggest;
mod token;
mod validate;

use clap::Parser as _;

use crate::config::{ConfigError, Settings};
use crate::telemetry::{self, LogSettings};
use args::{Arguments, Command};
use exit::ExitCode;

/// Does what the command line says.
pub fn main() -> ExitCode {
    let command = Arguments::parse().command;
    // What lives as long as a run has one thread: of one that is in a sandbox they are counted.
    match command {
        Command::Gateway(gateway) => gateway::gateway(gateway),
        Command::Relay(relay) => relay::relay(&relay),
        command @ (Command::Run(_)
        | Command::Demo(_)
        | Command::Doctor(_)
        | Command::Validate(_)
        | Command::Snapshot { .. }
        | Command::Explain { .. }
        | Command::Serve(_)
        | Command::Token(_)
        | Command::Runs(_)
        | Command::Logs(_)
        | Command::Task(_)
        | Command::Env(_)
        | Command::Usage(_)
        | Command::Collection(_)
        | Command::SuggestPolicy(_)
        | Command::Health(_)) => with_threads(command),
    }
}

fn with_threads(command: Command) -> ExitCode {
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(command_line(command)),
        Err(e) => {
            complain(&format!("the threads of this process cannot be started: {e}"));
            ExitCode::Unavailable
        }
    }
}

async fn command_line(command: Command) -> ExitCode {
    let (settings, faults) = Settings::examine_env();
    if !faults.is_empty() && !matches!(command, Command::Doctor(_)) {
        return bad_config(&ConfigError { faults });
    }
    telemetry::start(&LogSettings {
        filter: settings.log_filter.as_deref(),
        default_filter: command.default_log_filter(),
        format: settings.log_format,
        no_color: settings.no_color,
    });
    match command {
        Command::Run(run) => run::run(&run, &settings).await,
        Command::Demo(demo) => demo::demo(&demo, &settings).await,
        Command::Doctor(wanted) => doctor::doctor(&wanted, &settings, faults).await,
        Command::Validate(files) => validate::validate(&files, &settings),
        Command::Snapshot { what } => snapshot::snapshot(&what, &settings).await,
        Command::Explain { code } => validate::explain(&code),
        Command::Serve(serve) => serve::serve(&serve, &settings).await,
        Command::Token(command) => token::token(&command, &settings).await,
        Command::Runs(command) => remote::runs(&command, &settings).await,
        Command::Logs(logs) => remote::logs(&logs, &settings).await,
        Command::Task(command) => remote::task(&command, &settings).await,
        Command::Usage(arguments) => remote::usage(&arguments, &settings).await,
        Command::Env(command) => remote::env(&command, &settings).await,
        Command::Collection(command) => remote::collection(&command, &settings).await,
        Command::SuggestPolicy(wanted) => suggest::suggest(&wanted, &settings).await,
        Command::Health(health) => remote::health(&health, &settings).await,
        Command::Gateway(_) | Command::Relay(_) => unreachable!("they have a runtime of their own"),
    }
}

fn bad_config(error: &ConfigError) -> ExitCode {
    for fault in &error.faults {
        complain(fault);
    }
    ExitCode::BadConfig
}

/// Tells the person. This is the command's output.
fn say(words: &str) {
    use std::io::Write as _;
    // Where nobody reads standard output there is nobody to tell.
    let _ = writeln!(std::io::stdout(), "{words}");
}

/// Tells the person what went wrong. Standard output stays for results.
fn complain(words: &str) {
    use std::io::Write as _;
    // Where nobody reads standard error there is nobody to tell.
    let words = crate::secret::Redactor::shapes().redact_str(words);
    let _ = writeln!(std::io::stderr(), "runbookd: {words}");
}
