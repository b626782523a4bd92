//! How much of the machine's disk a run may hold, and what is said of one that holds more.

use serde::{Deserialize, Serialize};

/// How much a sandbox holds on the machine's disk, or may hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskShare {
    /// Bytes that are taken on the disk: a hole in a file takes none.
    #[serde(rename = "disk_bytes")]
    pub bytes: u64,
    /// Files, folders and links. Each takes one of the file system's entries, even an empty one.
    #[serde(rename = "disk_files")]
    pub n_files: u64,
}

impl DiskExcess {
    /// What to do about it, as a sentence.
    #[must_use]
    pub fn mend(self) -> &'static str {
        match self {
            Self::Bytes { .. } => {
                "Find out what fills the disk; where the run needs more, raise `disk` in the front \
                 matter."
            }
            Self::Files { .. } => {
                "Find out what makes the files; where the run needs more, raise `disk_files` in the \
                 front matter."
            }
            Self::Open { .. } => "Find out what opens so many files and does not close them.",
            Self::Depth { .. } => "Find out what nests the folders: no tool needs them so deep.",
            Self::SharedBytes { .. } | Self::SharedFiles { .. } => {
                "Make room on the disk of the state folder, or give runs less of it with `disk` and \
                 `disk_files`."
            }
        }
    }
}

impl DiskShare {
    /// The most that anybody can hold.
    pub const ALL: Self = Self { bytes: u64::MAX, n_files: u64::MAX };

    /// The lesser of both, in bytes and in files.
    #[must_use]
    pub fn within(self, ceiling: Self) -> Self {
        Self { bytes: self.bytes.min(ceiling.bytes), n_files: self.n_files.min(ceiling.n_files) }
    }

    /// What is wrong with holding this, where so much may be held.
    #[must_use]
    pub fn beyond(self, limit: Self) -> Option<DiskExcess> {
        if self.bytes > limit.bytes {
            Some(DiskExcess::Bytes { limit: limit.bytes })
        } else if self.n_files > limit.n_files {
            Some(DiskExcess::Files { limit: limit.n_files })
        } else {
            None
        }
    }
}

/// Why a sandbox takes too much of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum DiskExcess {
    /// Too many bytes.
    #[error("more than {limit} bytes are in its folders")]
    Bytes {
        /// How many there may be.
        limit: u64,
    },
    /// Too many files, folders and links.
    #[error("more than {limit} files, folders and links are in its folders")]
    Files {
        /// How many there may be.
        limit: u64,
    },
    /// Folders inside folders, deeper than anybody looks.
    #[error("its folders are nested more than {limit} deep")]
    Depth {
        /// How deep they may be nested.
        limit: u64,
    },
    /// More open files than anybody looks through.
    #[error("its processes hold more than {limit} files open")]
    Open {
        /// How many they may hold, each counted as often as it is held.
        limit: u64,
    },
    /// The disk that all sandboxes share has little room left, and this one holds the most of it.
    #[error(
        "only {free} bytes are left on the disk of all sandboxes, and this one holds the most of \
         them, {held}"
    )]
    SharedBytes {
        /// What is left.
        free: u64,
        /// What the sandbox holds, in bytes.
        held: u64,
    },
    /// The same with files.
    #[error(
        "the disk of all sandboxes has room for only {free} more files, and this one holds the most \
         of them, {held}"
    )]
    SharedFiles {
        /// How many more there can be.
        free: u64,
        /// How many files, folders and links the sandbox holds.
        held: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_beyond_its_limit_in_bytes_or_in_files() {
        let limit = DiskShare { bytes: 10, n_files: 2 };
        let share = |bytes, n_files| DiskShare { bytes, n_files }.beyond(limit);
        assert_eq!(share(10, 2), None);
        assert_eq!(share(11, 2), Some(DiskExcess::Bytes { limit: 10 }));
        assert_eq!(share(10, 3), Some(DiskExcess::Files { limit: 2 }));
        let ceiling = DiskShare { bytes: 3, n_files: 9 };
        assert_eq!(limit.within(ceiling), DiskShare { bytes: 3, n_files: 2 });
        assert_eq!(DiskShare { bytes: u64::MAX, n_files: 9 }.beyond(DiskShare::ALL), None);
    }
}
