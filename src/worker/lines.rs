//! Bytes into lines. A line is bounded, so that a runaway process cannot fill memory.

/// Longest line kept whole, in bytes. Tool results of tens of megabytes are real (an MCP server's
/// answer is unbounded and stands in its line twice); beyond this the line is a fault.
pub const MAX_LINE_BYTES: usize = 64 << 20;

/// How a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By a newline, which is not part of the line.
    Newline,
    /// The stream ended inside it.
    EndOfStream,
    /// It is longer than the limit: these are its first bytes, the rest is skipped.
    TooLong,
}

/// Cuts a stream of pieces into lines. The lines do not depend on where the pieces were cut.
#[derive(Debug)]
pub struct Lines {
    limit: usize,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    /// Inside a line that was reported as too long: bytes are dropped up to its newline.
    skipping: bool,
}

impl Lines {
    /// Lines of at most `limit` bytes, [`MAX_LINE_BYTES`] in the product.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, partial: Vec::new(), skipping: false }
    }

    /// Takes the next piece and reports each line that it completes.
    pub fn feed(&mut self, piece: &[u8], mut line: impl FnMut(&[u8], Ending)) {
        let mut rest = piece;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            self.complete(&rest[..end], &mut line);
            rest = &rest[end + 1..];
        }
        if self.skipping {
            return;
        }
        if self.partial.len() + rest.len() > self.limit {
            self.report_too_long(rest, &mut line);
            self.skipping = true;
        } else {
            self.partial.extend_from_slice(rest);
        }
    }

    /// Reports the line that had no newline, if there is one.
    pub fn finish(self, mut line: impl FnMut(&[u8], Ending)) {
        if !self.partial.is_empty() {
            line(&self.partial, Ending::EndOfStream);
        }
    }

    fn complete(&mut self, tail: &[u8], line: &mut impl FnMut(&[u8], Ending)) {
        if std::mem::take(&mut self.skipping) {
            return;
        }
        if self.partial.len() + tail.len() > self.limit {
            self.report_too_long(tail, line);
        } else if self.partial.is_empty() {
            line(tail, Ending::Newline);
        } else {
            self.partial.extend_from_slice(tail);
            line(&self.partial, Ending::Newline);
            self.partial.clear();
        }
    }

    fn report_too_long(&mut self, tail: &[u8], line: &mut impl FnMut(&[u8], Ending)) {
        let room = self.limit - self.partial.len();
        self.partial.extend_from_slice(&tail[..room.min(tail.len())]);
        line(&self.partial, Ending::TooLong);
        // The memory of a giant line is given back, not kept for the next one.
        self.partial = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &[u8], limit: usize, pieces: &[usize]) -> Vec<(Vec<u8>, Ending)> {
        let mut lines = Lines::new(limit);
        let mut found = Vec::new();
        let mut rest = text;
        for &piece in pieces.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at(piece.min(rest.len()));
            lines.feed(piece, |line, ending| found.push((line.to_vec(), ending)));
            rest = after;
        }
        lines.finish(|line, ending| found.push((line.to_vec(), ending)));
        found
    }

    #[test]
    fn lines_are_cut_at_newlines_and_the_last_may_have_none() {
        let line = |text: &str, ending| (text.as_bytes().to_vec(), ending);
        assert_eq!(
            cut(b"a\n\nbc\nd", 10, &[2]),
            [
                line("a", Ending::Newline),
                line("", Ending::Newline),
                line("bc", Ending::Newline),
                line("d", Ending::EndOfStream),
            ]
        );
    }

    #[test]
    fn a_line_at_the_limit_is_whole_and_one_beyond_is_reported_once() {
        let line = |text: &str, ending| (text.as_bytes().to_vec(), ending);
        assert_eq!(
            cut(b"1234\n12345\n123456789\nx\n", 4, &[3]),
            [
                line("1234", Ending::Newline),
                line("1234", Ending::TooLong),
                line("1234", Ending::TooLong),
                line("x", Ending::Newline),
            ]
        );
    }

    proptest::proptest! {
        #[test]
        fn lines_do_not_depend_on_the_pieces(
            text in proptest::collection::vec(proptest::sample::select(b"ab\n\xc3\xa9".to_vec()), 0..200),
            pieces in proptest::collection::vec(1_usize..9, 1..20),
            limit in 1_usize..12,
        ) {
            proptest::prop_assert_eq!(cut(&text, limit, &pieces), cut(&text, limit, &[text.len().max(1)]));
        }
    }
}
