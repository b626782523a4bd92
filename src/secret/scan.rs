//! Finds secrets in a piece of text, and says from where on more of the text could change that.

use std::collections::BTreeSet;

use super::MIN_MASKED_BYTES;
use super::escape::{escape_end, escape_start};
use super::redactor::KNOWN_SECRET;
use super::shapes::{SHAPES, Verdict};
use super::spellings::spellings;
use super::tail::Tail;

/// Bytes before a place that are looked at to tell whether a word begins there.
pub(super) const LOOK_BACK: usize = 16;

/// The secrets and shapes of one redactor, ready to be searched for.
///
/// Every place of a text is looked at by its next three bytes alone: whether something that is looked
/// for could begin with them. The few places that are left are compared. That is faster than an
/// automaton of all of it, finds what overlaps, and costs little to prepare.
pub(super) struct Scanner {
    /// Everything that is searched for, sorted.
    patterns: Vec<Pattern>,
    /// The first three bytes of all of it, as a set of bits.
    openers: Vec<u64>,
    longest: usize,
}

/// One thing that is searched for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pattern {
    bytes: Vec<u8>,
    /// The shape that begins so, by its place among them; else it is a secret.
    shape: Option<usize>,
}

/// How many bytes of a pattern stand in the set of openers. None is shorter.
const N_OPENER: usize = 3;

/// A secret in a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// Where its beginning was found. A name before a value stays, and an escape goes with it.
    pub(super) found_at: usize,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) kind: &'static str,
    /// What may still belong to it where the text goes on.
    pub(super) open: Option<Tail>,
}

/// What was found in a piece of text.
pub(super) struct Scan {
    /// By where they start; they may overlap.
    pub(super) spans: Vec<Span>,
    /// From here on, more of the text could change what is found.
    pub(super) undecided: usize,
}

impl Scanner {
    /// Prepares to look for `values`.
    pub(super) fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let long = values.into_iter().filter(|value| value.len() >= MIN_MASKED_BYTES);
        let known: BTreeSet<Vec<u8>> = long.flat_map(spellings).collect();
        let known = known.into_iter().map(|bytes| Pattern { bytes, shape: None });
        let begins = SHAPES.iter().enumerate().flat_map(|(at, shape)| {
            let prefixes = shape.prefixes.iter().map(|prefix| prefix.as_bytes().to_vec());
            prefixes.map(move |bytes| Pattern { bytes, shape: Some(at) })
        });
        let mut patterns: Vec<Pattern> = known.chain(begins).collect();
        patterns.sort();
        let mut openers = vec![0_u64; (1 << 16) / 64];
        for pattern in &patterns {
            let bit = opener(&pattern.bytes);
            openers[bit >> 6] |= 1 << (bit & 63);
        }
        let longest = patterns.iter().map(|pattern| pattern.bytes.len()).max().unwrap_or(0);
        Self { patterns, openers, longest }
    }

    /// Looks through `text` from `from` on; what stands before is only looked back at. `is_all` is
    /// whether the text ends here.
    pub(super) fn scan(&self, text: &[u8], from: usize, is_all: bool) -> Scan {
        let mut scan = Scan { spans: Vec::new(), undecided: text.len() };
        for (at, bytes) in text[from..].windows(N_OPENER).enumerate() {
            if self.may_open(bytes) {
                self.look(&mut scan, text, (from, from + at), is_all);
            }
        }
        if !is_all {
            scan.undecided = scan.undecided.min(self.growing_from(text, from));
            scan.undecided = escape_start(text, from, scan.undecided);
        }
        scan.spans.sort_by_key(|span| (span.start, span.end));
        scan
    }

    fn may_open(&self, bytes: &[u8]) -> bool {
        let bit = opener(bytes);
        self.openers[bit >> 6] & 1 << (bit & 63) != 0
    }

    /// Takes everything that begins at a place.
    fn look(&self, scan: &mut Scan, text: &[u8], (from, at): (usize, usize), is_all: bool) {
        let rest = &text[at..];
        let opener = &rest[..N_OPENER];
        let first = self.patterns.partition_point(|pattern| pattern.bytes.as_slice() < opener);
        let begin_so = self.patterns[first..].iter();
        for pattern in begin_so.take_while(|pattern| pattern.bytes.starts_with(opener)) {
            if !rest.starts_with(&pattern.bytes) {
                continue;
            }
            let end = at + pattern.bytes.len();
            let verdict = match pattern.shape {
                None => {
                    let (start, kind) = (at, KNOWN_SECRET);
                    Verdict::Secret(Span { found_at: at, start, end, kind, open: None })
                }
                Some(shape) => SHAPES[shape].judge(text, at..end, is_all),
            };
            scan.take(text, from, (at, verdict), is_all);
        }
    }

    /// Where the longest end of `text` begins that could still grow into one of the patterns.
    fn growing_from(&self, text: &[u8], from: usize) -> usize {
        let first = text.len().saturating_sub(self.longest.saturating_sub(1)).max(from);
        (first..text.len())
            .find(|&at| {
                let end = &text[at..];
                (end.len() < N_OPENER || self.may_open(&end[..N_OPENER])) && self.begins_one(end)
            })
            .unwrap_or(text.len())
    }

    fn begins_one(&self, end: &[u8]) -> bool {
        let next = self.patterns.partition_point(|pattern| pattern.bytes.as_slice() <= end);
        self.patterns.get(next).is_some_and(|pattern| pattern.bytes.starts_with(end))
    }
}

/// The place of a pattern's first bytes in the set of openers.
fn opener(bytes: &[u8]) -> usize {
    let number = u32::from(bytes[0]) | u32::from(bytes[1]) << 8 | u32::from(bytes[2]) << 16;
    // Fibonacci's multiplier spreads neighbours.
    (number.wrapping_mul(0x9E37_79B1) >> 16) as usize
}

impl Scan {
    /// How much of the text is settled, at most up to `limit`: whatever was found belongs to the one
    /// side or to the other, with all by which it was found.
    pub(super) fn settled_to(&self, limit: usize) -> usize {
        let mut limit = limit.min(self.undecided);
        loop {
            let across = |span: &&Span| span.found_at < limit && span.start >= limit;
            match self.spans.iter().find(across) {
                Some(span) => limit = span.found_at,
                None => return limit,
            }
        }
    }

    fn take(
        &mut self,
        text: &[u8],
        from: usize,
        (found_at, verdict): (usize, Verdict),
        is_all: bool,
    ) {
        match verdict {
            Verdict::None => {}
            Verdict::Undecided => self.undecided = self.undecided.min(found_at),
            Verdict::Secret(span) => {
                let start = escape_start(text, from, span.start);
                match escape_end(text, from, span.end, is_all) {
                    Some(end) => {
                        if span.open.is_some() {
                            // What its end may still need is kept.
                            self.undecided = self.undecided.min(end);
                        }
                        self.spans.push(Span { start, end, ..span });
                    }
                    None => self.undecided = self.undecided.min(start),
                }
            }
        }
    }
}
