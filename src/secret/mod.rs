//! A value that is never printed, and the redactor that keeps it out of everything we write.

mod escape;
mod keyring;
mod redactor;
mod scan;
mod shapes;
mod spellings;
mod stream;
mod tail;
#[cfg(test)]
mod tests;

use secrecy::{ExposeSecret as _, SecretString};

pub use keyring::{Keyring, names_a_secret};
pub use redactor::{FoundSecret, KNOWN_SECRET, MASK, MIN_MASKED_BYTES, Redactor};
pub use stream::RedactedStream;

/// A credential or another value that must not be seen. `Debug` shows only that it is there, there
/// is no `Display` and no `Serialize`, and the memory is wiped when it is dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a value.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(SecretString::from(value))
    }

    /// The value itself, for the one place that puts it on the wire or into an environment.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret([hidden])")
    }
}
