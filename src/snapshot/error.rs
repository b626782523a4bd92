//! What keeps snapshots from being known.

use std::io;
use std::path::PathBuf;

/// The operator's snapshots, or what goes into every build, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file or folder cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder's name is not one of a snapshot.
    #[error(
        "{} cannot be a snapshot: name its folder with a-z, 0-9 and single `.`, `_` or `-` between them, and neither `local` nor `packages`",
        path.display()
    )]
    Name {
        /// The folder.
        path: PathBuf,
    },
    /// The description cannot be understood.
    #[error("{} is not the description of a snapshot: it has the keys `description`, `from` and `tools`", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_yaml::Error,
    },
    /// The Dockerfile is missing or has no base.
    #[error("the snapshot `{name}` has no Dockerfile with a `FROM`")]
    NoDockerfile {
        /// The snapshot.
        name: String,
    },
    /// The files are more than a build is sent.
    #[error(
        "the files of the snapshot `{name}` are more than {limit_bytes} bytes: let its Dockerfile fetch what is large"
    )]
    TooLarge {
        /// The snapshot.
        name: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// A link or a device among the files.
    #[error("{} is not a regular file: put a copy of it there", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The snapshot below is not there, or the snapshots stand on each other in a circle.
    #[error(
        "the snapshot `{name}` stands on `{from}`, which is not a snapshot or stands on it in turn"
    )]
    From {
        /// The snapshot.
        name: String,
        /// What it stands on.
        from: String,
    },
}
