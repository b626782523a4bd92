//! Finds secrets in a piece of text, and says from where on more of the text could change that.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input};

use super::MIN_MASKED_BYTES;
use super::escape::{escape_end, escape_start};
use super::redactor::KNOWN_SECRET;
use super::shapes::{SHAPES, Shape, Verdict};
use super::spellings::spellings;
use super::tail::Tail;

/// Up to so many bytes of patterns become a table of every step, which is fast and large (about 400
/// bytes for each of theirs); more become a smaller and slower one.
const MAX_DENSE_BYTES: usize = 16 << 10;

/// Bytes before a place that are looked at to tell whether a word begins there.
pub(super) const LOOK_BACK: usize = 16;

/// The secrets and shapes of one redactor, ready to be searched for.
pub(super) struct Scanner {
    finder: AhoCorasick,
    /// Everything that is searched for, sorted; and its first two bytes as a set of bits.
    patterns: Vec<Vec<u8>>,
    openers: Vec<u64>,
    longest: usize,
    n_known: usize,
    /// The shapes of the patterns behind the known ones.
    shapes: Vec<&'static Shape>,
}

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
        let n_known = known.len();
        let mut patterns: Vec<Vec<u8>> = known.into_iter().collect();
        let mut shapes = Vec::new();
        for shape in SHAPES {
            for prefix in shape.prefixes {
                patterns.push(prefix.as_bytes().to_vec());
                shapes.push(shape);
            }
        }
        let n_bytes: usize = patterns.iter().map(Vec::len).sum();
        let kind = (n_bytes <= MAX_DENSE_BYTES).then_some(AhoCorasickKind::DFA);
        let finder = AhoCorasick::builder()
            .kind(kind)
            .build(&patterns)
            .expect("a few short patterns fit the automaton");
        let mut openers = vec![0_u64; 1 << 10];
        for pattern in &patterns {
            let opener = usize::from(pattern[0]) << 8 | usize::from(pattern[1]);
            openers[opener >> 6] |= 1 << (opener & 63);
        }
        let longest = patterns.iter().map(Vec::len).max().unwrap_or(0);
        patterns.sort();
        Self { finder, patterns, openers, longest, n_known, shapes }
    }

    /// Looks through `text` from `from` on; what stands before is only looked back at. `is_all` is
    /// whether the text ends here.
    pub(super) fn scan(&self, text: &[u8], from: usize, is_all: bool) -> Scan {
        let mut scan = Scan { spans: Vec::new(), undecided: text.len() };
        for found in self.finder.find_overlapping_iter(Input::new(text).span(from..text.len())) {
            let pattern = found.pattern().as_usize();
            let span = match pattern.checked_sub(self.n_known) {
                None => {
                    let (start, end, kind) = (found.start(), found.end(), KNOWN_SECRET);
                    Verdict::Secret(Span { found_at: start, start, end, kind, open: None })
                }
                Some(shape) => self.shapes[shape].judge(text, found.range(), is_all),
            };
            scan.take(text, from, (found.start(), span), is_all);
        }
        if !is_all {
            scan.undecided = scan.undecided.min(self.growing_from(text, from));
            scan.undecided = escape_start(text, from, scan.undecided);
        }
        scan.spans.sort_by_key(|span| (span.start, span.end));
        scan
    }

    /// Where the longest end of `text` begins that could still grow into one of the patterns.
    fn growing_from(&self, text: &[u8], from: usize) -> usize {
        let first = text.len().saturating_sub(self.longest.saturating_sub(1)).max(from);
        (first..text.len())
            .find(|&at| {
                let end = &text[at..];
                let may_open = end.get(1).is_none_or(|second| {
                    let opener = usize::from(end[0]) << 8 | usize::from(*second);
                    self.openers[opener >> 6] & 1 << (opener & 63) != 0
                });
                may_open && self.begins_one(end)
            })
            .unwrap_or(text.len())
    }

    fn begins_one(&self, end: &[u8]) -> bool {
        let next = self.patterns.partition_point(|pattern| pattern.as_slice() <= end);
        self.patterns.get(next).is_some_and(|pattern| pattern.starts_with(end))
    }
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
