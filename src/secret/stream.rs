//! A redactor over a stream: what is masked does not depend on how the stream is cut.

use super::redactor::{MASK, Redactor};
use super::scan::{LOOK_BACK, Scanner, Span};
use super::tail::Tail;

/// A [`Redactor`] over a stream of pieces: a secret that is cut by their borders is found too.
///
/// Bytes that may be the beginning of a secret are held back until the next piece decides; without
/// such bytes everything passes at once. What is held back is at most as long as the longest
/// spelling of a known secret, or about a thousand bytes.
#[derive(Debug)]
pub struct RedactedStream {
    redactor: Redactor,
    held: Held,
}

/// The end of what came.
#[derive(Debug, Default)]
struct Held {
    /// A few bytes that were passed on, to look back at, and those that are held back.
    bytes: Vec<u8>,
    /// How many of them were passed on.
    n_done: usize,
    /// What stands before this place belongs to a mask that is written.
    masked_to: usize,
    /// Credentials that may go on.
    open: Vec<(usize, Tail)>,
    n_masked: usize,
}

impl RedactedStream {
    /// Starts a stream.
    #[must_use]
    pub fn new(redactor: Redactor) -> Self {
        Self { redactor, held: Held::default() }
    }

    /// Takes the next piece and appends to `out` what is certain by now.
    pub fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        match self.redactor.scanner() {
            None => out.extend_from_slice(piece),
            Some(scanner) => {
                self.held.bytes.extend_from_slice(piece);
                self.held.settle(scanner, false, out);
            }
        }
    }

    /// Appends what was held back: the stream has ended. Returns how often a secret was masked.
    pub fn finish(mut self, out: &mut Vec<u8>) -> usize {
        if let Some(scanner) = self.redactor.scanner() {
            self.held.settle(scanner, true, out);
        }
        self.held.n_masked
    }
}

impl Held {
    /// Passes on what is certain.
    fn settle(&mut self, scanner: &Scanner, is_all: bool, out: &mut Vec<u8>) {
        let goes_on = self.follow(is_all);
        let scan = scanner.scan(&self.bytes, self.n_done, is_all);
        let limit = goes_on.iter().map(|(at, _)| *at).min().unwrap_or(usize::MAX);
        let limit = scan.settled_to(limit);
        self.open = goes_on;
        let settled = scan.spans.into_iter().filter(|span| span.start < limit);
        let mut done = self.n_done;
        for Span { start, end, open, .. } in settled {
            if start >= self.masked_to {
                done = done.max(self.masked_to);
                out.extend_from_slice(&self.bytes[done..start]);
                out.extend_from_slice(MASK.as_bytes());
                self.n_masked += 1;
                done = start;
            }
            self.masked_to = self.masked_to.max(end);
            self.open.extend(open.map(|tail| (end, tail)));
        }
        done = done.max(self.masked_to);
        if done < limit {
            out.extend_from_slice(&self.bytes[done..limit]);
        }
        self.let_go(limit);
    }

    /// Follows the credentials that go on, and gives those that still do.
    fn follow(&mut self, is_all: bool) -> Vec<(usize, Tail)> {
        let mut goes_on = Vec::new();
        for (at, tail) in std::mem::take(&mut self.open) {
            let followed = tail.follow(&self.bytes, at, is_all);
            self.masked_to = self.masked_to.max(followed.end);
            goes_on.extend(followed.open.map(|tail| (followed.end, tail)));
        }
        goes_on
    }

    /// Forgets what was passed on, but for what is looked back at.
    fn let_go(&mut self, done: usize) {
        let gone = done.saturating_sub(LOOK_BACK);
        self.bytes.drain(..gone);
        self.n_done = done - gone;
        self.masked_to = self.masked_to.saturating_sub(gone);
        for (at, _) in &mut self.open {
            *at -= gone;
        }
    }
}
