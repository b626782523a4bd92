//! What somebody asks for when they start a run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::run::{Allowance, Caps, Credentials, Former, McpServers, Network, ProviderTools, Slug};
use crate::secret::Secret;

/// A request to run a runbook. What it leaves open, the runbook decides, then the defaults.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// The runbook, front matter and all.
    pub runbook: Vec<u8>,
    /// The collection that the run belongs to.
    pub collection: Slug,
    /// The task that the run belongs to.
    pub task: Slug,
    /// Values for the runbook's template variables.
    pub variables: BTreeMap<String, String>,
    /// What the client passed, as the record shows it; the variables where it is empty.
    pub init_params: serde_json::Map<String, serde_json::Value>,
    /// Files for `/app/assets`.
    pub assets: Vec<GivenFile>,
    /// What the scripted provider answers.
    pub script: Option<String>,
    /// The run whose conversation this one goes on with.
    pub former: Option<Former>,
    /// What is decided here and not by the runbook.
    pub overrides: Overrides,
    /// The most that the operator lets anybody spend.
    pub ceilings: Allowance,
}

/// A file that a run is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenFile {
    /// Where it lies on this machine.
    pub path: PathBuf,
    /// What the run calls it; `None` is the path's last part.
    pub name: Option<String>,
}

impl From<PathBuf> for GivenFile {
    fn from(path: PathBuf) -> Self {
        Self { path, name: None }
    }
}

/// The parts of a plan that a request can decide. `None` leaves a part to the runbook. Part of a
/// job's frozen text: a field may be added, and must not change its meaning.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Overrides {
    /// The step of the task's workflow that the run is.
    pub step: Option<String>,
    /// The agent CLI.
    pub agent: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The model service.
    pub model_provider: Option<String>,
    /// The container image.
    pub image: Option<String>,
    /// What the agent may do unasked.
    pub permission_mode: Option<String>,
    /// What it may do beside that, instead of the runbook's list.
    pub allowed_tools: Option<Vec<String>>,
    /// What it may not do, beside the runbook's list.
    pub disallowed_tools: Vec<String>,
    /// The snapshot.
    pub snapshot: Option<String>,
    /// Debian packages on top of either.
    pub apt_packages: Option<Vec<String>>,
    /// What the sandbox can reach.
    pub network: Option<Network>,
    /// Whether it can reach anything, where the line above does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_enabled: Option<bool>,
    /// Where the model service's credential is; the request of a client cannot say it.
    pub credentials: Option<Credentials>,
    /// What the operator grants of the model service's own tools. It is set wherever a plan is made,
    /// and no part of a frozen text: what he takes back is taken back.
    #[serde(skip)]
    pub granted_tools: ProviderTools,
    /// From the agent's start to its end.
    pub wall: Option<Duration>,
    /// Model turns of the main loop.
    pub max_turns: Option<u32>,
    /// What the run may spend; a runbook can narrow it.
    #[serde(skip_serializing_if = "Caps::is_none")]
    pub caps: Caps,
    /// How often a failing request to the provider is tried again.
    pub model_retries: Option<u32>,
    /// Memory of the sandbox, in bytes.
    pub memory_bytes: Option<u64>,
    /// How much of the disk the sandbox may hold, in bytes.
    pub disk_bytes: Option<u64>,
    /// Processors, as a share.
    pub n_cpus: Option<f64>,
    /// MCP servers beside the runbook's; one of the same name takes its place.
    pub mcp_servers: McpServers,
    /// What the agent reads after the runbook, word for word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Environment variables for the agent beside the declared secrets. They may hold credentials,
    /// so they are never a part of a frozen text.
    #[serde(skip)]
    pub agent_env: BTreeMap<String, Secret>,
}
