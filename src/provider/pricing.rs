//! What a usage costs.

use super::models::{CACHE_READ, CACHE_WRITE_1H, CACHE_WRITE_5M, Model, WEB_SEARCH};

/// Token counts of one model, as they are billed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Billed {
    /// Input tokens that did not touch the cache.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Input tokens read from the cache.
    pub cache_read: u64,
    /// Input tokens written to the cache for five minutes, or for a lifetime that nobody told us.
    pub cache_write_5m: u64,
    /// Input tokens written to the cache for an hour.
    pub cache_write_1h: u64,
    /// Searches that the service made itself.
    pub web_searches: u64,
}

/// What `billed` costs in US dollars by the list price of `model`; `None` for a model without one.
/// A model without a price is not free: nobody knows what it costs.
#[must_use]
pub fn estimate(model: &str, billed: &Billed) -> Option<f64> {
    let price = Model::find(model)?.price;
    #[expect(clippy::cast_precision_loss, reason = "a run has fewer tokens than 2^53")]
    let millions = |tokens: u64| tokens as f64 / 1e6;
    let searches = WEB_SEARCH * 1e6 * millions(billed.web_searches);
    let input = millions(billed.input)
        + CACHE_READ * millions(billed.cache_read)
        + CACHE_WRITE_5M * millions(billed.cache_write_5m)
        + CACHE_WRITE_1H * millions(billed.cache_write_1h);
    Some(price.input * input + price.output * millions(billed.output) + searches)
}

/// What so many tokens cost at most, in dollars, when all of the prompt is written to the cache.
/// `None` for a model without a known price.
#[must_use]
pub fn worst_case(model: &str, input: u64, output: u64, cache: CacheTime) -> Option<f64> {
    let billed = match cache {
        CacheTime::FiveMinutes => Billed { cache_write_5m: input, output, ..Billed::default() },
        CacheTime::Hour => Billed { cache_write_1h: input, output, ..Billed::default() },
    };
    estimate(model, &billed)
}

/// How long the cache keeps what is written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheTime {
    /// Five minutes, unless a request says otherwise.
    FiveMinutes,
    /// An hour.
    Hour,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_token_has_its_price() {
        let million = 1_000_000;
        let cost = |billed: Billed| estimate("us.anthropic.claude-sonnet-4-6", &billed);
        let none = Billed::default();
        for (billed, expected) in [
            (none, 0.0),
            (Billed { input: million, ..none }, 3.0),
            (Billed { output: million, ..none }, 15.0),
            (Billed { cache_read: million, ..none }, 0.3),
            (Billed { cache_write_5m: million, ..none }, 3.75),
            (Billed { cache_write_1h: million, ..none }, 6.0),
            (Billed { web_searches: 1_000, ..none }, 10.0),
        ] {
            let cost = cost(billed).unwrap();
            assert!((cost - expected).abs() < 1e-9, "{billed:?}: {cost}");
        }
    }

    #[test]
    fn the_worst_case_is_never_less_than_what_is_billed() {
        let billed = Billed {
            input: 10,
            cache_read: 500,
            cache_write_5m: 490,
            cache_write_1h: 0,
            output: 7,
            web_searches: 0,
        };
        let cost = |cache| worst_case("claude-sonnet-4-6", 1_000, 7, cache).unwrap();
        let (short, long) = (cost(CacheTime::FiveMinutes), cost(CacheTime::Hour));
        assert!(estimate("claude-sonnet-4-6", &billed).unwrap() < short && short < long);
    }

    #[test]
    fn a_model_without_a_price_is_not_free() {
        assert_eq!(estimate("gpt-5.5", &Billed::default()), None);
    }
}
