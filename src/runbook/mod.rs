//! The runbook document: front matter, parameters, template variables. The only place that knows
//! the runbook format.

mod document;
mod error;
mod explain;
mod front_matter;
mod limits;
mod lint;
mod name;
mod network;
mod node;
mod parameters;
mod position;
#[cfg(test)]
mod samples;
mod secrets;
mod split;
mod stall;
mod template;
mod values;
mod yaml;

pub use document::{Part, Runbook};
pub use error::{Problem, RunbookError};
pub use front_matter::{FrontMatter, UnknownKey, is_server_name};
pub use name::is_name;
pub use parameters::Parameter;
pub use position::Position;
pub use secrets::SecretDeclaration;
pub use stall::StallTimes;
pub use template::{Rendered, UnfilledVariable, referenced_variables};
pub use values::parse_size;
