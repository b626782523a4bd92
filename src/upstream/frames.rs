//! Server-sent events out of bytes that come in any pieces.

/// Longest event that is looked at, in bytes. A chunk of a completion has some hundreds; what is
/// longer passes unread.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// The data of events, one after the other.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The line that has begun.
    line: Vec<u8>,
    /// The data of the event that has begun.
    data: Vec<u8>,
    has_data: bool,
    is_too_long: bool,
    /// Whether the last byte was a carriage return, which a line feed may follow.
    after_return: bool,
}

impl Frames {
    /// Takes the next piece and gives the data of each event that it ends.
    pub(super) fn feed(&mut self, piece: &[u8], mut event: impl FnMut(&[u8])) {
        let mut rest = piece;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_return) && rest[0] == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', rest) else {
                self.keep(rest);
                return;
            };
            self.keep(&rest[..end]);
            self.after_return = rest[end] == b'\r';
            rest = &rest[end + 1..];
            self.end_line(&mut event);
        }
    }

    fn keep(&mut self, part: &[u8]) {
        if self.line.len() + self.data.len() + part.len() > MAX_EVENT_BYTES {
            self.is_too_long = true;
            self.line.clear();
            // The line is not empty, whatever is left of it.
            self.line.push(b':');
        } else {
            self.line.extend_from_slice(part);
        }
    }

    fn end_line(&mut self, event: &mut impl FnMut(&[u8])) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            if self.has_data && !self.is_too_long {
                event(&self.data);
            }
            self.data.clear();
            (self.has_data, self.is_too_long) = (false, false);
        } else if let Some(data) = line.strip_prefix(b"data:") {
            let data = data.strip_prefix(b" ").unwrap_or(data);
            if self.has_data {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data);
            self.has_data = true;
        }
        // Its memory is used again.
        self.line = line;
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<String> {
        let (mut frames, mut found) = (Frames::default(), Vec::new());
        for piece in pieces {
            frames.feed(piece, |data| found.push(String::from_utf8_lossy(data).into_owned()));
        }
        found
    }

    #[test]
    fn only_data_counts_and_any_line_end_ends_a_line() {
        let text =
            ": ping\n\ndata: a\n\nevent: x\r\ndata:b\r\ndata: c\r\n\r\nid: 1\rdata: d\r\rdata: cut";
        assert_eq!(events([text.as_bytes()]), ["a", "b\nc", "d"]);
    }

    #[test]
    fn an_event_that_is_too_long_is_left_out_and_the_next_one_is_read() {
        let long = format!("data: {}\n\ndata: b\n\n", "x".repeat(MAX_EVENT_BYTES));
        assert_eq!(events([long.as_bytes()]), ["b"]);
        assert_eq!(events(long.as_bytes().chunks(1000)), ["b"]);
    }

    proptest::proptest! {
        #[test]
        fn events_do_not_depend_on_the_pieces(
            parts in proptest::collection::vec(
                proptest::sample::select(vec!["data: ", "data:", "é", "\n", "\r\n", "\r", ":", "\n\n"]), 0..40),
            cut in 1_usize..7,
        ) {
            let text = parts.concat();
            let whole = events([text.as_bytes()]);
            proptest::prop_assert_eq!(events(text.as_bytes().chunks(cut)), whole);
        }
    }
}
