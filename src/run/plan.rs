//! What a run will do, decided in full before anything is started.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::activity::{StallCeilings, StallLimits};
use super::budget::Allowance;
use super::disk::DiskShare;
use super::id::RunName;
use super::network::Network;
use super::provider_tool::ProviderTools;
use crate::guard::Guardrails;
use crate::secret::{Secret, names_a_secret};

/// The agent CLIs that runbookd can drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuntimeName {
    /// Anthropic's Claude Code.
    ClaudeCode,
}

impl RuntimeName {
    /// The runtime of that name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::ClaudeCode].into_iter().find(|runtime| runtime.as_str() == word)
    }

    /// The name on the wire and in front matter.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude-code",
        }
    }
}

/// The model services that runbookd can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderName {
    /// The Anthropic API, or a gateway that speaks it.
    Anthropic,
    /// Models in Amazon's cloud.
    Bedrock,
    /// The router at openrouter.ai.
    #[serde(rename = "openrouter")]
    OpenRouter,
    /// Models in Google's cloud.
    Vertex,
    /// The model in this binary that answers from a script: demos and tests without spend.
    Scripted,
}

impl ProviderName {
    /// Every provider.
    pub const ALL: [Self; 5] =
        [Self::Anthropic, Self::Bedrock, Self::OpenRouter, Self::Vertex, Self::Scripted];

    /// The provider of that name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.as_str() == word)
    }

    /// The name on the wire and in front matter.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::Bedrock => "bedrock",
            Self::OpenRouter => "openrouter",
            Self::Vertex => "vertex",
            Self::Scripted => "scripted",
        }
    }
}

/// Where the model service's credential is while a run lasts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Credentials {
    /// Outside the sandbox: a gateway puts it on each request. The sandbox has a token that is worth
    /// nothing anywhere else.
    #[default]
    Gateway,
    /// In the sandbox, where the agent can read it.
    Direct,
}

impl Credentials {
    /// The place that a word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Gateway, Self::Direct].into_iter().find(|place| place.as_str() == word)
    }

    /// The word in settings and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Direct => "direct",
        }
    }
}

/// What a sandbox starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// What the operator set, else the default snapshot.
    Default,
    /// A container image as it is.
    Image(String),
    /// The image that is built for a snapshot of that name.
    Snapshot(String),
}

impl Base {
    /// The image that was named.
    #[must_use]
    pub fn image(&self) -> Option<&str> {
        match self {
            Self::Image(image) => Some(image),
            Self::Default | Self::Snapshot(_) => None,
        }
    }

    /// The snapshot that was named.
    #[must_use]
    pub fn snapshot(&self) -> Option<&str> {
        match self {
            Self::Snapshot(snapshot) => Some(snapshot),
            Self::Default | Self::Image(_) => None,
        }
    }
}

/// What the agent may do unasked. Nobody can be asked in a run, so what is not allowed is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PermissionMode {
    /// Look around and plan, and change nothing.
    Plan,
    /// Change files in the workspace, too.
    AcceptEdits,
    /// Look around.
    Default,
    /// Everything. The sandbox is the boundary.
    BypassPermissions,
}

impl PermissionMode {
    /// Every mode.
    pub const ALL: [Self; 4] =
        [Self::Plan, Self::AcceptEdits, Self::Default, Self::BypassPermissions];

    /// The mode of that name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == word)
    }

    /// The name in front matter, which is the agent CLI's.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::AcceptEdits => "acceptEdits",
            Self::Default => "default",
            Self::BypassPermissions => "bypassPermissions",
        }
    }
}

/// What the agent may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    /// What it may do unasked.
    pub mode: PermissionMode,
    /// What it may do beside that, in the agent CLI's rules. `None` leaves it to the runtime.
    pub allowed: Option<Vec<String>>,
    /// What it may not do, whatever else says that it may.
    pub denied: Vec<String>,
}

impl Default for Permissions {
    fn default() -> Self {
        Self { mode: PermissionMode::BypassPermissions, allowed: None, denied: Vec::new() }
    }
}

/// MCP servers by name, each in the form of `.mcp.json`.
pub type McpServers = BTreeMap<String, serde_json::Value>;

/// How much a run may take. Every limit is enforced or said to be unenforced at the start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limits {
    /// From the start of the setup script, or of the agent where there is none, to the agent's end.
    #[serde(rename = "timeout_sec", serialize_with = "whole_seconds")]
    pub wall: Duration,
    /// From the start of the setup script to its end.
    #[serde(rename = "setup_timeout_sec", serialize_with = "whole_seconds")]
    pub setup: Duration,
    /// From the agent's last `result` to the end of its process. A background task can keep the
    /// process alive for ever after its answer.
    #[serde(rename = "linger_sec", serialize_with = "whole_seconds")]
    pub linger: Duration,
    /// How long the run may do nothing.
    pub stall: StallLimits,
    /// Model turns of the main loop; `None` leaves it to the other limits.
    pub max_turns: Option<u32>,
    /// How often a failing request to the provider is tried again.
    pub model_retries: u32,
    /// Memory of all the sandbox's processes, in bytes.
    pub memory_bytes: u64,
    /// Processors, as a share: 2.0 is two whole ones.
    pub n_cpus: f64,
    /// Processes and threads at once.
    pub n_pids: u32,
    /// How much of the machine's disk its sandbox may hold.
    #[serde(flatten)]
    pub disk: DiskShare,
    /// What the agent may write to its standard output, in bytes.
    pub output_bytes: u64,
}

