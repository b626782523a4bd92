//! One thing that a run needs, as it was found on this machine, and what to do where it is amiss.

use serde::Serialize;

/// How a thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// A run is possible, and a person should know.
    Warning,
    /// No run is possible until it is mended.
    Problem,
    /// It is not needed here.
    Skipped,
}

/// What one check found. It is written to the JSON of `runbookd doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at. The word is stable: programs search for it.
    pub name: &'static str,
    /// How it stands.
    pub status: CheckStatus,
    /// What was found. It never holds the value of a credential.
    pub found: String,
    /// What to do about it, as a command or a sentence.
    pub mend: Option<String>,
    /// What else a person should know, in whole sentences.
    pub notes: Vec<String>,
}

impl Check {
    /// All is well.
    #[must_use]
    pub fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: CheckStatus::Ok, found: found.into(), mend: None, notes: Vec::new() }
    }

    /// A run is possible all the same.
    #[must_use]
    pub fn warning(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        let mend = Some(mend.into());
        Self { status: CheckStatus::Warning, mend, ..Self::ok(name, found) }
    }

    /// No run is possible.
    #[must_use]
    pub fn problem(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        let mend = Some(mend.into());
        Self { status: CheckStatus::Problem, mend, ..Self::ok(name, found) }
    }

    /// Not needed here.
    #[must_use]
    pub fn skipped(name: &'static str, found: impl Into<String>) -> Self {
        Self { status: CheckStatus::Skipped, ..Self::ok(name, found) }
    }

    /// The same with what else there is to know.
    #[must_use]
    pub fn noting(self, notes: Vec<String>) -> Self {
        Self { notes, ..self }
    }

    /// The same where a run can do without it: a problem becomes `status`.
    #[must_use]
    pub fn spared(self, status: CheckStatus) -> Self {
        let is_problem = self.status == CheckStatus::Problem;
        Self { status: if is_problem { status } else { self.status }, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_problem_is_spared() {
        let spared = |check: Check| check.spared(CheckStatus::Skipped).status;
        assert_eq!(spared(Check::problem("x", "", "")), CheckStatus::Skipped);
        assert_eq!(spared(Check::warning("x", "", "")), CheckStatus::Warning);
        assert_eq!(spared(Check::ok("x", "")), CheckStatus::Ok);
    }
}
