//! What of a prompt is no text: pictures, documents, and what a service's own tools bring into it.
//! How many tokens it has nobody can tell from its bytes, so each kind counts with a constant.

/// Tokens of a picture. A service makes larger ones smaller, and a blank one of a few hundred bytes has
/// as many tokens as any other of its width and height.
const PICTURE_TOKENS: u64 = 5_000;

/// Tokens of a document for each [`DOCUMENT_PART`] of it. A page takes about 3,000: its text, and a
/// picture of it. With a figure here and there it has about 20 KB, so that 100 KB of base64 are four.
const DOCUMENT_PART_TOKENS: u64 = 12_000;

/// Bytes of base64 that are counted at once.
const DOCUMENT_PART: u64 = 100_000;

/// Fewest tokens of a document: pages of nothing but text take little room, so that five fit into the
/// smallest file.
const LEAST_DOCUMENT_TOKENS: u64 = 15_000;

/// Tokens of a document that a service fetches itself, whose length nobody knows here: thirty pages.
const LINKED_DOCUMENT_TOKENS: u64 = 100_000;

/// Tokens that one use of a service's own tool brings: the findings of a search, a page.
const TOOL_USE_TOKENS: u64 = 10_000;

/// What of a prompt is no text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Media {
    /// How many of the prompt's bytes it is.
    pub n_bytes: u64,
    /// The tokens that it counts with.
    pub tokens: u64,
}

impl Media {
    /// A picture of so many bytes of the prompt.
    #[must_use]
    pub fn picture(n_bytes: u64) -> Self {
        Self { n_bytes, tokens: PICTURE_TOKENS }
    }

    /// A document of so many bytes of the prompt.
    #[must_use]
    pub fn document(n_bytes: u64) -> Self {
        let tokens = n_bytes.div_ceil(DOCUMENT_PART).saturating_mul(DOCUMENT_PART_TOKENS);
        Self { n_bytes, tokens: tokens.max(LEAST_DOCUMENT_TOKENS) }
    }

    /// A document that the service fetches.
    #[must_use]
    pub fn linked_document() -> Self {
        Self { n_bytes: 0, tokens: LINKED_DOCUMENT_TOKENS }
    }

    /// What the service's own tools bring, used so many times.
    #[must_use]
    pub fn tool_uses(n_uses: u64) -> Self {
        Self { n_bytes: 0, tokens: n_uses.saturating_mul(TOOL_USE_TOKENS) }
    }

    /// The sum of two.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            n_bytes: self.n_bytes.saturating_add(other.n_bytes),
            tokens: self.tokens.saturating_add(other.tokens),
        }
    }

    /// Whether the prompt is text alone.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_counts_with_its_length_and_a_picture_with_what_any_picture_may_have() {
        for (media, tokens) in [
            (Media::picture(500), 5_000),
            (Media::picture(5_000_000), 5_000),
            (Media::document(0), 15_000),
            (Media::document(100_000), 15_000),
            (Media::document(100_001), 24_000),
            // A megabyte before it is written in base64.
            (Media::document(1_400_000), 168_000),
            (Media::linked_document(), 100_000),
            (Media::tool_uses(3), 30_000),
        ] {
            assert_eq!(media.tokens, tokens, "{media:?}");
        }
        let both = Media::picture(500).plus(Media::document(7));
        assert_eq!(both, Media { n_bytes: 507, tokens: 20_000 });
        assert!(Media::tool_uses(0).is_none() && !both.is_none());
    }
}
