//! What the YAML reader's errors mean: where, in which words, and what to do.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::error::{Problem, harmless};
use super::node::Refusal;
use super::position::Lines;

/// A place in the reader's words.
static PLACE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r" at (?:line (\d+) column (\d+)|position \d+)").expect("the pattern is valid")
});

/// A value that the reader repeats.
static VALUE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?s)string "(?:[^"\\]|\\.)*"|`[^`]*`"#).expect("the pattern is valid")
});

/// What `serde_yaml` says when aliases are followed too often. It tells no place.
const REPETITION_LIMIT: &str = "repetition limit exceeded";

/// Turns what `serde_yaml` says into a place, its words, and what to do.
pub(super) fn explain(error: &serde_yaml::Error, lines: &Lines<'_>, first_line: usize) -> Refusal {
    let at = error.location().map_or(0, |location| location.index());
    let message = error.to_string();
    if message == REPETITION_LIMIT {
        return Refusal { at, problem: Problem::TooManyRepetitions };
    }
    let here = format!(" at {}", lines.position(at));
    // Its lines begin with the front matter, ours with the file.
    let in_file = |place: &Captures<'_>| {
        let line = place.get(1).and_then(|line| line.as_str().parse::<usize>().ok());
        let place = line.map_or_else(String::new, |line| {
            format!(" at line {}, column {}", line + first_line - 1, &place[2])
        });
        if place == here { String::new() } else { place }
    };
    let detail = PLACE.replace_all(&message, in_file);
    // A value could be a misplaced credential.
    let detail = harmless(&VALUE.replace_all(&detail, "(a text)"));
    let mend = mend_for(&detail);
    Refusal { at, problem: Problem::NotYaml { detail, mend } }
}

/// What to do about the mistakes that people make most.
fn mend_for(detail: &str) -> &'static str {
    const MENDS: [(&str, &str); 8] = [
        (
            "mapping values are not allowed",
            "put a value that holds a colon and a space in double quotes",
        ),
        ("tab character", "indent with spaces"),
        (
            "cannot start any token",
            "put a value that begins with `@`, `%` or a backtick in double quotes, and indent \
             with spaces",
        ),
        ("unexpected end of stream", "close the quote or the bracket that is still open"),
        ("unknown anchor", "put a value that begins with `*` in double quotes"),
        (
            "alphabetic or numeric character",
            "put a value that begins with `*` or `&` in double quotes",
        ),
        (
            "a text as key",
            "put a value that begins with `{` or `[` in double quotes if it is meant as text",
        ),
        ("more than one document", "write one YAML document, without `...` or `--- ` inside"),
    ];
    MENDS
        .iter()
        .find(|(words, _)| detail.contains(words))
        .map_or("check the quotes, brackets and indentation of this line and the one above", |m| {
            m.1
        })
}
