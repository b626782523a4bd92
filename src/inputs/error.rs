//! Why files could not be had.

use crate::archive::ArchiveError;
use crate::store::StoreError;

/// Why a run's files could not be put into its folder.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The disk failed.
    #[error("could not look at the files of a run")]
    Store(#[from] StoreError),
    /// A file has gone since it was looked at.
    #[error("the file `{path}` has gone")]
    Gone {
        /// Its storage path.
        path: String,
    },
    /// An archive could not be unpacked.
    #[error("could not unpack `{path}`")]
    Unpack {
        /// Its storage path.
        path: String,
        /// Why.
        source: ArchiveError,
    },
}

impl FilesError {
    /// Whether the disk had no room.
    #[must_use]
    pub fn is_no_room(&self) -> bool {
        matches!(self, Self::Unpack { source: ArchiveError::NoRoom, .. })
    }

    /// Whether another id would do.
    #[must_use]
    pub fn is_name_taken(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_name_taken())
    }
}

impl From<FilesError> for std::io::Error {
    fn from(error: FilesError) -> Self {
        Self::other(error)
    }
}
