//! The parameters of a request: from the text of a form field to one object over a task's own.

use serde_json::{Map, Value};

use super::error::{InitParamsError, in_words};

/// Reads the form field `init_params`: one JSON object. Nothing at all and `null` are an empty one.
///
/// One `}` too many after the object is ignored: the public shell client appends it to everything
/// that its user passes.
///
/// # Errors
/// [`InitParamsError`] when it is anything else, or an object wrapped into another.
pub fn parse_init_params(text: &str) -> Result<Map<String, Value>, InitParamsError> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = match values.next() {
        Some(Ok(value)) => value,
        Some(Err(e)) => {
            return Err(InitParamsError::NotJson { line: e.line(), column: e.column() });
        }
        None => return Ok(Map::new()),
    };
    let end = values.byte_offset();
    let rest = text[end..].trim();
    let ends_well = rest.is_empty() || (rest == "}" && value.is_object());
    if !ends_well {
        let at = end + text[end..].find(rest).unwrap_or(0);
        let (line, column) = position(text, at);
        return Err(InitParamsError::Trailing { line, column });
    }
    let params = match value {
        Value::Object(params) => params,
        Value::Null => Map::new(),
        other @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            return Err(InitParamsError::NotObject { found: in_words(&other) });
        }
    };
    refuse_double_wrapping(&params)?;
    Ok(params)
}

/// Refuses `{"init_params": {…}}`: no value in it would be found, and the task's defaults would
/// run instead.
///
/// # Errors
/// [`InitParamsError::DoubleWrapped`] when that is all there is.
pub fn refuse_double_wrapping(params: &Map<String, Value>) -> Result<(), InitParamsError> {
    let wrapped = params.len() == 1 && params.get("init_params").is_some_and(Value::is_object);
    if wrapped { Err(InitParamsError::DoubleWrapped) } else { Ok(()) }
}

/// A task's own parameters under those of a request: a key of the request replaces the task's.
#[must_use]
pub fn merge(own: &Map<String, Value>, request: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = own.clone();
    merged.extend(request.iter().map(|(key, value)| (key.clone(), value.clone())));
    merged
}

/// The line and column of a byte, both counted from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn an_object_is_read_with_one_brace_too_many_too() {
        for text in [
            r#"{"a":{"b":1}}"#,
            r#" {"a":{"b":1}} "#,
            r#"{"a":{"b":1}}}"#,
            "{\"a\":{\"b\":1}}\n }\r\n",
        ] {
            assert_eq!(parse_init_params(text), Ok(object(json!({"a": {"b": 1}}))), "{text}");
        }
        for text in ["", "  \n", "{}", "{}}", "null"] {
            assert_eq!(parse_init_params(text), Ok(Map::new()), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_place() {
        let trailing = |line, column| Err(InitParamsError::Trailing { line, column });
        let not_json = |line, column| Err(InitParamsError::NotJson { line, column });
        let not_object = |found: &str| Err(InitParamsError::NotObject { found: found.to_owned() });
        for (text, expected) in [
            ("{}}}", trailing(1, 3)),
            ("{}\n  {\"a\":1}", trailing(2, 3)),
            ("{\"ü\":1} x", trailing(1, 9)),
            ("[]}", trailing(1, 3)),
            ("{\"a\":", not_json(1, 5)),
            ("{\n 'a':1}", not_json(2, 2)),
            ("@file.json", not_json(1, 1)),
            ("[1]", not_object("a list")),
            ("\"{}\"", not_object("a text")),
            ("true", not_object("`true`")),
            (r#"{"init_params":{"a":1}}"#, Err(InitParamsError::DoubleWrapped)),
            (r#"{"init_params":{}}}"#, Err(InitParamsError::DoubleWrapped)),
        ] {
            assert_eq!(parse_init_params(text), expected, "{text}");
        }
        for legal in [r#"{"init_params":"x"}"#, r#"{"init_params":{},"a":1}"#] {
            assert!(parse_init_params(legal).is_ok(), "{legal}");
        }
    }

    #[test]
    fn a_key_of_the_request_replaces_the_whole_value_of_the_task() {
        let own = object(json!({"a": {"x": 1, "y": 2}, "b": 1}));
        let request = object(json!({"a": {"x": 3}, "c": null}));
        assert_eq!(merge(&own, &request), object(json!({"a": {"x": 3}, "b": 1, "c": null})));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in r#"[{}\[\]",:a1ü\n ]{0,30}"#) {
            let _ = parse_init_params(&text);
        }
    }
}
