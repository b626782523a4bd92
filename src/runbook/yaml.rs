//! Reads YAML within limits into values that know their place.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;

use serde::de::{self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, Visitor};

use super::error::{Problem, RunbookError};
use super::explain::explain;
use super::limits::{MAX_DEPTH, MAX_EXPANDED_BYTES, MAX_OPEN_BRACKETS};
use super::node::{Entry, Node, Refusal, Value};
use super::position::Lines;
use super::split::RawYaml;

/// Reads YAML. A text without any value is [`Value::Null`].
pub(super) fn read(yaml: &RawYaml) -> Result<Node, RunbookError> {
    let lines = yaml.lines();
    let refused = |Refusal { at, problem }| RunbookError { position: lines.position(at), problem };
    if let Some((at, character)) = yaml.text.char_indices().find(|&(_, c)| !is_allowed(c)) {
        return Err(refused(Refusal { at, problem: Problem::ForbiddenCharacter { character } }));
    }
    if let Some(at) = bracket_too_many(&yaml.text) {
        return Err(refused(Refusal { at, problem: Problem::TooDeep }));
    }
    let reading = Reading {
        lines: &lines,
        text: &yaml.text,
        n_bytes_left: Cell::new(MAX_EXPANDED_BYTES),
        refusal: RefCell::new(None),
    };
    let root = NodeSeed { reading: &reading, at: 0, depth: 0 };
    root.deserialize(serde_yaml::Deserializer::from_str(&yaml.text)).map_err(|error| {
        refused(reading.refusal.take().unwrap_or_else(|| explain(&error, &lines, yaml.first_line)))
    })
}

/// YAML's printable characters. `serde_yaml` refuses the others too, but does not say where.
fn is_allowed(c: char) -> bool {
    matches!(c,
        '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}'
        | '\u{10000}'..)
}

/// Where one more bracket opens than may be open at once.
fn bracket_too_many(text: &str) -> Option<usize> {
    let mut n_open = 0_usize;
    text.bytes().position(|byte| {
        match byte {
            b'[' | b'{' => n_open += 1,
            b']' | b'}' => n_open = n_open.saturating_sub(1),
            _ => {}
        }
        n_open > MAX_OPEN_BRACKETS
    })
}

/// What all the seeds of one reading share.
struct Reading<'t> {
    lines: &'t Lines<'t>,
    text: &'t str,
    n_bytes_left: Cell<usize>,
    /// What was wrong, where it was not `serde_yaml` that found it: its errors hold only a text.
    refusal: RefCell<Option<Refusal>>,
}

impl<'t> Reading<'t> {
    fn refuse<E: de::Error>(&self, at: usize, problem: Problem) -> E {
        self.refusal.replace(Some(Refusal { at, problem }));
        E::custom("refused")
    }

    /// Takes a value of `n_bytes` out of what is allowed.
    fn charge<E: de::Error>(&self, at: usize, n_bytes: usize) -> Result<(), E> {
        let left = self.n_bytes_left.get().checked_sub(1 + n_bytes);
        self.n_bytes_left.set(left.ok_or_else(|| self.refuse(at, Problem::TooManyRepetitions))?);
        Ok(())
    }

    /// Where a part of the text stands in it, with its quote.
    fn offset(&self, part: &'t str) -> usize {
        let at = part.as_ptr().addr() - self.text.as_ptr().addr();
        at - usize::from(self.text[..at].ends_with(['"', '\'']))
    }
}

/// Reads one value. What `serde_yaml` lends from the text gives the place, which serde has no word
/// for; what it has to copy (escapes, block texts) takes the place of what is around it.
#[derive(Clone, Copy)]
struct NodeSeed<'r, 't> {
    reading: &'r Reading<'t>,
    at: usize,
    depth: usize,
}

