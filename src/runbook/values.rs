//! From YAML's values to the types that the front matter's keys have. What is unset gives `None`.

use std::time::Duration;

use super::error::{Problem, shown};
use super::node::{Node, Refusal, Value};

/// A text. Blanks around it are dropped: a block text ends with a line break.
pub(super) fn text(key: &str, node: &Node) -> Result<Option<String>, Refusal> {
    match &node.value {
        _ if node.is_unset() => Ok(None),
        Value::Text(text) => Ok(Some(text.trim().to_owned())),
        Value::Number(_) | Value::Flag(_) => Err(unfit(key, "a text: put it in quotes", node)),
        Value::Null | Value::List(_) | Value::Mapping(_) => Err(unfit(key, "a text", node)),
    }
}

/// `true` or `false`.
pub(super) fn flag(key: &str, node: &Node) -> Result<Option<bool>, Refusal> {
    match &node.value {
        _ if node.is_unset() => Ok(None),
        Value::Flag(flag) => Ok(Some(*flag)),
        Value::Null | Value::Number(_) | Value::Text(_) | Value::List(_) | Value::Mapping(_) => {
            Err(unfit(key, "`true` or `false`, without quotes", node))
        }
    }
}

/// A whole number from 1 that fits `T`.
pub(super) fn count<T: TryFrom<u64>>(
    key: &str,
    expected: &'static str,
    node: &Node,
) -> Result<Option<T>, Refusal> {
    let whole = |number: &serde_json::Number| {
        number.as_u64().filter(|&n| n > 0).and_then(|n| T::try_from(n).ok())
    };
    number(key, expected, node, whole)
}

/// A whole number of seconds.
pub(super) fn seconds(key: &str, node: &Node) -> Result<Option<Duration>, Refusal> {
    let expected = "a whole number of seconds from 1, such as `1200`";
    let seconds: Option<u32> = count(key, expected, node)?;
    Ok(seconds.map(|seconds| Duration::from_secs(seconds.into())))
}

/// A number above 0.
pub(super) fn share(
    key: &str,
    expected: &'static str,
    node: &Node,
) -> Result<Option<f64>, Refusal> {
    number(key, expected, node, |number| number.as_f64().filter(|&share| share > 0.0))
}

/// A size in bytes: a number, or a text such as `512M`. The units are powers of 1024, as Docker's.
pub(super) fn size(key: &str, node: &Node) -> Result<Option<u64>, Refusal> {
    let expected = "a size such as `4G` or `512M`, or a whole number of bytes";
    match &node.value {
        _ if node.is_unset() => Ok(None),
        Value::Text(text) => match parse_size(text.trim()) {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(unfit(key, expected, node)),
        },
        Value::Null | Value::Flag(_) | Value::Number(_) | Value::List(_) | Value::Mapping(_) => {
            count(key, expected, node)
        }
    }
}

/// Paths of files inside the results directory: a list, or one text.
pub(super) fn paths(key: &str, node: &Node) -> Result<Vec<String>, Refusal> {
    let expected = "a list of paths, such as `[report.md, data.csv]`";
    match &node.value {
        _ if node.is_unset() => Ok(Vec::new()),
        Value::Text(_) => Ok(vec![path(key, node)?]),
        Value::List(nodes) => nodes.iter().map(|node| path(key, node)).collect(),
        Value::Null | Value::Flag(_) | Value::Number(_) | Value::Mapping(_) => {
            Err(unfit(key, expected, node))
        }
    }
}

/// Rules for the agent's tools: a list, or one text. An empty list is one.
pub(super) fn rules(key: &str, node: &Node) -> Result<Option<Vec<String>>, Refusal> {
    let expected = "a list of rules, such as `[Read, \"Bash(git *)\"]`";
    let rule = |node: &Node| text(key, node)?.ok_or_else(|| unfit(key, expected, node));
    match &node.value {
        _ if node.is_unset() => Ok(None),
        Value::Text(_) => Ok(Some(vec![rule(node)?])),
        Value::List(nodes) => nodes.iter().map(rule).collect::<Result<_, _>>().map(Some),
        Value::Null | Value::Flag(_) | Value::Number(_) | Value::Mapping(_) => {
            Err(unfit(key, expected, node))
        }
    }
}

/// Texts: a list, or one text.
pub(super) fn texts(key: &str, node: &Node) -> Result<Vec<String>, Refusal> {
    let expected = "a list of texts, such as `[ffmpeg, imagemagick]`";
    let one = |node: &Node| text(key, node)?.ok_or_else(|| unfit(key, expected, node));
    match &node.value {
        _ if node.is_unset() => Ok(Vec::new()),
        Value::Text(_) => Ok(vec![one(node)?]),
        Value::List(nodes) => nodes.iter().map(one).collect(),
        Value::Null | Value::Flag(_) | Value::Number(_) | Value::Mapping(_) => {
            Err(unfit(key, expected, node))
        }
    }
}

/// That `node` is not what `key` must be.
pub(super) fn unfit(key: &str, expected: &'static str, node: &Node) -> Refusal {
    let problem = Problem::Unfit { key: key.to_owned(), expected, found: node.in_words() };
    Refusal { at: node.at, problem }
}

fn number<T>(
    key: &str,
    expected: &'static str,
    node: &Node,
    read: impl Fn(&serde_json::Number) -> Option<T>,
) -> Result<Option<T>, Refusal> {
    match &node.value {
        _ if node.is_unset() => Ok(None),
        Value::Number(number) => match read(number) {
            Some(value) => Ok(Some(value)),
            None => Err(unfit(key, expected, node)),
        },
        Value::Null | Value::Flag(_) | Value::Text(_) | Value::List(_) | Value::Mapping(_) => {
            Err(unfit(key, expected, node))
        }
    }
}

/// The bytes of a size as runbooks write it: digits and a unit, `512M`. The units are powers of
/// 1024. `None` for anything else, and for zero.
#[must_use]
pub fn parse_size(size: &str) -> Option<u64> {
    let (digits, unit) =
        size.split_at(size.find(|c: char| !c.is_ascii_digit()).unwrap_or(size.len()));
    let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "ki" | "kib" => 1 << 10,
        "m" | "mb" | "mi" | "mib" => 1 << 20,
        "g" | "gb" | "gi" | "gib" => 1 << 30,
        "t" | "tb" | "ti" | "tib" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor).filter(|&bytes| bytes > 0)
}

/// One path. It is kept as it is written; it only must not be able to leave the directory.
fn path(key: &str, node: &Node) -> Result<String, Refusal> {
    let expected = "the path of a file inside the results directory, such as `report.md`: not \
                    empty, without a leading `/` and without `..`";
    let path = text(key, node)?.ok_or_else(|| unfit(key, expected, node))?;
    let stays_inside =
        !path.starts_with('/') && !path.contains('\0') && path.split('/').all(|part| part != "..");
    let names_a_file = path.split('/').any(|part| !part.is_empty() && part != ".");
    if stays_inside && names_a_file {
        return Ok(path);
    }
    let found = format!("`{}`", shown(&path));
    let problem = Problem::Unfit { key: key.to_owned(), expected, found };
    Err(Refusal { at: node.at, problem })
}
