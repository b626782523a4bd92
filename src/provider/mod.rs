//! The model services.

mod access;

pub use access::{Access, MissingCredential, SCRIPTED_SOCKET, access};
