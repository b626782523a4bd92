//! A runbook as a whole.

use std::collections::BTreeMap;

use super::error::{Problem, RunbookError};
use super::front_matter::{FrontMatter, Positions};
use super::parameters::{self, Parameter};
use super::position::{Lines, Position};
use super::split::split;
use super::template::{self, Names, Rendered};

/// The mark that some editors put before UTF-8 text. It belongs to the file, not to its text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// A runbook: its text, byte for byte, and what its front matter says.
#[derive(Debug, Clone, PartialEq)]
pub struct Runbook {
    front_matter: FrontMatter,
    positions: Positions,
    text: String,
    /// Where the body begins in `text`.
    body_start: usize,
}

/// How much of a runbook is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The file as it is, front matter included.
    Whole,
    /// The Markdown after the front matter.
    Body,
}

impl Runbook {
    /// Reads a runbook. A file without front matter is one too: every key is absent.
    ///
    /// # Errors
    /// [`RunbookError`], with the first place that cannot be read.
    pub fn parse(bytes: &[u8]) -> Result<Self, RunbookError> {
        let file =
            std::str::from_utf8(bytes).map_err(|error| not_utf8(bytes, error.valid_up_to()))?;
        let text = without_mark(file);
        let split = split(text)?;
        let read = split.yaml.as_ref().map(FrontMatter::read).transpose()?;
        let (front_matter, positions) = read.unwrap_or_default();
        Ok(Self {
            front_matter,
            positions,
            body_start: file.len() - text.len() + split.body_start,
            text: file.to_owned(),
        })
    }

    /// What the front matter says.
    #[must_use]
    pub fn front_matter(&self) -> &FrontMatter {
        &self.front_matter
    }

    /// Where a top-level key of the front matter stands.
    #[must_use]
    pub fn position(&self, key: &str) -> Option<Position> {
        self.positions.get(key).copied()
    }

    /// The file as it was given, byte for byte.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The Markdown after the front matter, byte for byte; all of the text (but for a byte order
    /// mark) where there is no front matter.
    #[must_use]
    pub fn body(&self) -> &str {
        &self.text[self.body_start..]
    }

    /// The rows of the table under `## Parameters`.
    #[must_use]
    pub fn parameters(&self) -> Vec<Parameter> {
        parameters::read(self.body())
    }

    /// The defaults that the parameters have, by variable.
    #[must_use]
    pub fn defaults(&self) -> BTreeMap<String, String> {
        let parameters = self.parameters().into_iter();
        parameters.filter_map(|parameter| Some((parameter.variable, parameter.default?))).collect()
    }

    /// Fills in template variables. `values` is all there is: who wants [`Self::defaults`] or
    /// `results_dir` filled in puts them there. References to declared secrets become references
    /// to their environment variables.
    #[must_use]
    pub fn render(&self, part: Part, values: &BTreeMap<String, String>) -> Rendered {
        let declared = self.parameters().into_iter().map(|parameter| parameter.variable).collect();
        let names = Names { values, secrets: &self.front_matter.secrets, declared };
        match part {
            Part::Whole => template::render(&self.text, 1, &names),
            Part::Body => {
                let n_lines_above = self.text[..self.body_start].matches('\n').count();
                template::render(self.body(), n_lines_above + 1, &names)
            }
        }
    }
}

fn without_mark(file: &str) -> &str {
    file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file)
}

