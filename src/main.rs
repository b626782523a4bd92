//! The process edge: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    runbookd::cli::main().into()
}
