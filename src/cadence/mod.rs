//! When a schedule runs: a rhythm, a time of day, a time zone. No clock: time comes in.

mod document;
mod error;
mod slots;

pub use error::CadenceError;
pub use slots::{Cadence, Rhythm, TimeOfDay};