fn not_utf8(bytes: &[u8], n_valid: usize) -> RunbookError {
    let valid = String::from_utf8_lossy(&bytes[..n_valid]);
    let valid = without_mark(&valid);
    RunbookError { position: Lines::new(valid, 1).position(valid.len()), problem: Problem::NotUtf8 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runbook::{Position, UnfilledVariable};

    const HEAD: &str = "---\nagent: claude-code\n---\n";

    const BODY: &str = "\n# Title\n\n## Parameters\n\n| Parameter | Default |\n|-|-|\n\
        | Mode | `fast` |\n| Goal | *(required)* |\n\nReach {{goal}} in {{mode}} mode.\n";

    #[test]
    fn the_text_and_the_body_are_kept_byte_for_byte() {
        let windows = |text: &str| text.replace('\n', "\r\n");
        let marked = format!("\u{feff}{HEAD}");
        for (head, body) in [
            (HEAD, BODY),
            (&marked, BODY),
            (&windows(HEAD), &windows(BODY)),
            (&windows(&marked), &windows(BODY)),
        ] {
            let text = format!("{head}{body}");
            let runbook = Runbook::parse(text.as_bytes()).unwrap();
            assert_eq!((runbook.text(), runbook.body()), (text.as_str(), body));
            assert_eq!(runbook.front_matter().agent.as_deref(), Some("claude-code"), "{text:?}");
        }
    }

    #[test]
    fn a_file_without_front_matter_is_a_runbook() {
        for (text, body) in [("", ""), ("# Do it\n", "# Do it\n"), ("\u{feff}# Do it", "# Do it")] {
            let runbook = Runbook::parse(text.as_bytes()).unwrap();
            assert_eq!((runbook.text(), runbook.body()), (text, body));
            assert_eq!(runbook.front_matter(), &FrontMatter::default());
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_with_their_place() {
        for (bytes, line, column) in [
            (&b"\xff"[..], 1, 1),
            (b"\xef\xbb\xbfab\xff", 1, 3),
            (b"---\na: 1\n---\nab\xc3\xa9\xc3", 4, 4),
            (b"a\r\n\xed\xa0\x80", 2, 1),
        ] {
            let position = Position { line, column };
            let expected = RunbookError { position, problem: Problem::NotUtf8 };
            assert_eq!(Runbook::parse(bytes), Err(expected), "{bytes:?}");
        }
    }

    #[test]
    fn a_part_is_rendered_and_its_lines_are_the_files() {
        let small = format!("{HEAD}{BODY}");
        let runbook = Runbook::parse(small.as_bytes()).unwrap();
        assert_eq!(runbook.defaults(), BTreeMap::from([("mode".to_owned(), "fast".to_owned())]));
        for (part, whole) in [(Part::Whole, small.as_str()), (Part::Body, BODY)] {
            let expected = Rendered {
                text: whole.replace("{{mode}}", "fast"),
                filled: vec!["mode".to_owned()],
                unfilled: vec![UnfilledVariable { name: "goal".to_owned(), line: 14 }],
            };
            assert_eq!(runbook.render(part, &runbook.defaults()), expected, "{part:?}");
        }
    }

    /// Pieces that YAML and Markdown give a meaning, with bars between them.
    const PIECES: &str = "---\n¦\n¦\r\n¦\r¦\t¦  ¦a¦b¦: ¦:¦- ¦? ¦[¦]¦{¦}¦,¦&a ¦*a ¦!x ¦!!int ¦<<: ¦\"¦'¦\
        |\n¦>-\n¦#¦%¦@¦`¦1¦1.10¦null¦true¦.nan¦é¦\u{feff}¦\u{85}¦\u{2028}¦\u{7}¦...\n¦secrets:\n¦\
        primary_outputs: ¦version: ¦mcp_servers: ¦## Parameters\n¦|-|\n¦{{a}}";

    fn soup() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(PIECES.split('¦').collect::<Vec<_>>());
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in any::<Vec<u8>>()) {
            let _: Result<Runbook, RunbookError> = Runbook::parse(&bytes);
        }

        #[test]
        fn no_text_makes_the_reader_panic_and_none_is_changed(
            yaml in soup(),
            body in soup(),
            is_closed in any::<bool>(),
        ) {
            let text = format!("---\n{yaml}\n{}{body}", if is_closed { "---\n" } else { "" });
            match Runbook::parse(text.as_bytes()) {
                Ok(runbook) => {
                    prop_assert_eq!(runbook.text(), &text);
                    prop_assert!(text.ends_with(runbook.body()));
                    if runbook.front_matter().secrets.is_empty() {
                        let rendered = runbook.render(Part::Whole, &BTreeMap::new());
                        prop_assert_eq!(rendered.text, text);
                    }
                }
                Err(error) => {
                    let n_lines = text.matches('\n').count() + 1;
                    prop_assert!((1..=n_lines).contains(&error.position.line), "{}", error);
                }
            }
        }
    }
}