impl<'t> NodeSeed<'_, 't> {
    fn node<E: de::Error>(self, value: Value) -> Result<Node, E> {
        self.reading.charge(self.at, 0)?;
        Ok(Node { at: self.at, value })
    }

    fn number<E: de::Error>(self, number: Option<serde_json::Number>) -> Result<Node, E> {
        let unusable = || self.reading.refuse(self.at, Problem::UnusableNumber);
        self.node(Value::Number(number.ok_or_else(unusable)?))
    }

    fn inside<E: de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(self.reading.refuse(self.at, Problem::TooDeep));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'t> DeserializeSeed<'t> for NodeSeed<'_, 't> {
    type Value = Node;

    fn deserialize<D: de::Deserializer<'t>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'t> Visitor<'t> for NodeSeed<'_, 't> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    /// A document without any value.
    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        self.node(Value::Null)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        self.node(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Node, E> {
        self.node(Value::Flag(flag))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Node, E> {
        self.number(Some(number.into()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Node, E> {
        self.number(Some(number.into()))
    }

    fn visit_u128<E: de::Error>(self, number: u128) -> Result<Node, E> {
        self.number(serde_json::Number::from_u128(number))
    }

    fn visit_i128<E: de::Error>(self, number: i128) -> Result<Node, E> {
        self.number(serde_json::Number::from_i128(number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Node, E> {
        self.number(serde_json::Number::from_f64(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Node, E> {
        self.reading.charge(self.at, text.len())?;
        self.node(Value::Text(text.to_owned()))
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'t str) -> Result<Node, E> {
        Self { at: self.reading.offset(text), ..self }.visit_str(text)
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut access: A) -> Result<Node, A::Error> {
        let item = self.inside()?;
        let mut nodes = Vec::new();
        while let Some(node) = access.next_element_seed(item)? {
            nodes.push(node);
        }
        self.node(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'t>>(self, mut access: A) -> Result<Node, A::Error> {
        let inside = self.inside()?;
        let mut entries = Vec::new();
        let mut first_places = HashMap::new();
        while let Some((at, key)) = access.next_key_seed(KeySeed(inside))? {
            if let Some(first) = first_places.insert(key.clone(), at) {
                let first_line = self.reading.lines.position(first).line;
                return Err(self.reading.refuse(at, Problem::DuplicateKey { key, first_line }));
            }
            let node = access.next_value_seed(NodeSeed { at, ..inside })?;
            entries.push(Entry { at, key, node });
        }
        self.node(Value::Mapping(entries))
    }

    fn visit_enum<A: EnumAccess<'t>>(self, _: A) -> Result<Node, A::Error> {
        Err(self.reading.refuse(self.at, Problem::Tagged))
    }
}

/// Reads one key as it is spelled, with its place.
struct KeySeed<'r, 't>(NodeSeed<'r, 't>);

impl<'t> DeserializeSeed<'t> for KeySeed<'_, 't> {
    type Value = (usize, String);

    fn deserialize<D: de::Deserializer<'t>>(
        self,
        deserializer: D,
    ) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'t> Visitor<'t> for KeySeed<'_, 't> {
    type Value = (usize, String);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text as key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Self::Value, E> {
        self.0.reading.charge(self.0.at, key.len())?;
        Ok((self.0.at, key.to_owned()))
    }

    fn visit_borrowed_str<E: de::Error>(self, key: &'t str) -> Result<Self::Value, E> {
        Self(NodeSeed { at: self.0.reading.offset(key), ..self.0 }).visit_str(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runbook::limits::MAX_FRONT_MATTER_BYTES;

    fn read_text(text: &str) -> Result<Node, String> {
        read(&RawYaml { text: text.to_owned(), first_line: 11 }).map_err(|error| error.to_string())
    }

    fn problem(text: &str) -> Problem {
        read(&RawYaml { text: text.to_owned(), first_line: 11 }).unwrap_err().problem
    }

    /// Each list holds the one before it ten times: 10 to the power of `n_lists` texts.
    fn alias_bomb(n_lists: usize) -> String {
        let list = |n: usize| {
            let item = if n == 0 { "x".to_owned() } else { format!("*l{}", n - 1) };
            format!("l{n}: &l{n} [{}]\n", [item.as_str(); 10].join(","))
        };
        (0..n_lists).map(list).collect()
    }

    #[test]
    fn aliases_that_multiply_are_refused() {
        let (small, large) = (alias_bomb(6), alias_bomb(9));
        assert!((250..=450).contains(&small.len()) && large.len() < 500);
        let wide = format!("a: &a [{}]\nb: [{}]", "1,".repeat(8_000), "*a,".repeat(8_000));
        let long = format!("a: &a {}\nb: [{}]", "x".repeat(30_000), "*a,".repeat(8_000));
        let own = "a: &a [*a, *a]".to_owned();
        let keys = format!("a: &a {}\nb: [{}]", "x".repeat(900), "{*a : 1},".repeat(1_000));
        for text in [small, large, wide, long, keys] {
            assert_eq!(problem(&text), Problem::TooManyRepetitions, "{:.40}", text);
        }
        assert_eq!(problem(&own), Problem::TooDeep);
        assert!(read_text(&alias_bomb(3)).is_ok());
    }

    #[test]
    fn no_text_of_a_legal_length_is_too_large_without_aliases() {
        for piece in ["a,", "{a},", "[],", "{},", "'',", "~,"] {
            let text = format!("[{}]", piece.repeat((MAX_FRONT_MATTER_BYTES - 2) / piece.len()));
            assert!(read_text(&text).is_ok(), "{piece}");
        }
        let keys: String = (0..8_000).map(|n| format!("{n:x}:\n")).collect();
        assert!(read_text(&keys).is_ok());
    }

    #[test]
    fn values_may_be_nested_to_the_limit() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read_text(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(problem(&nested(MAX_DEPTH + 1)), Problem::TooDeep);
        assert_eq!(problem(&"[".repeat(MAX_FRONT_MATTER_BYTES)), Problem::TooDeep);
        for piece in ["{a: ", "[{", "- "] {
            let text = piece.repeat(MAX_FRONT_MATTER_BYTES / piece.len());
            assert_eq!(problem(&text), Problem::TooDeep, "{piece}");
        }
    }

    #[test]
    fn a_second_key_is_refused_where_it_stands() {
        let cases = [
            ("a: 1\nb: 2\na: 3", "line 13, column 1: the key `a` stood on line 11 already"),
            (
                "a:\n  b: 1\n  c: 2\n  'b': 3",
                "line 14, column 3: the key `b` stood on line 12 already",
            ),
            ("a: [{b: 1,\n b: 2}]", "line 12, column 2: the key `b` stood on line 11 already"),
            ("1: a\n'1': b", "line 12, column 1: the key `1` stood on line 11 already"),
        ];
        for (text, expected) in cases {
            assert_eq!(read_text(text), Err(format!("{expected}; keep one of the two")), "{text}");
        }
        assert!(read_text("a: {b: 1}\nb: {b: 1}\nc: [{b: 1}, {b: 1}]").is_ok());
    }

    #[test]
    fn broken_yaml_is_explained_with_places_in_the_file() {
        let not_yaml = "the front matter is not valid YAML";
        let cases = [
            (
                "a: 1\nb: c: d",
                "line 12, column 5: {}: mapping values are not allowed in this context; put a value \
                 that holds a colon and a space in double quotes",
            ),
            (
                "a: 1\n\tb: 2",
                "line 12, column 1: {}: found a tab character that violates indentation, while \
                 scanning a plain scalar at line 11, column 4; indent with spaces",
            ),
            (
                "a: @b",
                "line 11, column 4: {}: found character that cannot start any token, while \
                 scanning for the next token; put a value that begins with `@`, `%` or a backtick \
                 in double quotes, and indent with spaces",
            ),
            (
                "a: 1\nb: \"open\nc: d",
                "line 13, column 5: {}: found unexpected end of stream, while scanning a quoted \
                 scalar at line 12, column 4; close the quote or the bracket that is still open",
            ),
            (
                "a: {{b}}",
                "line 11, column 5: {}: a: invalid type: map, expected a text as key; put a value \
                 that begins with `{` or `[` in double quotes if it is meant as text",
            ),
            (
                "é: *bold* text",
                "line 11, column 9: {}: did not find expected alphabetic or numeric character, \
                 while scanning an alias at line 11, column 4; put a value that begins with `*` or \
                 `&` in double quotes",
            ),
            (
                "a: 1\né: *bold",
                "line 12, column 4: {}: unknown anchor; put a value that begins with `*` in double \
                 quotes",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(read_text(text), Err(expected.replacen("{}", not_yaml, 1)), "{text}");
        }
        assert!(matches!(problem("a: 1\n--- b\n"), Problem::NotYaml { .. }));
    }

    #[test]
    fn what_has_no_use_here_is_refused_with_its_place() {
        let cases = [
            ("a: !secret b", 1, 1, Problem::Tagged),
            ("a: {b: !x [c]}", 1, 5, Problem::Tagged),
            ("a: .nan", 1, 1, Problem::UnusableNumber),
            ("a: [b, 99999999999999999999]", 1, 1, Problem::UnusableNumber),
            ("a: \"b\u{7}\"", 1, 6, Problem::ForbiddenCharacter { character: '\u{7}' }),
        ];
        for (text, line, column, problem) in cases {
            let error = read(&RawYaml { text: text.to_owned(), first_line: 1 }).unwrap_err();
            assert_eq!((error.position.line, error.position.column), (line, column), "{text}");
            assert_eq!(error.problem, problem, "{text}");
        }
    }
}
