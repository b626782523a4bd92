//! One run, in order: plan it, run it, record it, finish it. `execute.rs` tells the story.

mod agent;
mod attend;
mod claim;
mod conclude;
mod execute;
mod follow;
mod lines;
mod model;
mod plan;
mod record;
mod report;
mod request;
mod settle;
mod stage;
mod watch;

pub use agent::AgentSource;
pub use attend::{Clock, Stop};
pub use claim::Claims;
pub use execute::{Parts, execute};
pub use lines::{Ending, Lines, MAX_LINE_BYTES};
pub use plan::{Draw, Planned, RESULTS_DIR, plan};
pub use report::RunReport;
pub use request::{Overrides, RunRequest};
pub use watch::{Phase, RunUpdate, Watcher};

/// An error with all its causes, as one line.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
