//! Where the front matter ends and the Markdown begins.

use gray_matter::engine::Engine;
use gray_matter::{Matter, Pod};

use super::error::{Problem, RunbookError};
use super::limits::MAX_FRONT_MATTER_BYTES;
use super::position::Lines;

/// The line that opens and closes a front matter.
const FENCE: &str = "---";

/// A runbook in two parts.
pub(super) struct Split {
    /// The YAML between the fences; `None` where the text has no front matter.
    pub(super) yaml: Option<RawYaml>,
    /// Where the Markdown begins, in bytes.
    pub(super) body_start: usize,
}

/// The YAML between the fences, with its place in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RawYaml {
    /// The YAML with LF line ends, from its first line that is not blank.
    pub(super) text: String,
    /// The number of that line in the file.
    pub(super) first_line: usize,
}

impl RawYaml {
    /// For turning offsets into positions in the file.
    pub(super) fn lines(&self) -> Lines<'_> {
        Lines::new(&self.text, self.first_line)
    }
}

/// Finds the front matter of a text without byte order mark.
pub(super) fn split(text: &str) -> Result<Split, RunbookError> {
    let Some(opening) = opening_fence(text) else {
        return Ok(Split { yaml: None, body_start: 0 });
    };
    let position = Lines::new(&text[..opening], 1).position(opening);
    let Some(body_start) = end_of_closing_fence(text, opening) else {
        return Err(RunbookError { position, problem: Problem::Unclosed });
    };
    let n_bytes = body_start - opening;
    if n_bytes > MAX_FRONT_MATTER_BYTES {
        return Err(RunbookError { position, problem: Problem::TooLong { n_bytes } });
    }
    let yaml = between_fences(&text[opening..body_start], position.line);
    Ok(Split { yaml: Some(yaml), body_start })
}

/// Where the opening fence stands. Blank lines above it are passed over: a runbook that was pasted
/// into a message often begins with one, and its front matter must not be lost silently.
fn opening_fence(text: &str) -> Option<usize> {
    let (start, line) = lines_with_starts(text).find(|(_, line)| !line.trim().is_empty())?;
    (line.trim_end() == FENCE).then_some(start)
}

/// Where the line after the closing fence begins. `gray_matter` does not tell it, nor whether a
/// front matter was closed at all, and it drops blank lines and line ends of the Markdown.
fn end_of_closing_fence(text: &str, opening: usize) -> Option<usize> {
    lines_with_starts(&text[opening..])
        .skip(1)
        .find(|(_, line)| line.trim_end() == FENCE)
        .map(|(start, line)| opening + start + line.len())
}

/// The lines of a text, each with its line end and with the offset of its first byte.
fn lines_with_starts(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_inclusive('\n').scan(0, |next, line| {
        let start = *next;
        *next += line.len();
        Some((start, line))
    })
}

/// The YAML of `head`, which runs from the opening fence to the closing one.
fn between_fences(head: &str, opening_line: usize) -> RawYaml {
    let matter = Matter::<RawMatter>::new()
        .parse::<()>(head)
        .expect("an engine that reads nothing finds nothing wrong")
        .matter;
    let inside = head.find('\n').map_or("", |end| &head[end + 1..]);
    let blank = &inside[..inside.len() - inside.trim_start().len()];
    // `gray_matter` trims the first line's indentation too. YAML needs it: the lines below may be
    // indented as far.
    let indentation = blank.rsplit('\n').next().unwrap_or_default();
    RawYaml {
        text: format!("{indentation}{matter}"),
        first_line: opening_line + 1 + blank.matches('\n').count(),
    }
}

/// Keeps `gray_matter` from reading the YAML: it only splits. Its own YAML engine needs gigabytes
/// for some texts of 300 bytes, and its errors name neither key nor line.
struct RawMatter;

impl Engine for RawMatter {
    fn parse(_: &str) -> gray_matter::Result<Pod> {
        Ok(Pod::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The YAML with the number of its first line, and the body.
    fn parts(text: &str) -> (Option<(String, usize)>, &str) {
        let Split { yaml, body_start } = split(text).unwrap();
        (yaml.map(|yaml| (yaml.text, yaml.first_line)), &text[body_start..])
    }

    fn problem(text: &str) -> (usize, Problem) {
        let error = split(text).err().unwrap();
        (error.position.line, error.problem)
    }

    #[test]
    fn a_text_without_front_matter_is_all_body() {
        for text in ["", "\n", "# Title\n---\na: 1\n---\n", "----\n", "--- \tx\n---\n", "--\n"] {
            assert_eq!(parts(text), (None, text), "{text:?}");
        }
    }

    #[test]
    fn the_body_is_kept_byte_for_byte() {
        for body in ["", "\n", "\n\n# A\r\n\r\n---\r\nb  \n\n", "no newline at the end", "---"] {
            let text = format!("---\na: 1\n---\n{body}");
            assert_eq!(parts(&text), (Some(("a: 1".to_owned(), 2)), body), "{text:?}");
        }
        assert_eq!(parts("---\na: 1\n---"), (Some(("a: 1".to_owned(), 2)), ""));
    }

    #[test]
    fn the_yaml_knows_its_line_and_keeps_its_indentation() {
        let cases = [
            ("---\n---\nx", "", 2),
            ("--- \t\r\na: 1\r\nb: 2\r\n---  \r\nx", "a: 1\nb: 2", 2),
            ("---\n\n \n  a: 1\n  b: 2\n\n---\nx", "  a: 1\n  b: 2", 4),
            ("\n \n---\na: 1\n---\nx", "a: 1", 4),
            ("---\na: |\n  ---\n  b\n---\nx", "a: |\n  ---\n  b", 2),
        ];
        for (text, yaml, first_line) in cases {
            assert_eq!(parts(text), (Some((yaml.to_owned(), first_line)), "x"), "{text:?}");
        }
    }

    #[test]
    fn a_front_matter_that_never_closes_is_refused() {
        for text in ["---", "---\n", "---\na: 1\n", "---\r\na: 1\r\n --- \r\n", "---\na\n----\n"] {
            assert_eq!(problem(text), (1, Problem::Unclosed), "{text:?}");
        }
        assert_eq!(problem("\n\n---\na: 1\n"), (3, Problem::Unclosed));
    }

    #[test]
    fn a_front_matter_at_the_limit_is_read_and_one_byte_more_is_refused() {
        let of = |n_bytes: usize| format!("---\n#{}\n---\nx", "a".repeat(n_bytes - 10));
        assert_eq!(parts(&of(MAX_FRONT_MATTER_BYTES)).1, "x");
        let n_bytes = MAX_FRONT_MATTER_BYTES + 1;
        assert_eq!(problem(&of(n_bytes)), (1, Problem::TooLong { n_bytes }));
    }
}
