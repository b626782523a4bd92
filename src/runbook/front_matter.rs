//! The front matter's keys, with types.

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::runbook::split::split;

    fn read(yaml: &str) -> Result<FrontMatter, String> {
        let raw = split(&format!("---\n{yaml}\n---\n# Body\n")).unwrap().yaml.unwrap();
        FrontMatter::read(&raw).map(|(read, _)| read).map_err(|error| error.to_string())
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn secret(env: &str, description: Option<&str>, required: bool) -> SecretDeclaration {
        let description = description.map(str::to_owned);
        SecretDeclaration { env: env.to_owned(), description, required }
    }

    fn stall_times() -> StallTimes {
        StallTimes {
            model: Some(Duration::from_mins(10)),
            tool: Some(Duration::from_hours(2)),
            silent: Some(Duration::from_mins(1)),
            linger: Some(Duration::from_secs(5)),
        }
    }

    const EVERYTHING: &str = r#"
# A comment above.
version: 1.0.0
evaluation: visual   # A comment after a value.
agent: "claude-code"
model: 'anthropic/some-model'
model_provider: >-
  open
  router
snapshot: local
image: |
  ghcr.io/acme/box:1
setup: |
  pip install --user pandas
  echo "ready: now"
setup_timeout_sec: 90
permission_mode: acceptEdits
allowed_tools: ["Bash(git add, commit)", Read]
disallowed_tools: WebFetch
provider_tools: [web_search]
apt_packages: [jq, ffmpeg=7:5.1-1]
primary_outputs:
  # The best one first.
  - deck.pdf
  - "sub dir/übersicht.md"
secrets:
  ACME_TOKEN:
    env: ACME_API_TOKEN
    description: >-
      Opens the
      door: wide
    required: true
  BARE:
  FLAGS: {required: false, expose: yes please}
mcp_servers:
  docs: {type: http, url: "https://example.com", headers: {n: [1, -2, 0.5, true, null]}}
timeout_sec: 1200
stall: {model_sec: 600, tool_sec: 7200, silent_sec: 60, linger_sec: 5, patience: 1}
max_turns: 50
max_cost_usd: 2.5
max_tokens: 500000
max_requests: 100
cpus: 0.5
memory: 512M
disk: 2G
disk_files: 20000
network:
  mode: allowlist
  allow: [pypi.org, "*.example.org:8443"]
network_enabled: false
redact_artifacts: true
origin:
  url: https://example.com/a
  2024: kept
colour: red
"#;

    #[test]
    fn every_key_is_read() {
        let text = |text: &str| Some(text.to_owned());
        let expected = FrontMatter {
            version: text("1.0.0"),
            evaluation: text("visual"),
            agent: text("claude-code"),
            model: text("anthropic/some-model"),
            model_provider: text("open router"),
            snapshot: text("local"),
            image: text("ghcr.io/acme/box:1"),
            setup: text("pip install --user pandas\necho \"ready: now\""),
            setup_timeout: Some(Duration::from_secs(90)),
            permission_mode: text("acceptEdits"),
            allowed_tools: Some(texts(&["Bash(git add, commit)", "Read"])),
            disallowed_tools: Some(texts(&["WebFetch"])),
            provider_tools: texts(&["web_search"]),
            apt_packages: texts(&["jq", "ffmpeg=7:5.1-1"]),
            primary_outputs: texts(&["deck.pdf", "sub dir/übersicht.md"]),
            secrets: BTreeMap::from([
                (
                    "ACME_TOKEN".to_owned(),
                    secret("ACME_API_TOKEN", Some("Opens the door: wide"), true),
                ),
                ("BARE".to_owned(), secret("BARE", None, false)),
                ("FLAGS".to_owned(), secret("FLAGS", None, false)),
            ]),
            mcp_servers: BTreeMap::from([(
                "docs".to_owned(),
                json!({
                    "type": "http",
                    "url": "https://example.com",
                    "headers": {"n": [1, -2, 0.5, true, null]},
                }),
            )]),
            timeout: Some(Duration::from_mins(20)),
            stall: stall_times(),
            max_turns: Some(50),
            caps: Caps { cost: Usd::new(2.5), tokens: Some(500_000), requests: Some(100) },
            n_cpus: Some(0.5),
            memory_bytes: Some(512 << 20),
            disk_bytes: Some(2 << 30),
            disk_files: Some(20_000),
            network: Some(Network::Allowlist(vec![
                "pypi.org".parse().unwrap(),
                "*.example.org:8443".parse().unwrap(),
            ])),
            network_enabled: Some(false),
            redact_artifacts: Some(true),
            origin: Some(json!({"url": "https://example.com/a", "2024": "kept"})),
            unknown: vec![
                UnknownKey { name: "secrets.FLAGS.expose".to_owned(), line: 35 },
                UnknownKey { name: "stall.patience".to_owned(), line: 39 },
                UnknownKey { name: "colour".to_owned(), line: 56 },
            ],
        };
        assert_eq!(read(EVERYTHING), Ok(expected));
        assert_eq!(read(&EVERYTHING.replace('\n', "\r\n")), read(EVERYTHING));
    }

    #[test]
    fn what_is_empty_counts_as_absent() {
        let keys = [
            "version",
            "evaluation",
            "agent",
            "model",
            "model_provider",
            "snapshot",
            "image",
            "setup",
            "setup_timeout_sec",
            "permission_mode",
            "allowed_tools",
            "disallowed_tools",
            "apt_packages",
            "primary_outputs",
            "secrets",
            "mcp_servers",
            "timeout_sec",
            "stall",
            "max_turns",
            "max_cost_usd",
            "max_tokens",
            "max_requests",
            "cpus",
            "memory",
            "disk",
            "disk_files",
            "network",
            "network_enabled",
            "redact_artifacts",
            "origin",
        ];
        for unset in ["", " null", " ~", " ''", " \"  \"", " |\n\n", "\n  # Only a comment."] {
            let yaml: String = keys.map(|key| format!("{key}:{unset}\n")).concat();
            assert_eq!(read(&yaml), Ok(FrontMatter::default()), "{unset:?}");
        }
        let empty = "secrets: {}\nprimary_outputs: []\nmcp_servers: {}\nunknown: ";
        let unknown = vec![UnknownKey { name: "unknown".to_owned(), line: 5 }];
        assert_eq!(read(empty), Ok(FrontMatter { unknown, ..FrontMatter::default() }));
        for nothing in ["", "\n", "# Only a comment.", "null"] {
            assert_eq!(read(nothing), Ok(FrontMatter::default()), "{nothing:?}");
        }
    }

    #[test]
    fn a_version_keeps_its_spelling() {
        for (written, kept) in [
            ("1.10", "1.10"),
            ("1", "1"),
            ("0x10", "0x10"),
            ("1e3", "1e3"),
            ("2.1.0", "2.1.0"),
            ("\"1.10\"  # quoted", "1.10"),
            ("2026-01-02", "2026-01-02"),
        ] {
            let found = read(&format!("agent: x\nversion: {written}\nsecrets: {{a: [1]}}"));
            assert!(found.is_err(), "the other keys are checked as ever");
            let found = read(&format!("agent: x\nversion: {written}\norigin: {{a: [1]}}"));
            assert_eq!(found.unwrap().version.as_deref(), Some(kept));
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (written, n_bytes) in [
            ("4G", 4 << 30),
            ("\"512m\"", 512 << 20),
            ("2 GiB", 2 << 30),
            ("1Ti", 1 << 40),
            ("64kb", 64 << 10),
            ("10B", 10),
            ("1048576", 1 << 20),
            ("'1048576'", 1 << 20),
        ] {
            assert_eq!(read(&format!("memory: {written}")).unwrap().memory_bytes, Some(n_bytes));
        }
        for wrong in ["lots", "4X", "1.5G", "-1G", "0", "0G", "-4", "1.5", "G", "99999999T", "[4]"]
        {
            let error = read(&format!("memory: {wrong}")).unwrap_err();
            assert!(error.contains("`memory` must be a size such as `4G`"), "{error}");
        }
    }

    #[test]
    fn primary_outputs_stay_inside_the_results() {
        for (written, paths) in [
            ("deck.pdf", &["deck.pdf"][..]),
            ("[a, ./b/c.md, ..., 'd..', '-']", &["a", "./b/c.md", "...", "d..", "-"]),
            ("|\n  block.md\n", &["block.md"]),
        ] {
            let found = read(&format!("primary_outputs: {written}")).unwrap();
            assert_eq!(found.primary_outputs, texts(paths));
        }
        for wrong in [
            "/etc/passwd",
            "..",
            "../x",
            "a/../../b",
            "a/..",
            ".",
            "./",
            "\"a\\0b\"",
            "[a, '']",
            "[~]",
            "[[a]]",
            "[1]",
            "{a: b}",
            "5",
            "true",
        ] {
            let error = read(&format!("primary_outputs: {wrong}")).unwrap_err();
            assert!(error.contains("`primary_outputs` must be"), "{error}");
        }
    }

    #[test]
    fn a_key_may_stand_in_any_form_that_yaml_has() {
        let expected = FrontMatter {
            agent: Some("a".to_owned()),
            primary_outputs: texts(&["b", "b"]),
            unknown: vec![UnknownKey { name: "<<".to_owned(), line: 2 }],
            ..FrontMatter::default()
        };
        let flow = "{<<: &x {y: 1}, agent: a, primary_outputs: [&b b, *b]}";
        assert_eq!(read(flow), Ok(expected.clone()));
        let quoted = "'<<': {}\n\"agent\": a\n? primary_outputs\n: - b\n  - b";
        assert_eq!(read(quoted), Ok(expected));
    }

    const WRONG_VALUES: [(&str, &str); 13] = [
        ("agent: [a]", "line 2, column 1: `agent` must be a text, and is a list"),
        (
            "\n\nmodel:\n  5",
            "line 4, column 1: `model` must be a text: put it in quotes, and is the number 5",
        ),
        (
            "version: true",
            "line 2, column 1: `version` must be a text: put it in quotes, and is `true`",
        ),
        (
            "agent: é\nnetwork_enabled: 'no'",
            "line 3, column 18: `network_enabled` must be `true` or `false`, without quotes, and is a text",
        ),
        (
            "timeout_sec: 1.5",
            "line 2, column 1: `timeout_sec` must be a whole number of seconds from 1, such as \
                 `1200`, and is the number 1.5",
        ),
        (
            "max_turns: 5000000000",
            "line 2, column 1: `max_turns` must be a whole number from 1, such as `50`, and is \
                 the number 5000000000",
        ),
        (
            "cpus: 0",
            "line 2, column 1: `cpus` must be a number above 0, such as `2` or `0.5`, and is the number 0",
        ),
        (
            "primary_outputs:\n  - a\n  - /b",
            "line 4, column 5: `primary_outputs` must be the path of a file inside the results \
                 directory, such as `report.md`: not empty, without a leading `/` and without \
                 `..`, and is `/b`",
        ),
        (
            "secrets: [A]",
            "line 2, column 1: `secrets` must be a mapping such as `API_KEY: {required: \
                 true}`, and is a list",
        ),
        (
            "secrets:\n  A:\n    required: 1",
            "line 4, column 5: `secrets.A.required` must be `true` or `false`, without quotes, \
                 and is the number 1",
        ),
        (
            "mcp_servers:\n  a b: {}",
            "line 3, column 3: `mcp_servers.*` must be a server's name of 1 to 64 letters, \
                 digits, `_` and `-`, and is `a b`",
        ),
        (
            "mcp_servers:\n  a: uvx",
            "line 3, column 6: `mcp_servers.a` must be the server's settings, such as \
                 `{command: uvx, args: [some-server]}`, and is a text",
        ),
        (
            "just words",
            "line 2, column 1: the front matter must consist of lines such as `agent: \
                 claude-code`, and is a text; write a key and a colon before each value",
        ),
    ];

    #[test]
    fn a_wrong_value_is_refused_with_its_place_and_what_to_write() {
        for (yaml, expected) in WRONG_VALUES {
            assert_eq!(read(yaml), Err(expected.to_owned()), "{yaml}");
        }
        let long_name = "x".repeat(MAX_SERVER_NAME_BYTES + 1);
        assert!(read(&format!("mcp_servers: {{{long_name}: {{}}}}")).is_err());
        assert!(read(&format!("mcp_servers: {{{}: {{}}}}", &long_name[1..])).is_ok());
    }

    #[test]
    fn a_credential_in_the_wrong_place_is_not_repeated() {
        let key = "sk-ant-made-up-0123456789";
        for yaml in [
            format!("secrets: {key}"),
            format!("secrets: {{KEY: {key}}}"),
            format!("secrets: {{KEY: {{env: {key}}}}}"),
            format!("secrets: {{{key}: }}"),
            format!("secrets: {{KEY: {{required: {key}}}}}"),
            format!("secrets: {{KEY: !x {key}}}"),
            format!("secrets: {{KEY: !!int '{key}\"'}}"),
            format!("network_enabled: {key}"),
            format!("network: {key}"),
            format!("network: {{mode: {key}}}"),
            format!("network: {{allow: [\"{key}/x\"]}}"),
            format!("memory: {key}"),
            format!("cpus: {key}"),
            format!("mcp_servers: {{a: {key}}}"),
            format!("secrets: {{KEY: [{key}"),
        ] {
            let error = read(&yaml).unwrap_err();
            assert!(!error.contains(key), "{error}");
        }
        let expected =
            "line 2, column 20: `secrets.*.env` must be the name of an environment variable";
        assert!(read("secrets: {A: {env: '1A'}}").unwrap_err().starts_with(expected));
    }
}
