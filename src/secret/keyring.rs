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

    /// The same values with others added; those of a name that is there take its place.
    #[must_use]
    pub fn with(mut self, values: impl IntoIterator<Item = (String, Secret)>) -> Self {
        self.0.extend(values);
        self
    }
}

impl FromIterator<(String, Secret)> for Keyring {
    fn from_iter<I: IntoIterator<Item = (String, Secret)>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}
