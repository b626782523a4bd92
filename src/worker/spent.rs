//! What was used, in the words of the queue.

use crate::queue::{Cost, JobUsage};
use crate::trajectory::{CostBasis, Usage};

/// Millionths in a dollar.
const MICROS: f64 = 1e6;

/// The token counts that the queue keeps.
pub(super) fn job_usage(total: &Usage) -> JobUsage {
    JobUsage {
        input_tokens: total.input,
        output_tokens: total.output,
        cache_read_tokens: total.cache_read,
        cache_write_tokens: total.cache_write(),
        cost: match (total.cost_usd.map(micros), total.cost_basis) {
            (Some(micros), CostBasis::Reported) => Cost::Reported(micros),
            (Some(micros), CostBasis::Estimated) => Cost::Estimated(micros),
            (Some(_), CostBasis::Unknown) | (None, _) => Cost::Unknown,
        },
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cost is a small positive amount, and one that is not becomes 0 or the largest"
)]
fn micros(usd: f64) -> u64 {
    (usd * MICROS).round() as u64
}
