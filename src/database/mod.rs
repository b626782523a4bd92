//! The database file: opened once, checked, migrated; one writer, several readers; and the vault
//! for the values in it that nobody may read.
//!
//! Statements are written so that the same text runs on PostgreSQL: `$1` parameters, TEXT and
//! BIGINT (epoch milliseconds), and [`Database::sql`] for the one place where the dialects differ.

mod dialect;
mod error;
mod lock;
mod migrations;
mod open;
mod place;
#[cfg(test)]
mod tests;
mod vault;

pub use dialect::Dialect;
pub use error::DatabaseError;
pub use open::{Database, WriteTransaction};
pub use vault::{Vault, VaultError};
