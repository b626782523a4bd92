//! From a request to a plan: everything that can be known to fail is found here, all at once.

mod base;
mod inputs;
mod limits;
mod network;
mod permissions;
mod planner;
mod request;

pub use planner::{Draw, Planned, RESULTS_DIR, Setting, plan};
pub use request::{GivenFile, Overrides, RunRequest};
