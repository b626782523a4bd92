//! Several measurements of one thing: their middle and their noise.

/// Measurements of one thing, in one unit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// The middle one in order of size; between two, their mean. Not a number when there is none.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let half = sorted.len() / 2;
        match sorted.as_slice() {
            [] => f64::NAN,
            sorted if sorted.len() % 2 == 0 => f64::midpoint(sorted[half - 1], sorted[half]),
            sorted => sorted[half],
        }
    }

    /// The median and, as the noise, the smallest and the largest, with so many `decimals`.
    pub(crate) fn show(&self, decimals: usize) -> String {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!("{:.decimals$} ({least:.decimals$} to {most:.decimals$})", self.median())
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}
