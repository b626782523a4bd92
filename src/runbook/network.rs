//! `network`: a word, or a mapping with the hosts of an allowlist.

use super::node::{Entry, Node, Refusal, Value};
use super::values::{text, unfit};
use crate::run::{HostRule, MAX_ALLOWED_HOSTS, Network, NetworkMode};

const EXPECTED: &str = "`none`, `public`, `open`, or `{mode: allowlist, allow: [pypi.org]}`";

/// What the sandbox can reach.
pub(super) fn network(key: &str, node: &Node) -> Result<Option<Network>, Refusal> {
    match &node.value {
        _ if node.is_unset() => Ok(None),
        Value::Text(_) => {
            let mode = mode(key, node)?;
            mode.with(Vec::new()).map(Some).ok_or_else(|| unfit(key, EXPECTED, node))
        }
        Value::Mapping(entries) => mapping(key, node, entries).map(Some),
        Value::Null | Value::Flag(_) | Value::Number(_) | Value::List(_) => {
            Err(unfit(key, EXPECTED, node))
        }
    }
}

fn mode(key: &str, node: &Node) -> Result<NetworkMode, Refusal> {
    let word = text(key, node)?;
    let mode = word.as_deref().and_then(NetworkMode::from_word);
    mode.ok_or_else(|| unfit(key, "`none`, `allowlist`, `public` or `open`", node))
}

/// A key that nothing reads refuses it: what keeps a run apart must not depend on a spelling.
fn mapping(key: &str, node: &Node, entries: &[Entry]) -> Result<Network, Refusal> {
    let (mut named, mut allowed) = (None, Vec::new());
    for entry in entries {
        match entry.key.as_str() {
            "mode" => named = Some(mode(&format!("{key}.mode"), &entry.node)?),
            "allow" => allowed = hosts(&format!("{key}.allow"), &entry.node)?,
            _ => return Err(unfit(key, EXPECTED, node)),
        }
    }
    let mode = named.unwrap_or(NetworkMode::Allowlist);
    mode.with(allowed).ok_or_else(|| {
        let expected = "`{mode: allowlist, allow: [pypi.org]}` with 1 to 200 hosts, or another mode \
                        without hosts";
        unfit(key, expected, node)
    })
}

fn hosts(key: &str, node: &Node) -> Result<Vec<HostRule>, Refusal> {
    let expected = "a host such as `pypi.org`, `\"*.example.org\"` or `\"example.org:8443\"`, \
                    without `https://` and without a path";
    let host = |node: &Node| {
        let host = text(key, node)?.and_then(|text| text.parse().ok());
        host.ok_or_else(|| unfit(key, expected, node))
    };
    match &node.value {
        _ if node.is_unset() => Ok(Vec::new()),
        Value::Text(_) => Ok(vec![host(node)?]),
        Value::List(nodes) if nodes.len() <= MAX_ALLOWED_HOSTS => nodes.iter().map(host).collect(),
        Value::List(_) => Err(unfit(key, "a list of at most 200 hosts", node)),
        Value::Null | Value::Flag(_) | Value::Number(_) | Value::Mapping(_) => {
            Err(unfit(key, "a list of hosts, such as `[pypi.org, \"*.example.org\"]`", node))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::Runbook;

    /// The network of a front matter, as a job freezes it, or what is wrong with it.
    fn read(yaml: &str) -> String {
        match Runbook::parse(format!("---\nnetwork: {yaml}\n---\n# T\n").as_bytes()) {
            Ok(runbook) => {
                serde_json::to_string(runbook.front_matter().network.as_ref().unwrap()).unwrap()
            }
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn a_network_is_a_word_or_a_list_of_hosts() {
        for (yaml, expected) in [
            ("public", r#""public""#),
            ("none", r#""none""#),
            ("{mode: open}", r#""open""#),
            ("{mode: allowlist, allow: [PyPI.org]}", r#"{"allowlist":["pypi.org"]}"#),
            ("{allow: pypi.org}", r#"{"allowlist":["pypi.org"]}"#),
        ] {
            assert_eq!(read(yaml), expected, "{yaml}");
        }
        for (yaml, expected) in [
            ("lan", "`network` must be `none`, `allowlist`"),
            ("true", "`network` must be `none`, `public`"),
            ("allowlist", "`network` must be `none`, `public`"),
            ("{mode: allowlist}", "with 1 to 200 hosts"),
            ("{mode: public, allow: [pypi.org]}", "another mode without hosts"),
            ("{mode: allowlist, alow: [pypi.org]}", "`network` must be"),
            ("{allow: ['https://pypi.org/']}", "`network.allow` must be a host such as"),
            ("{allow: [[pypi.org]]}", "`network.allow` must be a text"),
        ] {
            assert!(read(yaml).contains(expected), "{yaml}: {}", read(yaml));
        }
    }
}
