//! Lines and columns, as an editor counts them.

use std::fmt;

/// A place in a file, counted from 1. The column counts characters; a byte order mark is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A text whose offsets are wanted as positions. Many offsets can be asked for: each costs a
/// search, not a walk from the start.
pub(super) struct Lines<'t> {
    text: &'t str,
    /// Where each line of `text` starts, in bytes.
    starts: Vec<usize>,
    /// The number of the text's first line in its file.
    first: usize,
}

impl<'t> Lines<'t> {
    /// Takes a text whose first line is the file's line `first`.
    pub(super) fn new(text: &'t str, first: usize) -> Self {
        let after_breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after_breaks).collect(), first }
    }

    /// The place of the byte at `offset`; an offset behind the text means its end.
    pub(super) fn position(&self, offset: usize) -> Position {
        let offset = self.text.floor_char_boundary(offset);
        let index = self.starts.partition_point(|&start| start <= offset) - 1;
        let before = &self.text[self.starts[index]..offset];
        Position { line: self.first + index, column: before.chars().count() + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_are_counted_from_one_in_characters() {
        let lines = Lines::new("ab\nüx\n\nz", 10);
        let at = |offset| {
            let Position { line, column } = lines.position(offset);
            (line, column)
        };
        let all: Vec<_> = [0, 1, 2, 3, 5, 6, 7, 8, 9, 99].map(at).into();
        let end = (13, 2);
        let expected =
            [(10, 1), (10, 2), (10, 3), (11, 1), (11, 2), (11, 3), (12, 1), (13, 1), end, end];
        assert_eq!(all, expected);
    }
}
