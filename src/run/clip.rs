//! Texts that somebody else wrote, cut to what a record keeps of them.

/// What is kept of such a text, in characters: enough to know it again, and too little for a hundred
/// thousand of them to fill a disk.
pub const MAX_CLIPPED_CHARS: usize = 300;

/// The beginning of a text, on one line.
#[must_use]
pub fn clipped(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MAX_CLIPPED_CHARS).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_stays_on_one_line() {
        assert_eq!(clipped("a\nb\u{1b}[0m"), "a b [0m");
        assert_eq!(clipped(&"ü".repeat(5000)), "ü".repeat(MAX_CLIPPED_CHARS));
    }
}
