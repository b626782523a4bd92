//! One execution of a runbook: its name, its plan, where it stands, and every way it can fail.

mod activity;
mod budget;
mod check;
mod clip;
mod disk;
mod error_chain;
mod failure;
mod finding;
mod id;
mod images;
mod network;
mod plan;
mod provider_tool;
mod recipe;
mod stall;
mod status;

pub use activity::{Activity, ActivityNow, StallCeilings, StallLimits};
pub use budget::{Allowance, Caps, Exhausted, Measure, Rate, Span, Usd};
pub use check::{Check, CheckStatus};
pub use clip::{MAX_CLIPPED_CHARS, clipped};
pub use disk::{DiskExcess, DiskShare};
pub use error_chain::error_chain;
pub use failure::{RunFailure, SetupEnd};
pub use finding::{Code, Finding, Place, Severity};
pub use id::{InvalidName, InvalidRef, RunId, RunName, RunRef, Slug};
pub use images::{ImageRules, ImageSet};
pub use network::{
    BadHost, HostRule, MAX_ALLOWED_HOSTS, Network, NetworkMode, Networks, UnknownMode, WEB_PORTS,
    one_spelling, port_number, read_network,
};
pub use plan::{
    Asset, Base, Credentials, Former, FormerFile, Limits, McpServers, PermissionMode, Permissions,
    ProviderName, RunPlan, RuntimeName,
};
pub use provider_tool::{ProviderTool, ProviderTools, unknown as unknown_provider_tool};
pub use recipe::{ContextFile, ImageRecipe};
pub use stall::{Advice, Asking, Pulse, Signs, Stall, StallWatch};
pub use status::{OutputCheck, RunStatus, ValidationReport, Verdict};
