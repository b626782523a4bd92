//! Path expressions: where in `init_params` a step finds a parameter.

use serde_json::{Map, Value};

/// The object that every path starts in.
const ROOT: &str = "init_params";

/// A path such as `init_params.items[0].name` or `init_params.items[*].name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Key(String),
    Index(usize),
    /// `[*]`: what the rest of the path finds in each element, as a list.
    Every,
}

impl Path {
    /// Reads a path; the error says why it cannot be one and what to write.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let rest =
            text.strip_prefix(ROOT).filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        let Some(mut rest) = rest else {
            return Err("only values of the request can be read, as `init_params.NAME`");
        };
        let mut segments = Vec::new();
        while !rest.is_empty() {
            let (segment, after) = match rest.strip_prefix('[') {
                Some(inside) => bracket(inside)?,
                None => key(rest.strip_prefix('.').ok_or("write `.` before a key")?)?,
            };
            segments.push(segment);
            rest = after;
        }
        Ok(Self(segments))
    }

    /// The key of `init_params` that the path reads; `None` when it reads all of them.
    pub(super) fn first_key(&self) -> Option<&str> {
        match self.0.first() {
            Some(Segment::Key(key)) => Some(key),
            Some(Segment::Index(_) | Segment::Every) | None => None,
        }
    }

    /// What stands at the path, where something does.
    pub(super) fn find(&self, params: &Map<String, Value>) -> Option<Value> {
        match self.0.split_first() {
            None => Some(Value::Object(params.clone())),
            Some((Segment::Key(key), rest)) => find(params.get(key)?, rest),
            Some((Segment::Index(_) | Segment::Every, _)) => None,
        }
    }
}

fn find(value: &Value, path: &[Segment]) -> Option<Value> {
    match path.split_first() {
        None => Some(value.clone()),
        Some((Segment::Key(key), rest)) => find(value.get(key)?, rest),
        Some((Segment::Index(index), rest)) => find(value.as_array()?.get(*index)?, rest),
        Some((Segment::Every, rest)) => {
            let found = value.as_array()?.iter().filter_map(|item| find(item, rest));
            Some(Value::Array(found.collect()))
        }
    }
}

/// What stands between brackets, and the text behind them.
fn bracket(inside: &str) -> Result<(Segment, &str), &'static str> {
    let (index, after) = inside.split_once(']').ok_or("a `[` has no `]`")?;
    if index == "*" {
        return Ok((Segment::Every, after));
    }
    let is_number = !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit());
    let index = index.parse().ok().filter(|_| is_number);
    let index = index.ok_or("write a whole number or `*` between `[` and `]`")?;
    Ok((Segment::Index(index), after))
}

/// The key at the beginning of a text, and the text behind it.
fn key(text: &str) -> Result<(Segment, &str), &'static str> {
    let (key, after) = text.split_at(text.find(['.', '[']).unwrap_or(text.len()));
    if key.is_empty() || key.contains(']') || key.trim() != key {
        return Err("write a key after `.`");
    }
    Ok((Segment::Key(key.to_owned()), after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn found(path: &str) -> Option<Value> {
        let params = json!({
            "model": "m",
            "none": null,
            "deep": {"er": {"list": [{"id": 1}, {"id": 2, "tags": ["a", "b"]}, "x"]}},
            "odd-key": {"with space": true},
        });
        Path::parse(path).unwrap().find(params.as_object().unwrap())
    }

    #[test]
    fn a_path_finds_what_stands_there() {
        for (path, value) in [
            ("init_params.model", json!("m")),
            ("init_params.none", json!(null)),
            ("init_params.deep.er.list[0].id", json!(1)),
            ("init_params.deep.er.list[*].id", json!([1, 2])),
            ("init_params.deep.er.list[*].tags[*]", json!([["a", "b"]])),
            ("init_params.deep.er.list[*].nothing", json!([])),
            ("init_params.odd-key.with space", json!(true)),
        ] {
            assert_eq!(found(path), Some(value), "{path}");
        }
        assert_eq!(found("init_params").unwrap()["model"], json!("m"));
    }

    #[test]
    fn a_path_to_nothing_finds_nothing() {
        for path in [
            "init_params.other",
            "init_params.model.x",
            "init_params.model[0]",
            "init_params.deep[*]",
            "init_params.deep.er.list[3]",
            "init_params[0]",
            "init_params[*].x",
        ] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in [
            "",
            "model",
            "init_paramsx",
            "init_params.",
            "init_params..a",
            "init_params.a[",
            "init_params.a[x]",
            "init_params.a[-1]",
            "init_params.a[+1]",
            "init_params.a[]",
            "init_params.a[0]b",
            "init_params.a]",
            "init_params. a",
            "play.outputs.files",
            "env.TOKEN",
            "init_params.a[99999999999999999999999]",
        ] {
            assert!(Path::parse(path).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(path in r"(init_params)?[a.\[\]*0-9 ü]{0,12}") {
            if let Ok(path) = Path::parse(&path) {
                let _ = path.find(json!({"a": [[{"a": 1}]]}).as_object().unwrap());
            }
        }
    }
}
