//! One run, in order: run it, record it, finish it. `execute.rs` tells the story.

mod account;
mod agent;
mod attend;
mod backlog;
mod base;
mod claim;
mod conclude;
mod door;
mod ended;
mod ending;
mod execute;
mod fault;
mod follow;
mod heard;
mod keep;
mod lines;
mod lookout;
mod model;
mod news;
mod part;
mod parts;
mod pool;
mod record;
mod report;
mod resume;
mod room;
mod settle;
mod setup;
mod spent;
mod stage;
mod stay;
mod tenure;
mod watch;
mod way_out;
mod wire;

pub use agent::AgentSource;
pub use attend::{Clock, Stop};
pub use base::build;
pub use claim::Claims;
pub use execute::execute;
pub use lines::{Ending, Lines, MAX_LINE_BYTES};
pub use model::sweep as sweep_sockets;
pub use parts::Parts;
pub use pool::{
    Floors, MachineSize, PoolParts, PoolSettings, REAP_EVERY, Shutdown, Workers, WorkersStatus,
};
pub use report::RunReport;
pub use resume::{ResumeError, find_former};
pub use room::SharedDisk;
pub use watch::{Phase, RunUpdate, Watcher};
