//! The runbook document: front matter, parameters, template variables. The only place that knows
//! the runbook format.

mod error;
mod explain;
mod front_matter;
mod limits;
mod name;
mod node;
mod position;
mod secrets;
mod split;
mod values;
mod yaml;

pub use error::{Problem, RunbookError};
pub use front_matter::{FrontMatter, UnknownKey};
pub use position::Position;
pub use secrets::SecretDeclaration;
