//! How far a credential goes on once it is known that it is one. It may go on without end, so it is
//! followed and not collected.

/// Longest private key that is followed, in bytes. One of RSA with 16384 bits has 13 KiB.
const MAX_KEY_BYTES: usize = 32 << 10;

/// Longest last line of a private key, in bytes.
const MAX_LAST_LINE_BYTES: usize = 80;

/// Most backslashes before the letter of an escape: those of JSON four texts deep.
const MAX_BACKSLASHES: usize = 15;

/// Most blanks at the beginning of a line of a private key, which can stand in a YAML file.
const MAX_INDENT: usize = 32;

/// A set of bytes.
pub(super) type Set = fn(u8) -> bool;

/// What belongs to a credential.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tail {
    /// Every byte of a set.
    Bytes(Set),
    /// The lines of a private key up to its last one; so many bytes at most.
    Key { left: usize },
}

/// How far a tail went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Followed {
    /// Where it stands.
    pub(super) end: usize,
    /// What may follow where the text goes on.
    pub(super) open: Option<Tail>,
}

/// What stands at a place of a private key.
enum Piece {
    Part(usize),
    Last(usize),
    NoPart,
    Cut,
}

impl Tail {
    /// The lines of a private key.
    pub(super) const KEY: Self = Self::Key { left: MAX_KEY_BYTES };

    /// Follows it through `text` from `at` on.
    pub(super) fn follow(self, text: &[u8], at: usize, is_all: bool) -> Followed {
        match self {
            Self::Bytes(set) => {
                let end = at + text[at..].iter().take_while(|byte| set(**byte)).count();
                let open = (end == text.len() && !is_all).then_some(self);
                Followed { end, open }
            }
            Self::Key { left } => follow_key(text, at, is_all, left),
        }
    }
}

fn follow_key(text: &[u8], at: usize, is_all: bool, left: usize) -> Followed {
    let limit = at.saturating_add(left);
    let mut end = at;
    while end < limit {
        match piece(&text[end..]) {
            Piece::Part(n) => end += n,
            Piece::Last(n) => return Followed { end: end + n, open: None },
            Piece::NoPart => return Followed { end, open: None },
            Piece::Cut if is_all => return Followed { end, open: None },
            Piece::Cut => {
                return Followed { end, open: Some(Tail::Key { left: limit - end }) };
            }
        }
    }
    Followed { end, open: None }
}

/// One byte of a key's text, a line's end before more of it, or its last line.
fn piece(text: &[u8]) -> Piece {
    match text.first() {
        None => Piece::Cut,
        Some(b'-') => last_line(text),
        Some(byte) if is_base64(*byte) => Piece::Part(1),
        Some(_) => match line_end(text) {
            None => Piece::NoPart,
            Some(n) => match text.get(n) {
                None => Piece::Cut,
                Some(byte) if is_base64(*byte) || *byte == b'-' => Piece::Part(n),
                Some(_) => Piece::NoPart,
            },
        },
    }
}

/// The length of what ends a line, raw or in JSON of any depth, with blanks behind it; a part of it
/// where the text is cut.
pub(super) fn line_end(text: &[u8]) -> Option<usize> {
    let n_backslashes =
        text.iter().take(MAX_BACKSLASHES).take_while(|byte| **byte == b'\\').count();
    let end = match text.get(n_backslashes) {
        // Both characters of Windows.
        Some(b'r' | b'\r') => return windows_end(text, n_backslashes),
        // More would tell: it counts as one that goes on.
        None => return (n_backslashes > 0).then_some(n_backslashes),
        Some(b'n') if n_backslashes > 0 => n_backslashes + 1,
        Some(b'\n') if n_backslashes == 0 => 1,
        Some(_) => return None,
    };
    Some(end + indent(&text[end..]))
}

fn indent(text: &[u8]) -> usize {
    text.iter().take(MAX_INDENT).take_while(|byte| **byte == b' ').count()
}

/// The same that begins with a carriage return behind so many backslashes.
fn windows_end(text: &[u8], n_backslashes: usize) -> Option<usize> {
    let is_raw = text[n_backslashes] == b'\r';
    if is_raw != (n_backslashes == 0) {
        return None;
    }
    let end = n_backslashes + 1;
    let rest = &text[end..];
    let same = rest.iter().take(n_backslashes).take_while(|byte| **byte == b'\\').count();
    let next = match rest.get(same) {
        // More would tell.
        None => return Some(text.len()),
        Some(b'\n') if is_raw => end + 1,
        Some(b'n') if !is_raw && same == n_backslashes => end + same + 1,
        Some(_) => end,
    };
    Some(next + indent(&text[next..]))
}

fn last_line(text: &[u8]) -> Piece {
    const BEGIN: &[u8] = b"-----END ";
    const END: &[u8] = b"KEY-----";
    const END_BLOCK: &[u8] = b"KEY BLOCK-----";
    let known = text.len().min(BEGIN.len());
    if text[..known] != BEGIN[..known] {
        return Piece::NoPart;
    }
    let line = &text[..text.len().min(MAX_LAST_LINE_BYTES)];
    let behind = line.get(BEGIN.len()..).unwrap_or_default();
    let words = behind.iter().take_while(|byte| is_label(**byte)).count();
    let dashes = behind[words..].iter().take_while(|byte| **byte == b'-').take(5).count();
    let n = known + words + dashes;
    if dashes < 5 {
        return if n == text.len() && n < MAX_LAST_LINE_BYTES { Piece::Cut } else { Piece::NoPart };
    }
    if text[..n].ends_with(END) || text[..n].ends_with(END_BLOCK) {
        Piece::Last(n)
    } else {
        Piece::NoPart
    }
}

pub(super) fn is_label(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' '
}

pub(super) fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}
