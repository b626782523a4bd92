//! A value that is never printed, and the redactor that keeps it out of everything we write.

use std::borrow::Cow;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};

/// Shortest secret that is masked, in bytes. A shorter one would mask ordinary words and digits.
pub const MIN_MASKED_BYTES: usize = 6;

/// What stands in a text in place of a secret.
pub const MASK: &str = "[redacted]";

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

/// Masks known secret values wherever they stand in a text: raw, JSON-escaped, URL-encoded and
/// base64-encoded (each of the three alignments that a value can have inside a longer text).
///
/// It works on whole lines or files. A value that is cut by the caller's own chunk border is not
/// found, so callers pass complete lines.
#[derive(Debug, Clone)]
pub struct Redactor {
    /// `None` where no secret is known, so that the common case costs nothing.
    finder: Option<AhoCorasick>,
}

impl Redactor {
    /// Prepares to mask `secrets`. Values shorter than [`MIN_MASKED_BYTES`] are left alone.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut patterns: Vec<Vec<u8>> = secrets
            .into_iter()
            .map(|secret| secret.expose().trim())
            .filter(|value| value.len() >= MIN_MASKED_BYTES)
            .flat_map(spellings)
            .collect();
        patterns.sort();
        patterns.dedup();
        let finder = (!patterns.is_empty()).then(|| {
            AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .build(&patterns)
                .expect("a few short patterns fit the automaton")
        });
        Self { finder }
    }

    /// The text with every known secret masked. Borrows when there was nothing to mask.
    #[must_use]
    pub fn redact<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        match &self.finder {
            Some(finder) if finder.is_match(text) => {
                let mut masked = Vec::with_capacity(text.len());
                finder.replace_all_with_bytes(text, &mut masked, |_, _, out| {
                    out.extend_from_slice(MASK.as_bytes());
                    true
                });
                Cow::Owned(masked)
            }
            Some(_) | None => Cow::Borrowed(text),
        }
    }

    /// [`Redactor::redact`] for text that is known to be UTF-8.
    #[must_use]
    pub fn redact_str(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.redact(text.as_bytes())).into_owned()
    }
}

/// Every way in which `value` is looked for.
fn spellings(value: &str) -> Vec<Vec<u8>> {
    let json = serde_json::Value::from(value).to_string();
    let json = &json[1..json.len() - 1];
    let url: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
    let mut all = vec![
        value.as_bytes().to_vec(),
        json.as_bytes().to_vec(),
        url.as_bytes().to_vec(),
        url.replace('+', "%20").into_bytes(),
    ];
    for alignment in 0..3 {
        all.push(inside_base64(&STANDARD_NO_PAD, value, alignment));
        all.push(inside_base64(&URL_SAFE_NO_PAD, value, alignment));
    }
    all.retain(|spelling| spelling.len() >= MIN_MASKED_BYTES);
    all
}

/// The base64 characters that depend on `value` alone when `alignment` unknown bytes (modulo 3)
/// stand before it. Characters that mix in a neighbour's bits are left off at both ends.
fn inside_base64(engine: &impl Engine, value: &str, alignment: usize) -> Vec<u8> {
    let mut padded = vec![0_u8; alignment];
    padded.extend_from_slice(value.as_bytes());
    let first = (alignment * 8).div_ceil(6);
    let last = padded.len() * 8 / 6;
    engine.encode(&padded).as_bytes()[first..last].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-made-up/0123+456\"789";

    fn masked(text: &str) -> String {
        Redactor::new(&[Secret::new(KEY.to_owned())]).redact_str(text)
    }

    #[test]
    fn a_secret_is_never_shown_by_debug() {
        assert_eq!(format!("{:?}", Secret::new(KEY.to_owned())), "Secret([hidden])");
    }

    #[test]
    fn a_secret_is_masked_raw_and_in_json() {
        assert_eq!(masked(&format!("key={KEY};")), "key=[redacted];");
        assert_eq!(masked(&serde_json::json!({ "k": KEY }).to_string()), r#"{"k":"[redacted]"}"#);
    }

    #[test]
    fn a_secret_is_masked_in_a_url() {
        let encoded: String = url::form_urlencoded::byte_serialize(KEY.as_bytes()).collect();
        assert_eq!(masked(&format!("https://h/?k={encoded}&x=1")), "https://h/?k=[redacted]&x=1");
    }

    #[test]
    fn a_secret_is_masked_inside_base64_at_every_alignment() {
        for before in ["", "a", "ab", "abc", "user:"] {
            let encoded =
                base64::engine::general_purpose::STANDARD.encode(format!("{before}{KEY}"));
            let masked = masked(&encoded);
            assert!(masked.contains(MASK), "{before:?}: {masked}");
        }
    }

    #[test]
    fn short_values_and_other_text_stay() {
        let redactor = Redactor::new(&[Secret::new("1".to_owned()), Secret::new(String::new())]);
        assert!(matches!(redactor.redact(b"111 and 1"), Cow::Borrowed(_)));
        assert!(matches!(masked("nothing here").as_str(), "nothing here"));
    }
}
