//! Why nothing is known of what is spent.

use std::path::PathBuf;

/// The file of what is spent could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum SpendError {
    /// It could not be opened.
    #[error("could not open `{}`, which keeps what is spent", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: sqlx::Error,
    },
    /// A newer program wrote it.
    #[error(
        "`{}`, which keeps what is spent, was written by a newer runbookd (schema {version}): start \
         that version, or move the file aside and begin to count anew", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        version: i64,
    },
    /// A transaction could not begin.
    #[error("could not begin to write what is spent")]
    Begin(#[source] sqlx::Error),
    /// A statement failed.
    #[error("could not {act}")]
    Statement {
        /// What it was to do.
        act: &'static str,
        /// Why.
        source: sqlx::Error,
    },
    /// A row holds something that this program never writes.
    #[error("a row of what is spent cannot be read: {0}")]
    Unreadable(String),
}

impl SpendError {
    /// Wraps the failure of an act.
    pub(super) fn act(act: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Statement { act, source }
    }
}
