//! What can go wrong with the database file itself.

use std::io;
use std::path::PathBuf;

/// The database could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The folder of the file could not be made or read.
    #[error("could not use the folder `{}` for the database", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder is on a file system that other machines share.
    #[error(
        "the database `{}` would lie on a network file system ({kind}), where its locks do not hold: choose a folder on a local disk",
        path.display()
    )]
    NetworkFileSystem {
        /// The database file.
        path: PathBuf,
        /// The file system's name.
        kind: &'static str,
    },
    /// The lock file could not be made or read.
    #[error("could not use the lock file `{}`", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has the file open.
    #[error(
        "the database `{}` is in use by {}: one process may open it at a time, so stop that one first or choose another folder",
        path.display(),
        holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The database file.
        path: PathBuf,
        /// The process that holds it, where it said so.
        holder: Option<u32>,
    },
    /// The file could not be opened as a database.
    #[error("could not open the database `{}`", path.display())]
    Open {
        /// The database file.
        path: PathBuf,
        /// Why.
        source: sqlx::Error,
    },
    /// The file is damaged.
    #[error(
        "the database `{}` is damaged ({report}): move it aside and restore a backup, or start without it; the runs in the results directory are not touched",
        path.display()
    )]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What the check found first.
        report: String,
    },
    /// The file was written by a newer version of this program.
    #[error(
        "the database `{}` was written by a newer runbookd (schema {version}): start that version, or restore a backup from before the upgrade",
        path.display()
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// The first schema version that this program does not know.
        version: i64,
    },
    /// The schema could not be brought up to date. Nothing was changed.
    #[error("could not bring the schema of the database `{}` up to date", path.display())]
    Migrate {
        /// The database file.
        path: PathBuf,
        /// Why.
        source: sqlx::migrate::MigrateError,
    },
    /// A write transaction could not begin.
    #[error("could not begin to write to the database")]
    Begin(#[source] sqlx::Error),
    /// The connections could not be closed in time. What was committed is safe.
    #[error("could not close the database within {limit_s} s: something still uses it")]
    Close {
        /// The limit, in seconds.
        limit_s: u64,
    },
}
