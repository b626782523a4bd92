//! Snapshots: the named images that a sandbox starts from, and what each is built from.
//!
//! This room knows the recipes. Building them is the engine's.

mod catalog;
mod definition;
mod error;
mod folder;
mod packages;
mod recipe;

pub use catalog::{DEFAULT_SNAPSHOT, SnapshotSettings, Snapshots};
pub use definition::{Origin, Snapshot};
pub use error::SnapshotError;
pub use packages::{PACKAGES_TITLE, is_package};
