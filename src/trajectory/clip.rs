//! Texts and arguments cut to a size that keeps the record loadable, with what was cut counted.

use serde::Serialize;
use serde_json::Value;

/// The longest text that a step keeps. A person reads a step's beginning; the byte-exact log has
/// the rest.
pub const STEP_TEXT_BYTES: usize = 16 * 1024;

/// The longest string kept inside the arguments of a tool call that are too large as a whole: the
/// small ones, such as a path, stay whole beside the large one, such as a file's content.
const ARGUMENT_TEXT_BYTES: usize = 2 * 1024;

/// The longest title of a step, in bytes: one line on a terminal.
const TITLE_BYTES: usize = 100;

/// The beginning of a text, and how much of it is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Clipped {
    /// The beginning, at most [`STEP_TEXT_BYTES`].
    pub text: String,
    /// What was cut off, in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub n_truncated_bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Clipped {
    /// Keeps the beginning of `text`.
    #[must_use]
    pub fn new(text: String) -> Self {
        let mut clipped = Self { text, n_truncated_bytes: 0 };
        clipped.cut();
        clipped
    }

    /// Whether there is nothing, not even something that was cut off.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.n_truncated_bytes == 0
    }

    /// Adds a paragraph.
    pub fn append(&mut self, more: &str) {
        if self.n_truncated_bytes > 0 {
            self.n_truncated_bytes += more.len() as u64;
            return;
        }
        if !self.text.is_empty() && !more.is_empty() {
            self.text.push_str("\n\n");
        }
        self.text.push_str(more);
        self.cut();
    }

    fn cut(&mut self) {
        let end = self.text.floor_char_boundary(STEP_TEXT_BYTES);
        self.n_truncated_bytes += (self.text.len() - end) as u64;
        self.text.truncate(end);
        self.text.shrink_to_fit();
    }
}

/// The arguments of a tool call, with long strings cut where the whole is too large.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Arguments {
    /// The arguments. A string where the agent's text was not JSON, or too large and not made of
    /// long strings.
    pub value: Value,
    /// What was cut off, in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub n_truncated_bytes: u64,
    /// How much there is in memory, roughly, in bytes.
    #[serde(skip)]
    pub(super) n_bytes: usize,
}

impl Arguments {
    /// Reads the arguments' JSON text.
    #[must_use]
    pub fn new(json: &str) -> Self {
        let Ok(mut value) = serde_json::from_str(json) else { return Self::unread(json) };
        if json.len() <= STEP_TEXT_BYTES {
            return Self { value, n_truncated_bytes: 0, n_bytes: json.len() };
        }
        let mut n_truncated_bytes = 0;
        cut_strings(&mut value, &mut n_truncated_bytes);
        let n_bytes = json.len().saturating_sub(usize::try_from(n_truncated_bytes).unwrap_or(0));
        if n_bytes > 2 * STEP_TEXT_BYTES {
            return Self::unread(json);
        }
        Self { value, n_truncated_bytes, n_bytes }
    }

    fn unread(json: &str) -> Self {
        let Clipped { text, n_truncated_bytes } = Clipped::new(json.to_owned());
        let n_bytes = text.len();
        Self { value: Value::from(text), n_truncated_bytes, n_bytes }
    }

    /// One line that tells this call from others: the tool and its most telling argument.
    #[must_use]
    pub fn title(&self, tool: &str) -> String {
        const TELLING: [&str; 10] = [
            "command",
            "file_path",
            "path",
            "pattern",
            "url",
            "query",
            "description",
            "skill",
            "prompt",
            "notebook_path",
        ];
        let telling = TELLING.iter().find_map(|key| self.value.get(key)?.as_str());
        match telling {
            Some(argument) => one_line(&format!("{tool}: {argument}")),
            None => one_line(tool),
        }
    }
}

/// Cuts every long string inside `value`. Recursion is safe: the reader limits the depth.
fn cut_strings(value: &mut Value, n_truncated_bytes: &mut u64) {
    match value {
        Value::String(text) => {
            let end = text.floor_char_boundary(ARGUMENT_TEXT_BYTES);
            *n_truncated_bytes += (text.len() - end) as u64;
            text.truncate(end);
            text.shrink_to_fit();
        }
        Value::Array(values) => {
            values.iter_mut().for_each(|value| cut_strings(value, n_truncated_bytes));
        }
        Value::Object(fields) => {
            fields.values_mut().for_each(|value| cut_strings(value, n_truncated_bytes));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The beginning of a text as one line, with control characters left out.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > TITLE_BYTES {
            line.truncate(line.floor_char_boundary(TITLE_BYTES));
            line.push('…');
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_the_rest_is_counted() {
        let mut clipped = Clipped::new("é".repeat(STEP_TEXT_BYTES));
        assert_eq!(clipped.text.len(), STEP_TEXT_BYTES);
        assert_eq!(clipped.n_truncated_bytes, STEP_TEXT_BYTES as u64);
        clipped.append("more");
        assert_eq!(clipped.n_truncated_bytes, STEP_TEXT_BYTES as u64 + 4);
        let mut whole = Clipped::new("one".to_owned());
        whole.append("two");
        assert_eq!(whole, Clipped { text: "one\n\ntwo".to_owned(), n_truncated_bytes: 0 });
    }

    #[test]
    fn large_arguments_keep_their_small_fields() {
        let json = serde_json::json!({"file_path": "/a", "content": "x".repeat(100_000)});
        let arguments = Arguments::new(&json.to_string());
        assert_eq!(arguments.value["file_path"], "/a");
        assert_eq!(arguments.value["content"].as_str().unwrap().len(), ARGUMENT_TEXT_BYTES);
        assert_eq!(arguments.n_truncated_bytes, 100_000 - ARGUMENT_TEXT_BYTES as u64);
        assert_eq!(arguments.title("Write"), "Write: /a");
    }

    #[test]
    fn arguments_that_are_not_json_or_large_without_long_strings_are_kept_as_text() {
        assert_eq!(Arguments::new("{bad").value, Value::from("{bad"));
        let numbers = format!("[{}1]", "1,".repeat(50_000));
        let arguments = Arguments::new(&numbers);
        assert_eq!(arguments.value.as_str().unwrap().len(), STEP_TEXT_BYTES);
        assert_eq!(arguments.n_truncated_bytes, (numbers.len() - STEP_TEXT_BYTES) as u64);
    }

    #[test]
    fn a_title_is_one_short_line() {
        assert_eq!(one_line(" a\n\tb\u{1b}[31m c "), "a b [31m c");
        assert_eq!(one_line(&"word ".repeat(100)).lines().count(), 1);
        assert!(one_line(&"x".repeat(1000)).len() <= TITLE_BYTES + '…'.len_utf8());
    }
}
