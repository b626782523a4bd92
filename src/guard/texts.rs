//! Where the words of a prompt stand in the bytes of a request.

use std::ops::Range;

use serde::de::{Deserializer as _, IgnoredAny, Visitor};

/// Deepest nesting that is looked into. What is deeper is refused: nobody can say what it is.
const MAX_DEPTH: usize = 100;

/// The parts of a request that are its prompt.
const PROMPT: [&str; 3] = ["messages", "system", "prompt"];

/// What names and refers inside a prompt: changed, the request would mean something else.
const NAMES: [&str; 11] = [
    "type",
    "role",
    "id",
    "tool_use_id",
    "tool_call_id",
    "name",
    "signature",
    "media_type",
    "cache_control",
    "model",
    "encoding",
];

/// A request whose prompt cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is no JSON.
    #[error("it is not JSON")]
    Json(#[from] serde_json::Error),
    /// It is nested too deep.
    #[error("it is nested deeper than {MAX_DEPTH} levels")]
    Depth,
}

/// A piece of JSON that can hold words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Literal {
    /// What it is.
    pub(super) form: Form,
    /// Its bytes, quotes and all.
    pub(super) range: Range<usize>,
}

/// What a literal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A string.
    Text,
    /// A string that should be JSON in itself: what a function is called with.
    Json,
    /// A string that names a member of an object.
    Key,
    /// A number.
    Number,
}

/// The literals of a request's prompt, in order.
pub(super) fn texts(body: &[u8]) -> Result<Vec<Literal>, Unreadable> {
    literals(body, Part::Request)
}

/// The literals of what a function is called with, in order.
pub(super) fn arguments(json: &[u8]) -> Result<Vec<Literal>, Unreadable> {
    literals(json, Part::Arguments)
}

fn literals(body: &[u8], part: Part) -> Result<Vec<Literal>, Unreadable> {
    // From here on the bytes are known to be one JSON text.
    serde_json::from_slice::<IgnoredAny>(body)?;
    let mut walk = Walk { body, at: 0, found: Vec::new() };
    walk.value(part, 0)?;
    walk.found.sort_by_key(|literal| literal.range.start);
    Ok(walk.found)
}

/// What a string literal says. Half of a character that needs two says nothing that could be sent on:
/// U+FFFD stands in its place, so that every escape around it is read as what it means.
pub(super) fn said(literal: &[u8]) -> String {
    struct Bytes;

    impl Visitor<'_> for Bytes {
        type Value = String;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a string")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<String, E> {
            Ok(String::from_utf8_lossy(bytes).into_owned())
        }
    }

    let mut reader = serde_json::Deserializer::from_slice(literal);
    // A literal of a JSON text is always one; were it not, it would be looked through as it is written.
    let said = reader.deserialize_bytes(Bytes);
    said.unwrap_or_else(|_| String::from_utf8_lossy(literal).into_owned())
}

/// What a value is a part of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The request itself.
    Request,
    /// Messages and their blocks.
    Prompt,
    /// What a tool is called with: every word of it.
    Arguments,
    /// The same, as JSON in a string.
    Encoded,
    /// Something else.
    Other,
}

struct Walk<'b> {
    body: &'b [u8],
    at: usize,
    found: Vec<Literal>,
}

impl Walk<'_> {
    fn value(&mut self, part: Part, depth: usize) -> Result<(), Unreadable> {
        if depth > MAX_DEPTH {
            return Err(Unreadable::Depth);
        }
        self.blanks();
        match self.body[self.at] {
            b'"' => {
                let range = self.literal();
                let form = match part {
                    Part::Prompt | Part::Arguments => Some(Form::Text),
                    Part::Encoded => Some(Form::Json),
                    Part::Request | Part::Other => None,
                };
                self.found.extend(form.map(|form| Literal { form, range }));
                Ok(())
            }
            b'{' => self.object(part, depth),
            b'[' => self.array(part, depth),
            _ => {
                let (start, rest) = (self.at, &self.body[self.at..]);
                let is_end = |byte: &u8| matches!(byte, b',' | b']' | b'}') || is_blank(*byte);
                self.at += rest.iter().position(is_end).unwrap_or(rest.len());
                let is_number = rest[0] == b'-' || rest[0].is_ascii_digit();
                if is_number && !matches!(part, Part::Request | Part::Other) {
                    self.found.push(Literal { form: Form::Number, range: start..self.at });
                }
                Ok(())
            }
        }
    }

    fn array(&mut self, part: Part, depth: usize) -> Result<(), Unreadable> {
        self.at += 1;
        while !self.ends(b']') {
            self.value(part, depth + 1)?;
        }
        Ok(())
    }

    fn object(&mut self, part: Part, depth: usize) -> Result<(), Unreadable> {
        let n_before = self.found.len();
        let mut kinds = Vec::new();
        let mut data = Vec::new();
        self.at += 1;
        while !self.ends(b'}') {
            let range = self.literal();
            let key = said(&self.body[range.clone()]);
            if matches!(part, Part::Arguments | Part::Encoded) {
                self.found.push(Literal { form: Form::Key, range });
            }
            self.ends(b':');
            let from = self.at;
            self.value(part_of(part, &key), depth + 1)?;
            let value = &self.body[from..self.at];
            match key.as_str() {
                "type" => kinds.push(serde_json::from_slice::<String>(value).unwrap_or_default()),
                "data" if value[0] == b'"' => {
                    data.push(Literal { form: Form::Text, range: from..self.at });
                }
                _ => {}
            }
        }
        if part != Part::Prompt {
            return Ok(());
        }
        // Said twice, it must be one both times.
        let is_one_of = |words: &[&str]| {
            !kinds.is_empty() && kinds.iter().all(|kind| words.contains(&kind.as_str()))
        };
        if is_one_of(&["thinking", "redacted_thinking"]) {
            // It is signed as it is.
            self.found.truncate(n_before);
        } else if !is_one_of(&["base64"]) {
            self.found.extend(data);
        }
        Ok(())
    }

    /// A string, quotes and all.
    fn literal(&mut self) -> Range<usize> {
        self.blanks();
        let start = self.at;
        self.at += 1;
        while self.body[self.at] != b'"' {
            self.at += if self.body[self.at] == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
        start..self.at
    }

    /// Goes past a comma or `end`, and says whether it was `end`.
    fn ends(&mut self, end: u8) -> bool {
        self.blanks();
        let found = self.body[self.at];
        if found == end || found == b',' {
            self.at += 1;
            self.blanks();
        }
        found == end
    }

    fn blanks(&mut self) {
        self.at += self.body[self.at..].iter().take_while(|byte| is_blank(**byte)).count();
    }
}

