//! Parameters whose values a collection keeps out of every record.

use serde_json::{Map, Value};

/// What stands for a value that the collection hides.
const HIDDEN: &str = "[redacted]";

/// Hides the values of these keys, however deep they lie.
pub fn hide_params(params: &mut Map<String, Value>, keys: &[String]) {
    if keys.is_empty() {
        return;
    }
    for (key, value) in params {
        if keys.contains(key) {
            *value = HIDDEN.into();
        } else {
            hide(value, keys);
        }
    }
}

/// [`hide_params`] in whatever value.
pub fn hide(value: &mut Value, keys: &[String]) {
    match value {
        Value::Object(params) => hide_params(params, keys),
        Value::Array(values) => values.iter_mut().for_each(|value| hide(value, keys)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_is_hidden_at_any_depth_and_nothing_else_is() {
        let mut value = json!({
            "key": {"a": 1}, "b": "key", "vars": {"key": "x", "list": [1, {"key": [2], "c": null}]},
        });
        hide(&mut value, &["key".to_owned()]);
        assert_eq!(
            value,
            json!({
                "key": "[redacted]", "b": "key",
                "vars": {"key": "[redacted]", "list": [1, {"key": "[redacted]", "c": null}]},
            })
        );
    }
}
