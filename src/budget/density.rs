//! How many tokens a prompt has at most, from its length: at first by a cautious ratio, then by what
//! the requests before it really took.

use super::media::Media;

/// Bytes for each token of a prompt of which nothing is known. Prose has four or five, code three,
/// most other scripts two to three; fewer have only random letters.
pub const FIRST_BYTES_PER_TOKEN: u64 = 2;

/// Most bytes for each token, whatever earlier requests took: no text is thinner.
const MAX_BYTES_PER_TOKEN: u64 = 6;

/// Most tokens for each byte of a text, in thousandths: a token is at least one byte. What took more was
/// not the text.
const MAX_DENSITY: u64 = MILLI;

/// What is added to what earlier requests took, in percent: a conversation of the same length may
/// hold other text.
const MARGIN_PERCENT: u64 = 10;

/// What a service puts before a prompt itself, in tokens: how tools are called, where there are any.
const OVERHEAD: u64 = 600;

/// Thousandths in one.
const MILLI: u64 = 1_000;

/// The length of a prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prompt {
    /// All of it, in bytes.
    pub n_bytes: u64,
    /// What of it is no text.
    pub media: Media,
}

impl Prompt {
    fn text_bytes(&self) -> u64 {
        self.n_bytes.saturating_sub(self.media.n_bytes)
    }
}

/// What is known of the tokens in the prompts of one run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Density {
    /// The most that was seen, in thousandths of a token for each byte.
    seen: Option<u64>,
    /// The longest text that it was seen in. What goes beyond it may be anything.
    longest: u64,
}

impl Density {
    /// The most tokens that a prompt may have.
    #[must_use]
    pub fn tokens(&self, prompt: &Prompt) -> u64 {
        let text = prompt.text_bytes();
        let known = text.min(self.longest);
        let seen = self.seen.unwrap_or(MILLI / FIRST_BYTES_PER_TOKEN);
        let cautious = seen.saturating_mul(100 + MARGIN_PERCENT) / 100;
        let of_known = known.saturating_mul(cautious).div_ceil(MILLI);
        let of_rest = (text - known).div_ceil(FIRST_BYTES_PER_TOKEN);
        let of_text = of_known.saturating_add(of_rest);
        of_text.saturating_add(prompt.media.tokens).saturating_add(OVERHEAD)
    }

    /// A prompt took so many tokens. One that is not text alone teaches nothing: how many of them were
    /// the text's is not known.
    pub fn learn(&mut self, prompt: &Prompt, tokens: u64) {
        let text = prompt.text_bytes();
        if text == 0 || tokens == 0 || !prompt.media.is_none() {
            return;
        }
        let least = MILLI / MAX_BYTES_PER_TOKEN;
        let of_text = tokens.saturating_sub(OVERHEAD);
        let took = of_text.saturating_mul(MILLI).div_ceil(text).clamp(least, MAX_DENSITY);
        self.seen = Some(self.seen.map_or(took, |seen| seen.max(took)));
        self.longest = self.longest.max(text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(n_bytes: u64) -> Prompt {
        Prompt { n_bytes, ..Prompt::default() }
    }

    #[test]
    fn at_first_half_of_the_bytes_are_tokens_and_later_what_was_seen_with_a_margin() {
        let mut density = Density::default();
        assert_eq!(density.tokens(&text(60_000)), 30_600);
        density.learn(&text(60_000), 15_600);
        assert_eq!(density.tokens(&text(60_000)), 16_500 + 600);
        assert_eq!(density.tokens(&text(70_000)), 16_500 + 5_000 + 600, "what is new is unknown");
        density.learn(&text(1_000), 1_500);
        assert_eq!(density.tokens(&text(1_000)), 990 + 600);
    }

    #[test]
    fn what_is_no_text_teaches_nothing_about_texts() {
        let mut density = Density::default();
        density.learn(&text(60_000), 15_600);
        let known = density;
        let search = Prompt { n_bytes: 2_000, media: Media::tool_uses(8) };
        let picture = Prompt { n_bytes: 3_000, media: Media::picture(600) };
        let document = Prompt { n_bytes: 90_000, media: Media::document(80_000) };
        for prompt in [search, picture, document] {
            density.learn(&prompt, 200_000);
            assert_eq!(density, known, "{prompt:?}");
        }
        // What nobody announced is at least no denser than any text can be.
        density.learn(&text(2_000), 200_000);
        assert_eq!(density.tokens(&text(60_000)), 66_000 + 600);
    }

    #[test]
    fn a_picture_is_not_counted_as_text_however_large_or_small() {
        let density = Density::default();
        for n_bytes in [500, 1_000_000] {
            let prompt = Prompt { n_bytes: 1_000 + n_bytes, media: Media::picture(n_bytes) };
            assert_eq!(density.tokens(&prompt), 500 + 5_000 + 600);
        }
    }

    proptest! {
        #[test]
        fn the_same_prompt_again_is_never_estimated_below_what_it_took(
            prompts in proptest::collection::vec((1_u64..10_000_000, 0_u64..=100), 1..10),
        ) {
            // A token has at least a byte, beside what a service puts before a prompt.
            let prompts = prompts.into_iter().map(|(n, part)| (n, n * part / 100 + OVERHEAD));
            let prompts: Vec<(u64, u64)> = prompts.collect();
            let mut density = Density::default();
            for (n_bytes, tokens) in &prompts {
                density.learn(&text(*n_bytes), *tokens);
            }
            for (n_bytes, tokens) in prompts {
                prop_assert!(density.tokens(&text(n_bytes)) >= tokens);
            }
        }
    }
}
