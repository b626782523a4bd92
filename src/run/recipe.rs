//! What an image is built from.

use std::collections::BTreeMap;

/// Everything that goes into an image, and the name under which it is kept. The name holds a hash of
/// all the rest, so an image of that name never has to be built again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecipe {
    /// What a person calls it.
    pub title: String,
    /// The image's name.
    pub tag: String,
    /// What it is built on.
    pub base: String,
    /// The build's files by their path, the `Dockerfile` among them.
    pub files: BTreeMap<String, ContextFile>,
    /// The build's arguments.
    pub build_args: BTreeMap<String, String>,
}

/// A file that a build is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContextFile {
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Whether it can be run.
    pub is_executable: bool,
}

impl ContextFile {
    /// A file that is only read.
    #[must_use]
    pub fn plain(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), is_executable: false }
    }
}
