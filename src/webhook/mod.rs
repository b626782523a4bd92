//! Webhooks: telling a URL that a run has ended.

mod address;
mod outbox;
mod post;
mod sign;

pub use address::{BadTarget, GuardedResolver, Reach, parse_target};
pub use outbox::{News, Outbox, OutboxError, Sender};
pub use post::{Post, PostError, tls_config};
pub use sign::signature;
