//! Webhooks: telling a URL that a run has ended.

mod address;
mod outbox;
mod post;
mod sign;

pub use address::{BadTarget, Reach, parse_target};
pub use outbox::{News, Outbox, OutboxError, Sender};
pub use post::{Post, PostError};
pub use sign::signature;
