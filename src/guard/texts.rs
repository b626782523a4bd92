//! Where the words of a prompt stand in the bytes of a request.

use std::ops::Range;

use serde::de::IgnoredAny;

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

/// The string literals of a request's prompt, quotes and all, in order.
pub(super) fn texts(body: &[u8]) -> Result<Vec<Range<usize>>, Unreadable> {
    // From here on the bytes are known to be one JSON text.
    serde_json::from_slice::<IgnoredAny>(body)?;
    let mut walk = Walk { body, at: 0, found: Vec::new() };
    walk.value(Part::Request, 0)?;
    walk.found.sort_by_key(|literal| literal.start);
    Ok(walk.found)
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
    /// Something else.
    Other,
}

struct Walk<'b> {
    body: &'b [u8],
    at: usize,
    found: Vec<Range<usize>>,
}

impl Walk<'_> {
    fn value(&mut self, part: Part, depth: usize) -> Result<(), Unreadable> {
        if depth > MAX_DEPTH {
            return Err(Unreadable::Depth);
        }
        self.blanks();
        match self.body[self.at] {
            b'"' => {
                let literal = self.literal();
                if matches!(part, Part::Prompt | Part::Arguments) {
                    self.found.push(literal);
                }
                Ok(())
            }
            b'{' => self.object(part, depth),
            b'[' => self.array(part, depth),
            _ => {
                let rest = &self.body[self.at..];
                let is_end = |byte: &u8| matches!(byte, b',' | b']' | b'}') || is_blank(*byte);
                self.at += rest.iter().position(is_end).unwrap_or(rest.len());
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
        let mut data = None;
        self.at += 1;
        while !self.ends(b'}') {
            let key = self.literal();
            let key: String = serde_json::from_slice(&self.body[key]).unwrap_or_default();
            self.ends(b':');
            let from = self.at;
            self.value(part_of(part, &key), depth + 1)?;
            let value = &self.body[from..self.at];
            match key.as_str() {
                "type" => kinds.push(serde_json::from_slice::<String>(value).unwrap_or_default()),
                "data" if value[0] == b'"' => data = Some(from..self.at),
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
        Part::Prompt if key == "data" || NAMES.contains(&key) => Part::Other,
        Part::Prompt => Part::Prompt,
        Part::Arguments => Part::Arguments,
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(body: &str) -> Vec<&str> {
        texts(body.as_bytes()).unwrap().into_iter().map(|text| &body[text]).collect()
    }

    #[test]
    fn the_words_of_a_prompt_are_found_and_nothing_else() {
        let body = r#" {"model":"m","system":[{"type":"text","text":"1","cache_control":{"type":"x"}}],
            "tools":[{"name":"T","description":"no","input_schema":{"a":"no"}}],
            "messages":[{"role":"user","content":"2"},
              {"content":[{"type":"thinking","thinking":"no","signature":"no"},
                {"thinking":"no","type":"redacted_thinking","data":"no"},
                {"type":"tool_use","id":"no","name":"no","input":{"type":"3","n":[4,"4",{"id":"5\"}"}]}},
                {"type":"tool_result","tool_use_id":"no","content":[{"type":"text","text":"6"},
                  {"type":"image","source":{"type":"base64","media_type":"no","data":"no"}}]},
                {"type":"document","title":"7","source":{"data":"8","type":"text"}}],"role":"user"}],
            "metadata":{"user_id":"no"}, "prompt" : "9" } "#;
        assert_eq!(
            words(body),
            [
                r#""1""#,
                r#""2""#,
                r#""3""#,
                r#""4""#,
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
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        assert!(matches!(texts(b"{\"messages\":["), Err(Unreadable::Json(_))));
        let deep = format!("{{\"messages\":{}{}}}", "[".repeat(200), "]".repeat(200));
        assert!(matches!(texts(deep.as_bytes()), Err(Unreadable::Depth)));
    }
}
