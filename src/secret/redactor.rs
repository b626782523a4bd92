//! Masks known secret values in everything that is written, shown or sent on.

use std::borrow::Cow;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::Secret;

/// Shortest secret that is masked, in bytes. A shorter one would mask ordinary words and digits.
pub const MIN_MASKED_BYTES: usize = 6;

/// What stands in a text in place of a secret.
pub const MASK: &str = "[redacted]";

/// Masks known secret values wherever they stand in a text: raw, JSON-escaped, URL-encoded and
/// base64-encoded (each of the three alignments that a value can have inside a longer text).
///
/// [`Redactor::redact`] takes a whole text; [`RedactedStream`] takes one in pieces.
#[derive(Debug, Clone)]
pub struct Redactor {
    /// `None` where no secret is known, so that the common case costs nothing.
    known: Option<Known>,
}

/// The secrets of one run, ready to be searched for.
#[derive(Clone)]
struct Known {
    patterns: Vec<Vec<u8>>,
    finder: AhoCorasick,
    longest: usize,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} hidden patterns", self.patterns.len())
    }
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
        let known = (!patterns.is_empty()).then(|| {
            let finder = AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .build(&patterns)
                .expect("a few short patterns fit the automaton");
            let longest = patterns.iter().map(Vec::len).max().unwrap_or(0);
            Known { patterns, finder, longest }
        });
        Self { known }
    }

    /// The text with every known secret masked. Borrows when there was nothing to mask.
    #[must_use]
    pub fn redact<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        match &self.known {
            Some(known) if known.finder.is_match(text) => {
                let mut masked = Vec::with_capacity(text.len());
                known.finder.replace_all_with_bytes(text, &mut masked, |_, _, out| {
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

/// A [`Redactor`] over a stream of pieces: a secret that is cut by their borders is found too.
///
/// Bytes that may be the beginning of a secret are held back until the next piece decides; without
/// such bytes everything passes at once.
#[derive(Debug)]
pub struct RedactedStream {
    redactor: Redactor,
    held: Vec<u8>,
    n_masked: usize,
}

impl RedactedStream {
    /// Starts a stream.
    #[must_use]
    pub fn new(redactor: Redactor) -> Self {
        Self { redactor, held: Vec::new(), n_masked: 0 }
    }

    /// Takes the next piece and appends to `out` what is certain by now.
    pub fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let Some(known) = &self.redactor.known else {
            out.extend_from_slice(piece);
            return;
        };
        self.held.extend_from_slice(piece);
        let undecided = known.undecided_from(&self.held);
        let mut done = 0;
        for found in known.finder.find_iter(&self.held) {
            if found.start() >= undecided {
                break;
            }
            out.extend_from_slice(&self.held[done..found.start()]);
            out.extend_from_slice(MASK.as_bytes());
            self.n_masked += 1;
            done = found.end();
        }
        if done < undecided {
            out.extend_from_slice(&self.held[done..undecided]);
            done = undecided;
        }
        self.held.drain(..done);
    }

    /// Appends what was held back: the stream has ended. Returns how often a secret was masked.
    pub fn finish(self, out: &mut Vec<u8>) -> usize {
        let rest = self.redactor.redact(&self.held);
        out.extend_from_slice(&rest);
        self.n_masked + usize::from(matches!(rest, Cow::Owned(_)))
    }
}

impl Known {
    /// Where the longest end of `text` begins that could still grow into a secret.
    fn undecided_from(&self, text: &[u8]) -> usize {
        let first = text.len().saturating_sub(self.longest.saturating_sub(1));
        (first..text.len())
            .find(|&from| {
                let end = &text[from..];
                self.patterns.iter().any(|p| p.len() > end.len() && p.starts_with(end))
            })
            .unwrap_or(text.len())
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

    proptest::proptest! {
        #[test]
        fn pieces_do_not_change_what_is_masked(
            parts in proptest::collection::vec(
                proptest::sample::select(vec!["sk-", "sk-made-up-9", "made-up-9", "-9", "x", "9", "\n"]),
                0..40,
            ),
            cuts in proptest::collection::vec(1_usize..7, 1..40),
        ) {
            let secrets = ["sk-made-up-9", "made-up-99", "sk-made-up-9-sk-made"]
                .map(|value| Secret::new(value.to_owned()));
            let redactor = Redactor::new(&secrets);
            let text: String = parts.concat();
            let mut out = Vec::new();
            let mut stream = RedactedStream::new(redactor.clone());
            let mut rest = text.as_bytes();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                stream.feed(piece, &mut out);
                rest = after;
            }
            stream.finish(&mut out);
            let whole = redactor.redact_str(&text);
            proptest::prop_assert_eq!(String::from_utf8_lossy(&out).into_owned(), whole);
        }
    }
}
