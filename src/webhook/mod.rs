//! Webhooks: telling a URL that a run has ended.

mod outbox;
mod post;
mod sign;

pub use outbox::{News, Outbox, OutboxError, Sender};
pub use post::{Post, PostError};
pub use sign::signature;
