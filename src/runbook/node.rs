//! The values of a front matter, each with its place.

use super::error::Problem;

/// A value, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// The offset of the value, or of the nearest key or value around it that has one.
    pub(super) at: usize,
    pub(super) value: Value,
}

/// A value of the kinds that JSON has too.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Flag(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// A key, where it stands, and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) at: usize,
    /// The key as it is spelled, a number or `true` too.
    pub(super) key: String,
    pub(super) node: Node,
}

impl Node {
    /// Whether it counts as unset: null, or a text without anything but blanks.
    pub(super) fn is_unset(&self) -> bool {
        match &self.value {
            Value::Null => true,
            Value::Text(text) => text.trim().is_empty(),
            Value::Flag(_) | Value::Number(_) | Value::List(_) | Value::Mapping(_) => false,
        }
    }

    /// What it is, in words. A text is not repeated: it could be a misplaced credential.
    pub(super) fn in_words(&self) -> String {
        match &self.value {
            Value::Null => "empty".to_owned(),
            Value::Flag(flag) => format!("`{flag}`"),
            Value::Number(number) => format!("the number {number}"),
            Value::Text(_) => "a text".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
        }
    }

    /// The value as JSON.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Flag(flag) => (*flag).into(),
            Value::Number(number) => serde_json::Value::Number(number.clone()),
            Value::Text(text) => text.as_str().into(),
            Value::List(nodes) => nodes.iter().map(Self::to_json).collect(),
            Value::Mapping(entries) => {
                entries.iter().map(|entry| (entry.key.as_str(), entry.node.to_json())).collect()
            }
        }
    }
}

/// Something wrong at an offset of the YAML.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) at: usize,
    pub(super) problem: Problem,
}
