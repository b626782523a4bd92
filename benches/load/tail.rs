//! The slow end of many measurements of one thing.

/// Many measurements of one thing, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Tail(Vec<f64>);

impl Tail {
    /// The smallest one that at least this share of all does not exceed. Not a number when there is
    /// none.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        // A share is at most 1, and there are far fewer measurements than a float can count.
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl FromIterator<f64> for Tail {
    fn from_iter<I: IntoIterator<Item = f64>>(measured: I) -> Self {
        let mut sorted: Vec<f64> = measured.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        Self(sorted)
    }
}
