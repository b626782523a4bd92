//! Zip archives: reading those that clients send without trusting them, and writing those that they
//! ask for. The only place that knows the format.

mod check;
mod directory;
mod extract;
mod member;
mod pack;

pub use check::{ArchiveFault, UnpackLimits};
pub use extract::{ArchiveError, Member, check, extract};
pub use pack::{PackError, Packer};
