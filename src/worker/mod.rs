//! One run, in order: run it, record it, finish it. `execute.rs` tells the story.

mod agent;
mod attend;
mod claim;
mod conclude;
mod execute;
mod follow;
mod keep;
mod lines;
mod model;
mod record;
mod report;
mod settle;
mod setup;
mod stage;
mod watch;

pub use agent::AgentSource;
pub use attend::{Clock, Stop};
pub use claim::Claims;
pub use execute::{Parts, execute};
pub use lines::{Ending, Lines, MAX_LINE_BYTES};
pub use report::RunReport;
pub use watch::{Phase, RunUpdate, Watcher};
