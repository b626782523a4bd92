//! What a request may take before anybody knows what it takes, what is left, and what follows.
//!
//! A request is let through only if its worst case fits under every limit beside what was spent and
//! what others in flight may still take. So no number of them at the same time passes a limit.

mod amounts;
mod bucket;
mod calendar;
mod decide;
mod density;
mod media;
mod settings;

pub use amounts::{Amounts, MAX_ANSWER_TOKENS};
pub use bucket::Bucket;
pub use calendar::{Period, period};
pub use decide::{Balance, Balances, Decision, decide, fits};
pub use density::{Density, FIRST_BYTES_PER_TOKEN, Prompt};
pub use media::Media;
pub use settings::{VARIABLES, read_allowance};
