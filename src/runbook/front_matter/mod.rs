//! The front matter's keys, with types.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::error::{Problem, RunbookError, shown};
use super::limits::MAX_SERVER_NAME_BYTES;
use super::network::network;
use super::node::{Entry, Node, Refusal, Value};
use super::position::Position;
use super::secrets::{self, SecretDeclaration};
use super::split::RawYaml;
use super::stall::{self, StallTimes};
use super::values::{count, flag, paths, rules, seconds, share, size, text, texts, unfit};
use super::yaml;
use crate::run::{Caps, Network, Usd};

/// What a runbook says about how it wants to be run. Every key may be absent; a null and a text
/// that is empty or blank count as absent. Values have the right type, nothing more: whether an
/// agent, a model or a snapshot of that name exists is for the checks before a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FrontMatter {
    /// `version`, in the author's spelling: `1.10` stays `1.10`.
    pub version: Option<String>,
    /// `evaluation`: how the runbook judges its own work.
    pub evaluation: Option<String>,
    /// `agent`: the runtime.
    pub agent: Option<String>,
    /// `model`.
    pub model: Option<String>,
    /// `model_provider`.
    pub model_provider: Option<String>,
    /// `snapshot`.
    pub snapshot: Option<String>,
    /// `image`.
    pub image: Option<String>,
    /// `setup`: a shell script that prepares the sandbox before the agent starts.
    pub setup: Option<String>,
    /// `setup_timeout_sec`: how long that may take.
    pub setup_timeout: Option<Duration>,
    /// `permission_mode`: what the agent may do unasked.
    pub permission_mode: Option<String>,
    /// `allowed_tools`: rules for what it may do beside that. An empty list is one.
    pub allowed_tools: Option<Vec<String>>,
    /// `disallowed_tools`: rules for what it may not do.
    pub disallowed_tools: Option<Vec<String>>,
    /// `provider_tools`: what the model service is to do itself, as words.
    pub provider_tools: Vec<String>,
    /// `apt_packages`: Debian packages on top of the snapshot or the image.
    pub apt_packages: Vec<String>,
    /// `primary_outputs`: paths that stay inside the results directory, the most important first.
    pub primary_outputs: Vec<String>,
    /// `secrets`, by the name that `{{secrets.NAME}}` uses.
    pub secrets: BTreeMap<String, SecretDeclaration>,
    /// `mcp_servers`: each one's settings by its name, in the form of `.mcp.json`.
    pub mcp_servers: BTreeMap<String, serde_json::Value>,
    /// `timeout_sec`: how long the agent may work.
    pub timeout: Option<Duration>,
    /// `stall`: how long the run may do nothing.
    pub stall: StallTimes,
    /// `max_turns`: how many model turns it may take.
    pub max_turns: Option<u32>,
    /// `max_cost_usd`, `max_tokens`, `max_requests`: what the run may spend.
    pub caps: Caps,
    /// `cpus`: processors, as a share.
    pub n_cpus: Option<f64>,
    /// `memory`, in bytes.
    pub memory_bytes: Option<u64>,
    /// `disk`, in bytes: how much of the machine's disk the sandbox may hold.
    pub disk_bytes: Option<u64>,
    /// `disk_files`: how many files, folders and links it may hold.
    pub disk_files: Option<u64>,
    /// `network`: what the sandbox can reach.
    pub network: Option<Network>,
    /// `network_enabled`: whether it can reach anything.
    pub network_enabled: Option<bool>,
    /// `redact_artifacts`: whether secrets are masked in the files of the results, too.
    pub redact_artifacts: Option<bool>,
    /// `origin`: where the runbook comes from. Kept, not interpreted.
    pub origin: Option<serde_json::Value>,
    /// The keys that nothing reads, in their order. They change nothing, and a person should know.
    pub unknown: Vec<UnknownKey>,
}

/// Where each top-level key stands in the file.
pub(super) type Positions = BTreeMap<String, Position>;

/// A key that nothing reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKey {
    /// The key; inside a secret's declaration with the keys around it.
    pub name: String,
    /// Its line in the file, counted from 1.
    pub line: usize,
}

impl FrontMatter {
    /// Reads the YAML between the fences.
    pub(super) fn read(yaml: &RawYaml) -> Result<(Self, Positions), RunbookError> {
        let root = yaml::read(yaml)?;
        let lines = yaml.lines();
        let refused =
            |Refusal { at, problem }| RunbookError { position: lines.position(at), problem };
        let mut front_matter = Self::default();
        let mut positions = Positions::new();
        let mut unknown = Vec::new();
        for entry in keys(&root).map_err(refused)? {
            positions.insert(entry.key.clone(), lines.position(entry.at));
            front_matter.set(entry, yaml, &mut unknown).map_err(refused)?;
        }
        front_matter.unknown = unknown
            .into_iter()
            .map(|(name, at)| UnknownKey { name, line: lines.position(at).line })
            .collect();
        Ok((front_matter, positions))
    }

