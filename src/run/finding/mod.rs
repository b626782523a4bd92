//! What the checks before a run find: where, how bad, under which name, and what to do.

mod code;

use std::fmt;

use serde::Serialize;

pub use code::Code;

/// A place in the runbook, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The run is refused.
    Error,
    /// The run starts, and a person should know.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One thing that the checks before a run found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its name.
    pub code: Code,
    /// Where in the runbook, if it is about a place there.
    pub place: Option<Place>,
    /// What is wrong and what to do, as a fragment that begins in lower case.
    pub message: String,
}

impl Finding {
    /// A finding about the run as a whole.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, place: None, message: message.into() }
    }

    /// The same finding, about a place in the runbook.
    #[must_use]
    pub fn at(self, place: Option<Place>) -> Self {
        Self { place, ..self }
    }

    /// Whether it refuses the run.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.code.severity() == Severity::Error
    }

    /// The finding as a whole sentence for a person who has no file at hand.
    #[must_use]
    pub fn sentence(&self) -> String {
        let mut letters = self.message.chars();
        let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
        let line = self.place.map(|place| format!(" (line {})", place.line)).unwrap_or_default();
        format!("{first}{}{line}.", letters.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_as_a_sentence() {
        let finding = Finding::new(Code::UnknownKey, "the key `x` is not known")
            .at(Some(Place { line: 3, column: 1 }));
        assert_eq!(finding.sentence(), "The key `x` is not known (line 3).");
    }
}
