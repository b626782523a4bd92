//! The workers: as many runs at a time as the machine bears, out of the queue and into their
//! records.
//!
//! ```text
//! drain   no new run is begun; what goes on goes on
//! leave   runs are let go: their sandboxes work on, and the next process takes them over
//! end     runs are cancelled: their agents end, their files are kept
//! force   runs end at once
//! ```
//!
//! A process that is restarted drains and leaves. One that goes away for good drains and ends.

mod admission;
mod ends;
mod heartbeat;
mod held;
mod job;
mod step;
mod workers;

pub use admission::{Floors, MachineSize};
pub use workers::{PoolParts, PoolSettings, REAP_EVERY, Shutdown, Workers, WorkersStatus};
