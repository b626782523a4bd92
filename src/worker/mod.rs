//! One run, in order: plan it, run it, record it, finish it.

mod lines;

pub use lines::{Ending, Lines, MAX_LINE_BYTES};
