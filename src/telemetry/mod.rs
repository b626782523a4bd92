//! What the program tells of itself: log lines, and figures for a monitor.

mod log;
pub mod meters;

pub use log::{FOR_A_PERSON, FOR_AN_OPERATOR, LogFormat, LogSettings, start};
