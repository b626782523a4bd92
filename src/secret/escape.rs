//! Where JSON's escapes begin and end, so that a mask never cuts one in two.

/// The beginning of the escape inside which `at` lies; `at` itself where it lies in none. What
/// stands before `from` has ended there.
pub(super) fn escape_start(text: &[u8], from: usize, at: usize) -> usize {
    if is_escaped(text, from, at) {
        return at - 1;
    }
    // Behind the `u` of `\uXXXX`, and up to three of its digits.
    for back in 1..=4 {
        let Some(u) = at.checked_sub(back).filter(|u| *u > from) else { return at };
        let digits = &text[u + 1..at];
        if text[u] == b'u' && digits.iter().all(u8::is_ascii_hexdigit) && is_escaped(text, from, u)
        {
            return u - 1;
        }
    }
    at
}

/// The end of the escape inside which `at` lies; `at` itself where it lies in none. `None` where
/// more of the text must be known.
pub(super) fn escape_end(text: &[u8], from: usize, at: usize, is_all: bool) -> Option<usize> {
    let start = escape_start(text, from, at);
    if start == at {
        return Some(at);
    }
    let Some(kind) = text.get(start + 1) else { return is_all.then_some(at) };
    if *kind != b'u' {
        return Some(at.max(start + 2));
    }
    let digits = text[start + 2..].iter().take(4);
    let n_digits = digits.take_while(|byte| byte.is_ascii_hexdigit()).count();
    match n_digits {
        4 => Some(start + 6),
        n if start + 2 + n == text.len() && !is_all => None,
        _ => Some(at),
    }
}

/// Whether an odd number of backslashes stands right before `at`.
fn is_escaped(text: &[u8], from: usize, at: usize) -> bool {
    text[from..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_is_known_from_every_place_inside_it() {
        for (text, at, expected) in [
            (r"a\nb", 2, Some((1, 3))),
            (r"a\nb", 3, Some((3, 3))),
            (r"a\\nb", 3, Some((3, 3))),
            (r"a\\\nb", 4, Some((3, 5))),
            (r"\u00e9x", 1, Some((0, 6))),
            (r"\u00e9x", 4, Some((0, 6))),
            (r"\u00e9x", 6, Some((6, 6))),
            (r"\\u00e9x", 5, Some((5, 5))),
            (r"C:\users", 4, Some((2, 4))),
            (r"a\", 2, None),
            (r"a\u00", 4, None),
        ] {
            let found = escape_end(text.as_bytes(), 0, at, false)
                .map(|end| (escape_start(text.as_bytes(), 0, at), end));
            assert_eq!(found, expected, "{text} at {at}");
        }
    }
}
