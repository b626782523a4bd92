//! Claude Code: how its lines read, and what its end means.

mod invocation;
mod parse;
mod wire;

pub use invocation::{SESSIONS, invocation};
pub use parse::parse_line;

/// The one version of the CLI that runbookd drives. What this room knows was recorded with it.
pub const VERSION: &str = "2.1.126";
