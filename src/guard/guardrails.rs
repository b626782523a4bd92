//! What a server or a collection wants of its prompts.

use serde::{Deserialize, Serialize};

/// The variable that says what is done with credentials in prompts.
pub const GUARD_SECRETS: &str = "RUNBOOKD_GUARD_SECRETS";

/// The variable that says what is done with personal data in prompts.
pub const GUARD_PII: &str = "RUNBOOKD_GUARD_PII";

/// What is done with what was found. The later, the stricter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardAction {
    /// Nothing is looked for.
    #[default]
    Off,
    /// It is masked, and the prompt goes on.
    Mask,
    /// The prompt does not go on.
    Block,
}

impl GuardAction {
    /// The action of that name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Off, Self::Mask, Self::Block].into_iter().find(|action| action.as_str() == word)
    }

    /// The word in settings and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Mask => "mask",
            Self::Block => "block",
        }
    }
}

/// A setting that is no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} is neither `off` nor `mask` nor `block`")]
pub struct NotAnAction {
    /// The setting's name.
    pub variable: &'static str,
}

/// What is looked for in prompts, and what is done then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Guardrails {
    /// Credentials: known values and those with a shape of their own.
    pub secrets: GuardAction,
    /// Personal data.
    pub pii: GuardAction,
}

impl Guardrails {
    /// Reads the two settings; a missing one is off.
    ///
    /// # Errors
    /// Every setting that is no action.
    pub fn read<'v>(
        setting: impl Fn(&'static str) -> Option<&'v str>,
    ) -> Result<Self, Vec<NotAnAction>> {
        let mut faults = Vec::new();
        let mut read = |variable: &'static str| match setting(variable).map(str::trim) {
            None | Some("") => GuardAction::Off,
            Some(word) => GuardAction::from_word(word).unwrap_or_else(|| {
                faults.push(NotAnAction { variable });
                // Whoever wrote something wanted something.
                GuardAction::Block
            }),
        };
        let rails = Self { secrets: read(GUARD_SECRETS), pii: read(GUARD_PII) };
        if faults.is_empty() { Ok(rails) } else { Err(faults) }
    }

    /// The stricter of both, for each.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { secrets: self.secrets.max(other.secrets), pii: self.pii.max(other.pii) }
    }

    /// Whether nothing is looked for.
    #[must_use]
    pub fn is_off(self) -> bool {
        self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stricter_setting_wins() {
        let rails = |secrets, pii| Guardrails { secrets, pii };
        let floor = rails(GuardAction::Mask, GuardAction::Block);
        let wanted = rails(GuardAction::Block, GuardAction::Off);
        assert_eq!(wanted.and(floor), rails(GuardAction::Block, GuardAction::Block));
        assert_eq!(Guardrails::default().and(floor), floor);
    }

    #[test]
    fn a_setting_is_a_word_or_a_fault() {
        let read = |secrets: &'static str| {
            Guardrails::read(|name| (name == GUARD_SECRETS).then_some(secrets))
                .map(|rails| rails.secrets.as_str())
        };
        assert_eq!(
            ["", "off", " mask ", "block"].map(|word| read(word).unwrap()),
            ["off", "off", "mask", "block"]
        );
        assert_eq!(read("yes"), Err(vec![NotAnAction { variable: GUARD_SECRETS }]));
    }
}
