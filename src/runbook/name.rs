//! What can be the name of a template variable and of an environment variable.

/// Whether `text` is a name: ASCII letters, digits and `_`, not beginning with a digit.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_every_shell_takes_for_one() {
        for name in ["a", "_", "A_1", "_9", "API_KEY"] {
            assert!(is_name(name), "{name:?}");
        }
        for text in ["", "1a", "a-b", "a b", "a.b", "é", "a\n", "$a"] {
            assert!(!is_name(text), "{text:?}");
        }
    }
}
