//! Collections and what belongs to them: environments, tasks, API tokens, routines, webhook
//! deliveries, uploads. The only place that knows their SQL.
//!
//! A name from outside is looked up once, by [`Catalog::collection`]; from there on the
//! collection's own [`Slug`](crate::run::Slug) is used.

mod collections;
mod deliveries;
mod environment;
mod error;
mod routines;
mod row;
mod schedule;
mod tasks;
#[cfg(test)]
mod tests;
mod tokens;
mod uploads;

use std::sync::Arc;

use crate::database::{Database, Vault, WriteTransaction};

pub use collections::{Collection, CollectionPatch};
pub use deliveries::{Delivery, DeliveryOutcome, DeliveryState, NewDelivery, RETRY_AFTER};
pub use environment::{MAX_ENVIRONMENT_BYTES, MAX_VALUE_BYTES};
pub use error::{CatalogError, Kind};
pub use routines::{NewRoutine, Routine, RoutinePatch, RoutineSecrets};
pub use row::Page;
pub use schedule::{Due, Fire};
pub use tasks::{NewTask, Task, TaskFlags, TaskPatch};
pub use tokens::{Authentication, Scope, Token, TokenPatch};

/// The catalog. Clones share it.
#[derive(Debug, Clone)]
pub struct Catalog {
    database: Database,
    vault: Arc<Vault>,
}

impl Catalog {
    /// The catalog in this database, with its secrets sealed by this vault.
    #[must_use]
    pub fn new(database: Database, vault: Arc<Vault>) -> Self {
        Self { database, vault }
    }

    async fn write(&self) -> Result<WriteTransaction, CatalogError> {
        self.database.write().await.map_err(CatalogError::Begin)
    }

    async fn reader(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Sqlite>, CatalogError> {
        self.database.readers().acquire().await.map_err(CatalogError::act("read the catalog"))
    }
}
