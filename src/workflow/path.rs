//! Path expressions: where a step finds a parameter, in `init_params` or in what an earlier step left.

use serde_json::{Map, Value};

/// The object of the request.
const REQUEST: &str = "init_params";

/// The only part of an earlier step that can be read.
const OUTPUTS: &str = "outputs";

/// A path such as `init_params.items[0].name`, `init_params.items[*].name` or `draft.outputs.files`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    root: Root,
    segments: Vec<Segment>,
}

/// What a path starts in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Root {
    /// The parameters of the request.
    Request,
    /// An earlier step, by its name.
    Step(String),
}

/// The steps of a workflow, as one of them sees the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Others<'a> {
    /// Those before it.
    pub(super) earlier: &'a [&'a str],
    /// All of them.
    pub(super) all: &'a [&'a str],
}

/// What the steps before one have left, by their names: each an object with `outputs`.
pub type StepOutputs = Map<String, Value>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Key(String),
    Index(usize),
    /// `[*]`: what the rest of the path finds in each element, as a list.
    Every,
}

impl Path {
    /// Reads a path; the error says why it cannot be one and what to write.
    pub(super) fn parse(text: &str, others: Others<'_>) -> Result<Self, &'static str> {
        let (root, mut rest) = root(text, others)?;
        let mut segments = Vec::new();
        while !rest.is_empty() {
            let (segment, after) = match rest.strip_prefix('[') {
                Some(inside) => bracket(inside)?,
                None => key(rest.strip_prefix('.').ok_or("write `.` before a key")?)?,
            };
            segments.push(segment);
            rest = after;
        }
        let reads_outputs = matches!(segments.first(), Some(Segment::Key(key)) if key == OUTPUTS);
        if matches!(root, Root::Step(_)) && !reads_outputs {
            return Err("of a step only its outputs can be read, as `STEP.outputs.NAME`");
        }
        Ok(Self { root, segments })
    }

    /// Whether the path leads into an earlier step.
    pub(super) fn leads_into_a_step(&self) -> bool {
        matches!(self.root, Root::Step(_))
    }

    /// The key of `init_params` that the path reads; `None` when it reads all of them.
    pub(super) fn first_key(&self) -> Option<&str> {
        match self.segments.first() {
            Some(Segment::Key(key)) => Some(key),
            Some(Segment::Index(_) | Segment::Every) | None => None,
        }
    }

    /// What stands at the path, where something does.
    pub(super) fn find(
        &self,
        params: &Map<String, Value>,
        outputs: Option<&StepOutputs>,
    ) -> Option<Value> {
        match (&self.root, self.segments.split_first()) {
            (Root::Step(step), _) => find(outputs?.get(step)?, &self.segments),
            (Root::Request, None) => Some(Value::Object(params.clone())),
            (Root::Request, Some((Segment::Key(key), rest))) => find(params.get(key)?, rest),
            (Root::Request, Some((Segment::Index(_) | Segment::Every, _))) => None,
        }
    }
}

/// What a path starts in, and the text behind that. A step's name may have a dot in it, so the
/// longest name that fits is meant.
fn root<'t>(text: &'t str, others: Others<'_>) -> Result<(Root, &'t str), &'static str> {
    let behind = |name: &str| {
        text.strip_prefix(name).filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    if let Some(rest) = behind(REQUEST) {
        return Ok((Root::Request, rest));
    }
    let named = others.all.iter().filter_map(|name| Some((*name, behind(name)?)));
    match named.max_by_key(|(name, _)| name.len()) {
        Some((name, rest)) if others.earlier.contains(&name) => {
            Ok((Root::Step(name.to_owned()), rest))
        }
        Some(_) => Err("a step can read only the outputs of steps that come before it"),
        None => {
            Err("only values of the request can be read, as `init_params.NAME`, and outputs of \
                     earlier steps, as `STEP.outputs.NAME`")
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
        let others = Others { earlier: &["draft", "draft.2"], all: &["draft", "draft.2", "last"] };
        let outputs = json!({
            "draft": {"outputs": {"text": "t", "results_files": [{"path": "a"}, {"path": "b"}]}},
            "draft.2": {"outputs": {"text": "other"}},
        });
        Path::parse(path, others).unwrap().find(params.as_object().unwrap(), outputs.as_object())
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
            ("draft.outputs.text", json!("t")),
            ("draft.2.outputs.text", json!("other")),
            ("draft.outputs.results_files[*].path", json!(["a", "b"])),
            ("draft.outputs.results_files[1].path", json!("b")),
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
            "draft.outputs.gone",
            "draft.2.outputs.results_files",
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
            "last.outputs.text",
            "self.outputs.text",
            "draft",
            "draft.text",
            "draft[0].outputs",
            "draft.outputsx",
        ] {
            let others = Others { earlier: &["draft"], all: &["draft", "self", "last"] };
            assert!(Path::parse(path, others).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(path in r"(init_params|a.outputs)?[a.\[\]*0-9 ü]{0,12}") {
            if let Ok(path) = Path::parse(&path, Others { earlier: &["a"], all: &["a"] }) {
                let values = json!({"a": {"outputs": [[{"a": 1}]]}});
                let _ = path.find(values.as_object().unwrap(), values.as_object());
            }
        }
    }
}
