//! What makes a runbook unreadable: where, what is wrong, and what to write instead.

use super::limits::{MAX_DEPTH, MAX_FRONT_MATTER_BYTES};
use super::position::Position;

/// How much of a text a message repeats: enough to recognise it.
const MAX_SHOWN_CHARS: usize = 80;

/// A runbook that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{position}: {problem}")]
pub struct RunbookError {
    /// Where in the file. For a value it is the value's place, or its key's where YAML does not
    /// tell more.
    pub position: Position,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a runbook, and what to write instead. Values that could be a misplaced
/// credential are never repeated in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A byte that no UTF-8 text holds.
    #[error("the file is not UTF-8 text; save it in the encoding UTF-8")]
    NotUtf8,
    /// The first line opens a front matter, and no line closes it.
    #[error(
        "the front matter that starts here is never closed; write `---` on a line of its own \
         after its last key, or `***` here if you mean a ruled line"
    )]
    Unclosed,
    /// More front matter than is read.
    #[error(
        "the front matter has {n_bytes} bytes and may have {MAX_FRONT_MATTER_BYTES}; move the \
         long texts into the Markdown below it"
    )]
    TooLong {
        /// Its length.
        n_bytes: usize,
    },
    /// A character that YAML does not allow, not even in quotes.
    #[error(
        "YAML does not allow the character U+{:04X}; delete it or write it as an escape in \
         double quotes",
        u32::from(*character)
    )]
    ForbiddenCharacter {
        /// The character.
        character: char,
    },
    /// The front matter breaks YAML's grammar.
    #[error("the front matter is not valid YAML: {detail}; {mend}")]
    NotYaml {
        /// What the YAML reader said.
        detail: String,
        /// What to do about it.
        mend: &'static str,
    },
    /// The front matter is one text or one list.
    #[error(
        "the front matter must consist of lines such as `agent: claude-code`, and is {found}; \
         write a key and a colon before each value"
    )]
    NotMapping {
        /// What it is instead.
        found: String,
    },
    /// Values inside values, too often.
    #[error("the values are nested more than {MAX_DEPTH} deep here; make the structure flatter")]
    TooDeep,
    /// Aliases that repeat each other.
    #[error(
        "the aliases (`*name`) make the front matter too large here; write the values out \
         instead of repeating them"
    )]
    TooManyRepetitions,
    /// One key, twice in the same mapping.
    #[error("the key `{}` stood on line {first_line} already; keep one of the two", shown(key))]
    DuplicateKey {
        /// The key.
        key: String,
        /// Where it stood first.
        first_line: usize,
    },
    /// A YAML tag.
    #[error(
        "a YAML tag such as `!name` has no meaning here; delete it, or put the whole value in \
         quotes"
    )]
    Tagged,
    /// A number that no 64-bit number can hold, or that is none.
    #[error("this number cannot be used; put it in quotes if it is meant as text")]
    UnusableNumber,
    /// A known key with a value of the wrong type, or one that makes no sense.
    #[error("`{}` must be {expected}, and is {found}", shown(key))]
    Unfit {
        /// The key, with the keys around it: `secrets.API_KEY.env`.
        key: String,
        /// What it must be, with an example.
        expected: &'static str,
        /// What it is.
        found: String,
    },
}

/// The beginning of a piece of a runbook, for a message.
pub(super) fn shown(text: &str) -> String {
    let beginning: String = text.chars().take(MAX_SHOWN_CHARS).collect();
    let more = if beginning.len() < text.len() { "…" } else { "" };
    format!("{}{more}", harmless(&beginning))
}

/// A text without characters that would act on a terminal or a log.
pub(super) fn harmless(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\'' | '\\' => c.to_string(),
        _ => c.escape_debug().to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_repeats_little_and_nothing_that_acts() {
        assert_eq!(shown("é-{{x}} a/b '\"\\"), "é-{{x}} a/b '\"\\");
        assert_eq!(shown("a\n\u{1b}[31m"), "a\\n\\u{1b}[31m");
        assert_eq!(shown(&"x".repeat(80)), "x".repeat(80));
        assert_eq!(shown(&"x".repeat(81)), format!("{}…", "x".repeat(80)));
    }
}
