//! One execution of a runbook: its name, its plan, where it stands, and every way it can fail.

mod error_chain;
mod failure;
mod finding;
mod id;
mod plan;
mod status;

pub use error_chain::error_chain;
pub use failure::{RunFailure, SetupEnd};
pub use finding::{Code, Finding, Place, Severity};
pub use id::{InvalidName, RunId, RunName, Slug};
pub use plan::{Asset, Limits, McpServers, Network, ProviderName, RunPlan, RuntimeName};
pub use status::{OutputCheck, RunStatus, ValidationReport, Verdict};
