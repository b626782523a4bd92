//! How long a run may do nothing, as its front matter says it.

use std::time::Duration;

use super::node::{Entry, Node, Refusal, Value};
use super::values::{seconds, unfit};

/// `stall`: how long a run may do nothing. What is absent has its default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StallTimes {
    /// `model_sec`: while it waits for its model.
    pub model: Option<Duration>,
    /// `tool_sec`: while a tool is called.
    pub tool: Option<Duration>,
    /// `silent_sec`: while neither is the case.
    pub silent: Option<Duration>,
    /// `linger_sec`: from the agent's result to the end of its process.
    pub linger: Option<Duration>,
}

/// Reads the times. Keys that nothing reads go to `unknown`.
pub(super) fn read(
    key: &str,
    node: &Node,
    unknown: &mut Vec<(String, usize)>,
) -> Result<StallTimes, Refusal> {
    let mut times = StallTimes::default();
    match &node.value {
        _ if node.is_unset() => {}
        Value::Mapping(entries) => {
            for Entry { at, key: name, node } in entries {
                let full = format!("{key}.{name}");
                match name.as_str() {
                    "model_sec" => times.model = seconds(&full, node)?,
                    "tool_sec" => times.tool = seconds(&full, node)?,
                    "silent_sec" => times.silent = seconds(&full, node)?,
                    "linger_sec" => times.linger = seconds(&full, node)?,
                    _ => unknown.push((full, *at)),
                }
            }
        }
        Value::Null | Value::Flag(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => {
            let expected = "a mapping such as `{model_sec: 900, tool_sec: 3600}`";
            return Err(unfit(key, expected, node));
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runbook::Runbook;

    fn times(yaml: &str) -> Result<StallTimes, String> {
        let text = format!("---\n{yaml}\n---\n# Body\n");
        let runbook = Runbook::parse(text.as_bytes()).map_err(|error| error.to_string())?;
        Ok(runbook.front_matter().stall)
    }

    #[test]
    fn the_times_of_nothing_are_whole_seconds_under_one_key() {
        for (wrong, named) in [
            ("stall: 60", "`stall` must be a mapping"),
            ("stall: {tool_sec: 0}", "`stall.tool_sec` must be a whole number of seconds"),
            ("stall: {model_sec: soon}", "`stall.model_sec` must be a whole number of seconds"),
        ] {
            let error = times(wrong).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
        assert_eq!(times("stall: {tool_sec: }").unwrap(), StallTimes::default());
    }
}