fn part_of(part: Part, key: &str) -> Part {
    match part {
        Part::Request if PROMPT.contains(&key) => Part::Prompt,
        Part::Request | Part::Other => Part::Other,
        Part::Prompt if key == "input" => Part::Arguments,
        Part::Prompt if key == "arguments" => Part::Encoded,
        Part::Prompt if key == "data" || NAMES.contains(&key) => Part::Other,
        Part::Prompt => Part::Prompt,
        Part::Arguments | Part::Encoded => Part::Arguments,
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(body: &str) -> Vec<&str> {
        let texts = texts(body.as_bytes()).unwrap();
        texts.into_iter().map(|literal| &body[literal.range]).collect()
    }

    #[test]
    fn the_words_of_a_prompt_are_found_and_nothing_else() {
        let body = r#" {"model":"m","system":[{"type":"text","text":"1","cache_control":{"type":"x"}}],
            "tools":[{"name":"T","description":"no","input_schema":{"a":"no"}}],
            "messages":[{"role":"user","content":"2"},
              {"content":[{"type":"thinking","thinking":"no","signature":"no"},
                {"thinking":"no","type":"redacted_thinking","data":"no"},
                {"type":"tool_use","id":"no","name":"no","input":{"type":"3","n":[-4.5e1,"4",{"id":"5\"}"}]}},
                {"type":"tool_result","tool_use_id":"no","content":[{"type":"text","text":"6"},
                  {"type":"image","source":{"type":"base64","media_type":"no","data":"no"}}]},
                {"type":"document","title":"7","source":{"data":"8","type":"text"}}],"role":"user"}],
            "metadata":{"user_id":"no"}, "prompt" : "9" } "#;
        assert_eq!(
            words(body),
            [
                r#""1""#,
                r#""2""#,
                r#""type""#,
                r#""3""#,
                r#""n""#,
                "-4.5e1",
                r#""4""#,
                r#""id""#,
                r#""5\"}""#,
                r#""6""#,
                r#""7""#,
                r#""8""#,
                r#""9""#
            ]
        );
    }

    #[test]
    fn what_says_twice_what_it_is_hides_nothing() {
        for (body, expected) in [
            (r#"{"messages":[{"type":"thinking","type":"text","text":"a"}]}"#, r#""a""#),
            (r#"{"messages":[{"type":"base64","type":"text","data":"a"}]}"#, r#""a""#),
            (r#"{"messages":[],"messages":["a"]}"#, r#""a""#),
            (r#"{"messages":[{"data":"a"}]}"#, r#""a""#),
        ] {
            assert_eq!(words(body), [expected], "{body}");
        }
        let twice = r#"{"messages":[{"data":"a","data":"b"}]}"#;
        assert_eq!(words(twice), [r#""a""#, r#""b""#]);
    }

    #[test]
    fn what_a_function_is_called_with_is_json_in_a_text() {
        let body = r#"{"messages":[{"tool_calls":[{"function":{"name":"no","arguments":"{}"}}]}]}"#;
        let form = |json: &str| texts(json.as_bytes()).unwrap().into_iter().map(|l| l.form);
        assert_eq!(form(body).collect::<Vec<_>>(), [Form::Json]);
        let forms = arguments(br#"{"a":[1,"b"],"arguments":"c"}"#).unwrap().into_iter();
        let forms: Vec<Form> = forms.map(|literal| literal.form).collect();
        assert_eq!(forms, [Form::Key, Form::Number, Form::Text, Form::Key, Form::Text]);
    }

    #[test]
    fn half_of_a_character_hides_no_escape() {
        assert_eq!(
            said(br#""\u00e4\ud83d\n\"\ude00 \ud83d\ude00""#),
            "ä\u{fffd}\u{fffd}\u{fffd}\n\"\u{fffd}\u{fffd}\u{fffd} 😀"
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        assert!(matches!(texts(b"{\"messages\":["), Err(Unreadable::Json(_))));
        let deep = format!("{{\"messages\":{}{}}}", "[".repeat(200), "]".repeat(200));
        assert!(matches!(texts(deep.as_bytes()), Err(Unreadable::Depth)));
    }
}
