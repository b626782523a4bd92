//! A runbook step with every parameter decided.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::run::{McpServers, Network};

/// One runbook step as a request resolves it. What is `None` or empty is left to the runbook's
/// front matter and to the defaults. It is frozen in the job, so unknown keys are refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunbookStep {
    /// The step's name in the workflow, unique in it.
    pub name: String,
    /// The runbook, front matter and all; never blank unless it is left open.
    pub instruction: String,
    /// The agent CLI.
    pub agent: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The model service.
    pub model_provider: Option<String>,
    /// The named image.
    pub snapshot: Option<String>,
    /// The container image.
    pub image: Option<String>,
    /// Packages to install into the image.
    pub apt_packages: Vec<String>,
    /// Values for the runbook's template variables: the variables that were given, and those
    /// simple top-level values of `init_params` that the runbook has a place for.
    pub template_variables: BTreeMap<String, String>,
    /// Stored files, by their storage path.
    pub file_paths: Vec<String>,
    /// Stored files, by their id (`file-…`).
    pub files: Vec<String>,
    /// MCP servers, with valid names.
    pub mcp_servers: McpServers,
    /// Processors, as a share above 0.
    pub cpus: Option<f64>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// How much of the machine's disk the sandbox may hold, in bytes.
    pub disk_bytes: Option<u64>,
    /// From the agent's start to its end, in seconds.
    pub timeout_sec: Option<u64>,
    /// Model turns of the main loop.
    pub max_turns: Option<u32>,
    /// Dollars that the run may cost.
    #[serde(default)]
    pub max_cost_usd: Option<f64>,
    /// Tokens that it may use.
    #[serde(default)]
    pub max_tokens: Option<u64>,
    /// Requests that it may make.
    #[serde(default)]
    pub max_requests: Option<u64>,
    /// What the sandbox can reach.
    #[serde(default)]
    pub network: Option<Network>,
    /// Whether it can reach anything.
    pub network_enabled: Option<bool>,
    /// Environment variables for the agent, with valid names. No secrets: they are recorded.
    pub agent_env: BTreeMap<String, String>,
    /// What the scripted provider answers.
    pub script: Option<String>,
    /// What the agent reads after the runbook.
    #[serde(default)]
    pub prompt: Option<String>,
    /// The parameters that an earlier step will tell. They are left open here, and so is an
    /// instruction among them.
    #[serde(skip)]
    pub left_open: BTreeSet<&'static str>,
}
