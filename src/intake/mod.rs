//! From a request to a run that waits: everything that can be known to fail is refused here, all at
//! once, before anything is kept.

mod hide;
mod preflight;
mod submit;
mod target;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::reach::Reach;
use crate::run::RunName;
use crate::secret::Secret;

pub use hide::{hide, hide_params};
pub use submit::{Intake, IntakeError, same_request};

/// A request for a run.
#[derive(Debug, Clone, Default)]
pub struct Submission {
    /// The collection, as the client writes it.
    pub collection: String,
    /// The task, as the client writes it.
    pub task: String,
    /// What is laid over the task's own parameters.
    pub init_params: Map<String, Value>,
    /// Who decides what the run is like.
    pub lead: Lead,
    /// Environment variables for the agent that nobody is shown.
    pub agent_env: BTreeMap<String, Secret>,
    /// Files that came with the request, by their storage paths. They are the request's own: where
    /// it was made before, they are removed.
    pub uploads: Vec<Uploaded>,
    /// Secrets for this run alone.
    pub secret_params: BTreeMap<String, Secret>,
    /// Who is told of the end.
    pub webhook_url: Option<String>,
    /// What signs that call.
    pub webhook_secret: Option<Secret>,
    /// The routine that asks.
    pub routine: Option<String>,
    /// What makes a repeated request the same request.
    pub idempotency_key: Option<String>,
}

/// Who decides what a run is like: its request or its task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lead {
    /// The task says what a request can decide.
    #[default]
    Task,
    /// What the request gives takes the place of the task's own settings.
    Request,
    /// So it does, and the runbook is the request's too, in `init_params.instruction`. A task that
    /// is not there is made.
    OwnRunbook,
}

/// A file that came with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// Where it is stored.
    pub path: String,
    /// What the client calls it.
    pub name: String,
    /// Its size.
    pub n_bytes: u64,
}

/// A run that was accepted. It waits, and can be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The run.
    pub name: RunName,
    /// Whether the same request had made it before.
    pub repeated: bool,
    /// What a person should know, as sentences.
    pub notes: Vec<String>,
}

/// How runs are taken in.
#[derive(Debug, Clone)]
pub struct IntakeSettings {
    /// How often a run is tried that fails before its agent starts.
    pub max_attempts: u32,
    /// Less free disk than this, in bytes, and no archive is unpacked any further.
    pub min_free_disk_bytes: u64,
    /// The most that anybody may spend.
    pub allowance: crate::run::Allowance,
    /// Where the model services of runs may be.
    pub upstream_reach: Reach,
    /// What the prompts of every run must not hold.
    pub guard: crate::guard::Guardrails,
    /// What the operator grants of the model services' own tools.
    pub provider_tools: crate::run::ProviderTools,
    /// Where webhooks may lead.
    pub webhook_reach: Reach,
    /// The daemon's own keys, where the operator shares them with every run.
    pub shared_keys: Option<crate::secret::Keyring>,
    /// What the sandboxes of runs may reach.
    pub networks: crate::run::Networks,
    /// Which images they may name.
    pub images: crate::run::ImageRules,
    /// What can be built to start from.
    pub snapshots: crate::snapshot::Snapshots,
}
