//! The runbook document: front matter, parameters, template variables. The only place that knows
//! the runbook format.

mod error;
mod explain;
mod limits;
mod name;
mod node;
mod position;
mod split;
mod yaml;

pub use error::{Problem, RunbookError};
pub use position::Position;
