//! The process edge: arguments in, exit code out.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    runbookd::cli::main().await.into()
}
