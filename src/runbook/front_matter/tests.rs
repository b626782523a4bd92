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
            ("ACME_TOKEN".to_owned(), secret("ACME_API_TOKEN", Some("Opens the door: wide"), true)),
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
    for wrong in ["lots", "4X", "1.5G", "-1G", "0", "0G", "-4", "1.5", "G", "99999999T", "[4]"] {
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
    let expected = "line 2, column 20: `secrets.*.env` must be the name of an environment variable";
    assert!(read("secrets: {A: {env: '1A'}}").unwrap_err().starts_with(expected));
}
