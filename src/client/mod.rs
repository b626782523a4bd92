//! A client of the server's own HTTP API: JSON calls, files, and runs that are followed.
//!
//! What can be asked twice is asked again when the network or the server fails for a moment. A run
//! that is submitted carries an `Idempotency-Key`, so that this holds for it too.

mod attempts;
mod calls;
mod connect;
mod download;
mod error;
mod find;
mod follow;
mod submit;

pub use calls::Listed;
pub use connect::{Client, ClientSettings};
pub use error::ClientError;
pub use find::NamedRun;
pub use follow::{Event, Follow};
pub use submit::{Submission, Submitted};

#[cfg(test)]
mod tests;
