//! The model services.

mod access;
pub mod scripted;

pub use access::{Access, MissingCredential, SCRIPTED_SOCKET, access, credential};