    fn set(
        &mut self,
        entry: &Entry,
        yaml: &RawYaml,
        unknown: &mut Vec<(String, usize)>,
    ) -> Result<(), Refusal> {
        let Entry { at, key, node } = entry;
        match key.as_str() {
            "version" => self.version = version(key, node, yaml)?,
            "evaluation" => self.evaluation = text(key, node)?,
            "agent" => self.agent = text(key, node)?,
            "model" => self.model = text(key, node)?,
            "model_provider" => self.model_provider = text(key, node)?,
            "snapshot" => self.snapshot = text(key, node)?,
            "image" => self.image = text(key, node)?,
            "setup" => self.setup = text(key, node)?,
            "setup_timeout_sec" => self.setup_timeout = seconds(key, node)?,
            "permission_mode" => self.permission_mode = text(key, node)?,
            "allowed_tools" => self.allowed_tools = rules(key, node)?,
            "disallowed_tools" => self.disallowed_tools = rules(key, node)?,
            "provider_tools" => self.provider_tools = texts(key, node)?,
            "apt_packages" => self.apt_packages = texts(key, node)?,
            "primary_outputs" => self.primary_outputs = paths(key, node)?,
            "secrets" => self.secrets = secrets::read(key, node, unknown)?,
            "mcp_servers" => self.mcp_servers = mcp_servers(key, node)?,
            "timeout_sec" => self.timeout = seconds(key, node)?,
            "stall" => self.stall = stall::read(key, node, unknown)?,
            "max_turns" => {
                self.max_turns = count(key, "a whole number from 1, such as `50`", node)?;
            }
            "max_cost_usd" => {
                let usd = share(key, "a number of dollars above 0, such as `2.5`", node)?;
                self.caps.cost = usd.and_then(Usd::new);
            }
            "max_tokens" => {
                self.caps.tokens = count(key, "a whole number from 1, such as `500000`", node)?;
            }
            "max_requests" => {
                self.caps.requests = count(key, "a whole number from 1, such as `100`", node)?;
            }
            "cpus" => self.n_cpus = share(key, "a number above 0, such as `2` or `0.5`", node)?,
            "memory" => self.memory_bytes = size(key, node)?,
            "disk" => self.disk_bytes = size(key, node)?,
            "disk_files" => {
                self.disk_files = count(key, "a whole number from 1, such as `200000`", node)?;
            }
            "network" => self.network = network(key, node)?,
            "network_enabled" => self.network_enabled = flag(key, node)?,
            "redact_artifacts" => self.redact_artifacts = flag(key, node)?,
            "origin" => self.origin = (!node.is_unset()).then(|| node.to_json()),
            _ => unknown.push((key.clone(), *at)),
        }
        Ok(())
    }
}

fn keys(root: &Node) -> Result<&[Entry], Refusal> {
    match &root.value {
        Value::Null => Ok(&[]),
        Value::Mapping(entries) => Ok(entries),
        Value::Flag(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => {
            Err(Refusal { at: root.at, problem: Problem::NotMapping { found: root.in_words() } })
        }
    }
}

/// The version as a text. A number has lost its spelling in the tree, so it is read once more.
fn version(key: &str, node: &Node, yaml: &RawYaml) -> Result<Option<String>, Refusal> {
    #[derive(Deserialize)]
    struct Spelled {
        version: String,
    }
    match &node.value {
        Value::Number(number) => {
            let spelled = serde_yaml::from_str::<Spelled>(&yaml.text);
            Ok(Some(spelled.map_or_else(|_| number.to_string(), |spelled| spelled.version)))
        }
        Value::Null | Value::Flag(_) | Value::Text(_) | Value::List(_) | Value::Mapping(_) => {
            text(key, node)
        }
    }
}

fn mcp_servers(key: &str, node: &Node) -> Result<BTreeMap<String, serde_json::Value>, Refusal> {
    match &node.value {
        _ if node.is_unset() => Ok(BTreeMap::new()),
        Value::Mapping(entries) => entries.iter().map(|entry| mcp_server(key, entry)).collect(),
        Value::Null | Value::Flag(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => {
            let expected = "a mapping such as `docs: {type: http, url: \"https://…\"}`";
            Err(unfit(key, expected, node))
        }
    }
}

/// Whether an MCP server can have this name: 1 to 64 letters, digits, `_` and `-`.
#[must_use]
pub fn is_server_name(name: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    (1..=MAX_SERVER_NAME_BYTES).contains(&name.len()) && name.chars().all(is_legal)
}

fn mcp_server(servers: &str, server: &Entry) -> Result<(String, serde_json::Value), Refusal> {
    let Entry { at, key: name, node } = server;
    if !is_server_name(name) {
        let problem = Problem::Unfit {
            key: format!("{servers}.*"),
            expected: "a server's name of 1 to 64 letters, digits, `_` and `-`",
            found: format!("`{}`", shown(name)),
        };
        return Err(Refusal { at: *at, problem });
    }
    match &node.value {
        Value::Mapping(_) => Ok((name.clone(), node.to_json())),
        Value::Null | Value::Flag(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => {
            let expected = "the server's settings, such as `{command: uvx, args: [some-server]}`";
            Err(unfit(&format!("{servers}.{name}"), expected, node))
        }
    }
}
