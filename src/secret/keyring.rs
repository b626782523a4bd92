//! Secret values by name.

use std::collections::BTreeMap;

use super::Secret;

/// The values that a run may draw on, by environment variable name. It never shows a value, and a
/// run gets only those that are asked for by name.
#[derive(Debug, Clone, Default)]
pub struct Keyring(BTreeMap<String, Secret>);

impl Keyring {
    /// The value of a name, where there is one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.0.get(name)
    }

    /// The values whose names say that they are secret. (The others are words like `production`,
    /// which stand everywhere.)
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.0.iter().filter(|(name, _)| names_a_secret(name)).map(|(_, value)| value)
    }

    /// The same values with others added; those of a name that is there take its place.
    #[must_use]
    pub fn with(mut self, values: impl IntoIterator<Item = (String, Secret)>) -> Self {
        self.0.extend(values);
        self
    }
}

/// Whether a variable of that name holds a secret, as far as names tell.
#[must_use]
pub fn names_a_secret(name: &str) -> bool {
    const WORDS: [&str; 6] = ["KEY", "TOKEN", "SECRET", "PASS", "CREDENTIAL", "AUTH"];
    let name = name.to_ascii_uppercase();
    WORDS.iter().any(|word| name.contains(word))
}

impl FromIterator<(String, Secret)> for Keyring {
    fn from_iter<I: IntoIterator<Item = (String, Secret)>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}
