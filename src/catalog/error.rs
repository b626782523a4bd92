//! Why the catalog refused or failed.

use std::fmt;

use crate::database::{DatabaseError, VaultError};

/// A kind of thing in the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A collection.
    Collection,
    /// A task.
    Task,
    /// An API token.
    Token,
    /// A routine.
    Routine,
    /// A webhook delivery.
    Delivery,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Collection => "collection",
            Self::Task => "task",
            Self::Token => "API key",
            Self::Routine => "routine",
            Self::Delivery => "webhook delivery",
        })
    }
}

/// The catalog refused, or could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// There is no such thing.
    #[error("there is no {what} `{name}`")]
    NotFound {
        /// What was looked for.
        what: Kind,
        /// Under which name.
        name: String,
    },
    /// The name is taken, whatever its case.
    #[error("the {what} `{name}` exists already")]
    Exists {
        /// What was to be made.
        what: Kind,
        /// Under which name.
        name: String,
    },
    /// What was given cannot be kept. The problem is a sentence for the client.
    #[error("{problem}")]
    Invalid {
        /// What is wrong, where, and what to do.
        problem: String,
    },
    /// A write could not begin.
    #[error("could not write to the catalog")]
    Begin(#[source] DatabaseError),
    /// A statement failed.
    #[error("could not {act}")]
    Statement {
        /// What it was to do.
        act: &'static str,
        /// Why.
        source: sqlx::Error,
    },
    /// A secret could not be sealed or opened.
    #[error("could not keep a secret")]
    Secret(#[source] VaultError),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
    /// A row holds something that this program never writes.
    #[error("a row of the catalog holds something unknown in `{column}`: `{found}`")]
    Unreadable {
        /// The column.
        column: &'static str,
        /// What it holds.
        found: String,
    },
}

impl CatalogError {
    /// Wraps the failure of one act.
    pub(super) fn act(act: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Statement { act, source }
    }

    pub(super) fn invalid(problem: impl Into<String>) -> Self {
        Self::Invalid { problem: problem.into() }
    }

    pub(super) fn not_found(what: Kind, name: impl fmt::Display) -> Self {
        Self::NotFound { what, name: name.to_string() }
    }

    pub(super) fn exists(what: Kind, name: impl fmt::Display) -> Self {
        Self::Exists { what, name: name.to_string() }
    }
}
