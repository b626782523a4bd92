//! The parameters that a `runbook` step has, and where each is found.

/// A parameter of the `runbook` activity. A step gives it as `NAME` (the value itself) or as
/// `NAME_path` (where in `init_params` it stands; the value of `NAME` is then the default). Where a
/// step gives neither, it is looked for in `init_params` directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepParameter {
    /// Its name in a step's settings.
    pub name: &'static str,
    /// What its value must be.
    pub expects: &'static str,
    /// The keys of `init_params` that are looked at where the step gives nothing.
    pub keys: &'static [&'static str],
}

const fn parameter(
    name: &'static str,
    expects: &'static str,
    keys: &'static [&'static str],
) -> StepParameter {
    StepParameter { name, expects, keys }
}

pub(super) const INSTRUCTION: StepParameter =
    parameter("instruction", "a text: the runbook with its front matter", &["instruction"]);
pub(super) const AGENT: StepParameter = parameter("agent", "a text", &["agent"]);
pub(super) const MODEL: StepParameter = parameter("model", "a text", &["model"]);
pub(super) const MODEL_PROVIDER: StepParameter =
    parameter("model_provider", "a text", &["model_provider"]);
pub(super) const SNAPSHOT: StepParameter = parameter("snapshot", "a text", &["snapshot"]);
pub(super) const IMAGE: StepParameter = parameter("image", "a text", &["image"]);
pub(super) const APT_PACKAGES: StepParameter =
    parameter("apt_packages", "a list of package names, such as `[\"jq\"]`", &["apt_packages"]);
pub(super) const TEMPLATE_VARIABLES: StepParameter = parameter(
    "template_variables",
    "an object of names and values, such as `{\"topic\": \"bees\"}`",
    &["vars", "template_variables"],
);
pub(super) const FILES: StepParameter =
    parameter("files", "a list of stored files, as an upload's answer names them", &["files"]);
pub(super) const FILE_PATHS: StepParameter =
    parameter("file_paths", FILES.expects, &["file_paths"]);
pub(super) const MCP_SERVERS: StepParameter = parameter(
    "mcp_servers",
    "an object of servers, such as `{\"docs\": {\"type\": \"http\", \"url\": \"https://…\"}}`, \
     with names of 1 to 64 letters, digits, `_` and `-`",
    &["mcp_servers"],
);
pub(super) const CPUS: StepParameter =
    parameter("cpus", "a number above 0, such as `2` or `0.5`", &["cpus"]);
pub(super) const MEMORY: StepParameter =
    parameter("memory", "a size such as `\"4G\"`, or a whole number of bytes", &["memory"]);
pub(super) const DISK: StepParameter = parameter("disk", MEMORY.expects, &["disk"]);
pub(super) const TIMEOUT_SEC: StepParameter =
    parameter("timeout_sec", "a whole number of seconds from 1, such as `1200`", &["timeout_sec"]);
pub(super) const MAX_TURNS: StepParameter =
    parameter("max_turns", "a whole number from 1, such as `50`", &["max_turns"]);
pub(super) const NETWORK_ENABLED: StepParameter =
    parameter("network_enabled", "`true` or `false`", &["network_enabled"]);
pub(super) const NETWORK: StepParameter = parameter(
    "network",
    "`none`, `public`, `open`, or `{\"mode\": \"allowlist\", \"allow\": [\"pypi.org\"]}`",
    &["network"],
);
pub(super) const AGENT_ENV: StepParameter = parameter(
    "agent_env",
    "an object of environment variables and their values, such as `{\"LANG\": \"C.UTF-8\"}`",
    &["agent_env"],
);
pub(super) const MAX_COST_USD: StepParameter =
    parameter("max_cost_usd", "a number of dollars above 0, such as `2.5`", &["max_cost_usd"]);
pub(super) const MAX_TOKENS: StepParameter =
    parameter("max_tokens", "a whole number from 1, such as `500000`", &["max_tokens"]);
pub(super) const MAX_REQUESTS: StepParameter =
    parameter("max_requests", "a whole number from 1, such as `100`", &["max_requests"]);
pub(super) const SCRIPT: StepParameter =
    parameter("script", "a text: what the scripted provider answers", &["script"]);
/// Requests use the word for values of their own, so a step reads it only where it says so.
pub(super) const PROMPT: StepParameter =
    parameter("prompt", "a text: what the agent reads after the runbook", &[]);

/// Every parameter of the `runbook` activity.
pub const PARAMETERS: [StepParameter; 24] = [
    INSTRUCTION,
    AGENT,
    MODEL,
    MODEL_PROVIDER,
    SNAPSHOT,
    IMAGE,
    APT_PACKAGES,
    TEMPLATE_VARIABLES,
    FILES,
    FILE_PATHS,
    MCP_SERVERS,
    CPUS,
    MEMORY,
    DISK,
    TIMEOUT_SEC,
    MAX_TURNS,
    MAX_COST_USD,
    MAX_TOKENS,
    MAX_REQUESTS,
    NETWORK,
    NETWORK_ENABLED,
    AGENT_ENV,
    SCRIPT,
    PROMPT,
];

/// Parameters that hosted services carry out and this version does not. They are kept and said.
pub(super) const NOT_CARRIED_OUT: [&str; 2] = ["code_checks", "strict_evaluation"];
