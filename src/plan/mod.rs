//! From a request to a plan: everything that can be known to fail is found here, all at once.

mod base;
mod budget;
mod inputs;
mod limits;
mod network;
mod permissions;
mod planner;
mod provider_tools;
#[cfg(test)]
mod rehearsal;
mod request;

pub use budget::first_request;
pub use planner::{Draw, GUARD_NEEDS_GATEWAY, Planned, RESULTS_DIR, Setting, plan};
pub use provider_tools::PROVIDER_TOOLS;
pub use request::{GivenFile, Overrides, RunRequest};
