//! The runbook document: front matter, parameters, template variables. The only place that knows
//! the runbook format.

mod error;
mod limits;
mod name;
mod position;
mod split;

pub use error::{Problem, RunbookError};
pub use position::Position;
