//! The model services.
