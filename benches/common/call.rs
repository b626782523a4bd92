//! How a benchmark is called, and how it ends.

use std::error::Error;
use std::process::ExitCode;

/// What a benchmark's step gives, or why it could not be taken.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Whether `cargo bench` called. Test runners build benchmarks too and call them in ways of their
/// own, to list tests or to run them; a benchmark has none and must not take minutes there.
pub(crate) fn is_called_by_cargo_bench() -> bool {
    let is_called = std::env::args_os().any(|argument| argument == "--bench");
    if !is_called {
        eprintln!("This measures. Run it with `cargo bench --bench NAME -- --help`.");
    }
    is_called
}

/// The exit code, after the complaint if there is one.
pub(crate) fn conclude(outcome: Outcome<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error: &(dyn Error + 'static) = &*error;
            eprintln!("error: {}", runbookd::run::error_chain(error));
            ExitCode::FAILURE
        }
    }
}
