//! The model services.

pub mod scripted;