impl Limits {
    /// The same, where the operator allows as much.
    #[must_use]
    pub fn within(self, ceilings: &StallCeilings, disk: DiskShare) -> Self {
        let linger = StallCeilings::lower(self.linger, ceilings.linger);
        let (stall, disk) = (self.stall.within(ceilings), self.disk.within(disk));
        Self { linger, stall, disk, ..self }
    }
}

pub(super) fn whole_seconds<S: serde::Serializer>(
    value: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(value.as_secs())
}

/// A file given to the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asset {
    /// Its original base name, a single harmless path segment.
    pub name: String,
    /// Where it lies on the host.
    pub host_path: PathBuf,
}

/// A former run whose conversation a new run goes on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    /// What it is called.
    pub name: RunName,
    /// Its agent CLI, in the record's word.
    pub agent: String,
    /// The agent's name for the conversation.
    pub session_id: Uuid,
    /// Whether secrets were masked in the conversation.
    pub is_masked: bool,
    /// The agent CLI's files of the conversation.
    pub sessions: Vec<FormerFile>,
    /// What it left in `/app/results`.
    pub results: Vec<FormerFile>,
    /// What it was given.
    pub assets: Vec<Asset>,
    /// The runbook that it carried out.
    pub runbook: Vec<u8>,
    /// What the client passed to it.
    pub init_params: serde_json::Map<String, serde_json::Value>,
}

/// A file that a former run left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormerFile {
    /// Its path relative to its area.
    pub path: String,
    /// Where it lies on the host.
    pub host_path: PathBuf,
}

/// What a run will do.
#[derive(Debug, Clone)]
pub struct RunPlan {
    /// Where the run belongs and what it is called.
    pub name: RunName,
    /// The step of the task's workflow that the run is.
    pub step: String,
    /// The agent CLI.
    pub runtime: RuntimeName,
    /// The model service.
    pub provider: ProviderName,
    /// The model, in the provider's own spelling.
    pub model: String,
    /// What the scripted provider answers, for [`ProviderName::Scripted`] alone.
    pub script: Option<String>,
    /// What the sandbox starts from.
    pub base: Base,
    /// Debian packages on top of it, each a name or `name=version`.
    pub apt_packages: Vec<String>,
    /// What the sandbox can reach.
    pub network: Network,
    /// Where the model service's credential is.
    pub credentials: Credentials,
    /// What its prompts must not hold, as far as its collection says so.
    pub guard: Guardrails,
    /// Whether secrets are masked in the files that it leaves, too.
    pub redact_artifacts: bool,
    /// What the model service may do itself, on a network of its own.
    pub provider_tools: ProviderTools,
    /// How much the run may take.
    pub limits: Limits,
    /// How much it and its collection may spend.
    pub allowance: Allowance,
    /// Most tokens of one answer, where less than the agent's own default fits the allowance.
    pub max_output_tokens: Option<u64>,
    /// A shell script that prepares the sandbox before the agent starts.
    pub setup: Option<String>,
    /// What the agent may do.
    pub permissions: Permissions,
    /// What the client passed to the runbook; no secrets.
    pub init_params: serde_json::Map<String, serde_json::Value>,
    /// The runbook as it was given.
    pub runbook: Vec<u8>,
    /// The whole text that the agent is given, template variables filled in.
    pub instruction: String,
    /// The id of the agent's session, so that its files can be found and resumed.
    pub session_id: Uuid,
    /// The run whose conversation it goes on with.
    pub former: Option<Former>,
    /// Files for `/app/assets`.
    pub assets: Vec<Asset>,
    /// Environment variables that the runbook declared as its secrets.
    pub secrets: BTreeMap<String, Secret>,
    /// Environment variables that the request adds, with valid names. They may hold credentials.
    pub agent_env: BTreeMap<String, Secret>,
    /// MCP servers, with valid names.
    pub mcp_servers: McpServers,
    /// Paths relative to `/app/results`, the most important first.
    pub primary_outputs: Vec<String>,
    /// What was noticed while planning and does not stop the run, as whole sentences.
    pub notes: Vec<String>,
}

impl RunPlan {
    /// The values of the plan that nobody may see: the declared secrets, and of the other variables
    /// those whose name says so. (The others are words like `production`, which stand everywhere.)
    pub fn secret_values(&self) -> impl Iterator<Item = &Secret> {
        let given = self.agent_env.iter().filter(|(name, _)| names_a_secret(name));
        self.secrets.values().chain(given.map(|(_, value)| value))
    }
}
