//! The secrets that a runbook declares: names only, never values.

use std::collections::BTreeMap;

use super::error::Problem;
use super::name::is_name;
use super::node::{Entry, Node, Refusal, Value};
use super::values::{flag, text, unfit};

/// A secret that a runbook asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretDeclaration {
    /// The environment variable that holds it; the declaration's own name where `env` is unset.
    pub env: String,
    /// What it is for.
    pub description: Option<String>,
    /// Whether the run makes no sense without it. `false` where `required` is unset.
    pub required: bool,
}

/// Reads the mapping `secrets`. Keys that a declaration does not have go to `unknown`.
pub(super) fn read(
    key: &str,
    node: &Node,
    unknown: &mut Vec<(String, usize)>,
) -> Result<BTreeMap<String, SecretDeclaration>, Refusal> {
    match &node.value {
        _ if node.is_unset() => Ok(BTreeMap::new()),
        Value::Mapping(entries) => entries
            .iter()
            .map(|entry| Ok((entry.key.clone(), declaration(key, entry, unknown)?)))
            .collect(),
        Value::Null | Value::Flag(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => {
            let expected = "a mapping such as `API_KEY: {required: true}`";
            Err(unfit(key, expected, node))
        }
    }
}

fn declaration(
    secrets: &str,
    secret: &Entry,
    unknown: &mut Vec<(String, usize)>,
) -> Result<SecretDeclaration, Refusal> {
    let mut env = None;
    let mut description = None;
    let mut required = None;
    let name = format!("{secrets}.{}", secret.key);
    for Entry { at, key, node } in fields(&name, &secret.node)? {
        let path = format!("{name}.{key}");
        match key.as_str() {
            "env" => env = text(&path, node)?.map(|env| (env, node.at)),
            "description" => description = text(&path, node)?,
            "required" => required = flag(&path, node)?,
            _ => unknown.push((path, *at)),
        }
    }
    let (env, at) = env.unwrap_or_else(|| (secret.key.clone(), secret.at));
    if !is_name(&env) {
        return Err(not_a_variable(secrets, at));
    }
    Ok(SecretDeclaration { env, description, required: required.unwrap_or(false) })
}

/// The fields of a declaration. Without any, all have their defaults.
fn fields<'n>(name: &str, node: &'n Node) -> Result<&'n [Entry], Refusal> {
    match &node.value {
        _ if node.is_unset() => Ok(&[]),
        Value::Mapping(entries) => Ok(entries),
        Value::Null | Value::Flag(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => {
            let expected = "empty or a mapping such as `{env: API_KEY, required: true}`; the \
                            secret's value does not belong into a runbook";
            Err(unfit(name, expected, node))
        }
    }
}

/// The name is not repeated: it could be the credential itself, written in the wrong place.
fn not_a_variable(secrets: &str, at: usize) -> Refusal {
    let problem = Problem::Unfit {
        key: format!("{secrets}.*.env"),
        expected: "the name of an environment variable, such as `API_KEY`: letters, digits and \
                   `_`, not beginning with a digit (without `env`, the secret's own name is it)",
        found: "another text".to_owned(),
    };
    Refusal { at, problem }
}
