//! A value that is never printed, and the redactor that keeps it out of everything we write.

mod keyring;
mod redactor;

use secrecy::{ExposeSecret as _, SecretString};

pub use keyring::Keyring;
pub use redactor::{MASK, MIN_MASKED_BYTES, RedactedStream, Redactor};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown_by_debug() {
        assert_eq!(format!("{:?}", Secret::new("sk-made-up".to_owned())), "Secret([hidden])");
    }
}
