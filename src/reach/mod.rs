//! URLs that clients give: which addresses they may lead to, and reading a text from one.

mod address;
mod document;
mod tls;

pub use address::{BadTarget, GuardedResolver, Reach, parse_target};
pub use document::{DocumentError, Documents};
pub use tls::tls_config;
