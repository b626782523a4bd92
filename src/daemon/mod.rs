//! The server as a whole: its parts, how they are built, and how they are stopped.
//!
//! `cli/serve.rs` builds it in this order: the foundation, the doors, the parts. What works
//! ([`Parts::work`]) drains first; what answers ([`Parts::surface`]) goes on until no work is left.

mod foundation;
mod housekeeping;
mod parts;
mod servers;

pub use foundation::{Foundation, FoundationError, Tokens, operator_socket};
pub use housekeeping::{Housekeeping, HousekeepingError, Removed};
pub use parts::{Ending, Parts, Signals, Stop};
pub use servers::{DoorError, Doors};
