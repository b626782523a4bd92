//! The pinned agent CLIs: which package, version and integrity, and the cache.

mod cache;
mod client;
mod download;
mod error;
mod examine;
mod fetch;
mod lock;
mod pins;
mod target;
#[cfg(test)]
mod tests;
mod unpack;

pub use error::{DownloadError, Origin, ToolchainError, UnpackError};
pub use fetch::{FetchProgress, InstalledCli, OnProgress, Toolchain, ToolchainSettings};
pub use pins::AgentCli;
pub use target::{Arch, Libc, Target, UnknownTarget};
