//! Masks secret values in everything that is written, shown or sent on.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock, OnceLock};

use super::Secret;
use super::scan::{Scanner, Span};

/// Shortest secret that is masked, in bytes. A shorter one would mask ordinary words and digits.
pub const MIN_MASKED_BYTES: usize = 6;

/// What stands in a text in place of a secret.
pub const MASK: &str = "[redacted]";

/// What a known value is called among [`FoundSecret`]s.
pub const KNOWN_SECRET: &str = "known_secret";

/// Knows nothing but shapes; most of what is masked needs no more.
static SHAPES: LazyLock<Scanner> = LazyLock::new(|| Scanner::new([]));

/// Masks known secret values wherever they stand in a text (raw, in JSON, in JSON within JSON, in
/// URLs, in hexadecimal, in base64 at each of the three alignments that a value can have inside a
/// longer text) and whatever has the shape of a credential that is known by its looks.
///
/// [`Redactor::redact`] takes a whole text; [`super::RedactedStream`] takes one in pieces.
#[derive(Clone)]
pub struct Redactor(Arc<Inner>);

struct Inner {
    masks: Masks,
    /// Made when it is first needed: many a redactor never is.
    scanner: OnceLock<Scanner>,
}

enum Masks {
    Nothing,
    Secrets(Vec<Secret>),
}

/// Where a secret stands in a text, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSecret {
    /// What it is: [`KNOWN_SECRET`], or the name of a shape.
    pub kind: &'static str,
    /// Its bytes.
    pub range: Range<usize>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.masks {
            Masks::Nothing => f.write_str("Redactor(nothing)"),
            Masks::Secrets(known) => write!(f, "Redactor({} hidden values)", known.len()),
        }
    }
}

impl Redactor {
    /// Masks `secrets` and the shapes of credentials. Values shorter than [`MIN_MASKED_BYTES`] are
    /// left alone.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        Self::of(Masks::Secrets(secrets.into_iter().cloned().collect()))
    }

    /// Masks the shapes of credentials alone: for what no secret of its own is known of.
    #[must_use]
    pub fn shapes() -> Self {
        Self::of(Masks::Secrets(Vec::new()))
    }

    /// Masks nothing: for what was masked when it was written.
    #[must_use]
    pub fn nothing() -> Self {
        Self::of(Masks::Nothing)
    }

    /// The same with more secrets.
    #[must_use]
    pub fn knowing<'a>(&self, more: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut known = match &self.0.masks {
            Masks::Nothing => Vec::new(),
            Masks::Secrets(known) => known.clone(),
        };
        known.extend(more.into_iter().cloned());
        Self::of(Masks::Secrets(known))
    }

    fn of(masks: Masks) -> Self {
        Self(Arc::new(Inner { masks, scanner: OnceLock::new() }))
    }

    /// What looks for secrets; `None` where nothing is masked.
    pub(super) fn scanner(&self) -> Option<&Scanner> {
        match &self.0.masks {
            Masks::Nothing => None,
            Masks::Secrets(known) if known.is_empty() => Some(&SHAPES),
            Masks::Secrets(known) => Some(
                self.0
                    .scanner
                    .get_or_init(|| Scanner::new(known.iter().map(|s| s.expose().trim()))),
            ),
        }
    }

    /// The text with every secret masked. Borrows when there was nothing to mask.
    #[must_use]
    pub fn redact<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        masked(text, self.find(text).into_iter().map(|found| found.range))
    }

    /// [`Redactor::redact`] for JSON that must stay readable: only the inside of its strings is
    /// masked, so that a secret that is a number changes no other number.
    #[must_use]
    pub fn redact_json<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        let mut strings = Strings { text, at: 0, is_inside: false };
        let found = self.find(text).into_iter().map(|found| found.range);
        masked(text, found.filter(|range| strings.has(range)))
    }

    /// [`Redactor::redact`] for text that is known to be UTF-8.
    #[must_use]
    pub fn redact_str(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.redact(text.as_bytes())).into_owned()
    }

    /// Where secrets stand in a text, in order. Those that overlap are one.
    #[must_use]
    pub fn find(&self, text: &[u8]) -> Vec<FoundSecret> {
        let Some(scanner) = self.scanner() else { return Vec::new() };
        let mut found: Vec<FoundSecret> = Vec::new();
        for Span { start, end, kind, .. } in scanner.scan(text, 0, true).spans {
            match found.last_mut() {
                Some(last) if start < last.range.end => last.range.end = last.range.end.max(end),
                Some(_) | None => found.push(FoundSecret { kind, range: start..end }),
            }
        }
        found
    }
}

fn masked(text: &[u8], found: impl Iterator<Item = Range<usize>>) -> Cow<'_, [u8]> {
    let mut masked = Vec::new();
    let mut done = 0;
    for range in found {
        masked.extend_from_slice(&text[done..range.start]);
        masked.extend_from_slice(MASK.as_bytes());
        done = range.end;
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    masked.extend_from_slice(&text[done..]);
    Cow::Owned(masked)
}

/// Follows where the strings of a JSON text are.
struct Strings<'t> {
    text: &'t [u8],
    at: usize,
    is_inside: bool,
}

impl Strings<'_> {
    /// Whether all of a range, which begins behind those before it, is in one string.
    fn has(&mut self, range: &Range<usize>) -> bool {
        self.go_to(range.start);
        let begins_inside = self.is_inside;
        let n_quotes = self.go_to(range.end);
        begins_inside && n_quotes == 0
    }

    /// Goes on, and counts the quotes on the way that begin or end a string.
    fn go_to(&mut self, place: usize) -> usize {
        let mut n_quotes = 0;
        while self.at < place {
            match self.text[self.at] {
                b'\\' if self.is_inside => self.at += 1,
                b'"' => {
                    self.is_inside = !self.is_inside;
                    n_quotes += 1;
                }
                _ => {}
            }
            self.at += 1;
        }
        n_quotes
    }
}
