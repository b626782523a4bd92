//! Between rows and values.

use jiff::Timestamp;
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{ColumnIndex, Decode, Row as _, Sqlite, SqliteConnection, Type};

use super::error::CatalogError;
use crate::run::Slug;

/// Which part of a long list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Rows to leave out at the beginning.
    pub skip: u64,
    /// Rows to give at most.
    pub limit: u64,
}

impl Page {
    pub(super) fn skip(self) -> i64 {
        number(self.skip)
    }

    pub(super) fn limit(self) -> i64 {
        number(self.limit)
    }
}

/// A number for a column. What does not fit is larger than anything that is counted here.
pub(super) fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A name as it is compared.
pub(super) fn folded(name: &str) -> String {
    name.to_lowercase()
}

/// A row that is read by the names of its columns.
pub(super) struct Columns<'r>(pub(super) &'r SqliteRow);

impl<'r> Columns<'r> {
    pub(super) fn get<T>(&self, column: &'static str) -> Result<T, CatalogError>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite>,
        &'static str: ColumnIndex<SqliteRow>,
    {
        self.0.try_get(column).map_err(CatalogError::act("read a row of the catalog"))
    }

    pub(super) fn count(&self, column: &'static str) -> Result<u64, CatalogError> {
        let n: i64 = self.get(column)?;
        u64::try_from(n).map_err(|_| unreadable(column, n))
    }

    pub(super) fn flag(&self, column: &'static str) -> Result<bool, CatalogError> {
        self.count(column).map(|n| n != 0)
    }

    pub(super) fn time(&self, column: &'static str) -> Result<Timestamp, CatalogError> {
        timestamp(column, self.get(column)?)
    }

    pub(super) fn maybe_time(
        &self,
        column: &'static str,
    ) -> Result<Option<Timestamp>, CatalogError> {
        let ms: Option<i64> = self.get(column)?;
        ms.map(|ms| timestamp(column, ms)).transpose()
    }

    pub(super) fn slug(&self, column: &'static str) -> Result<Slug, CatalogError> {
        let name: &str = self.get(column)?;
        Slug::new(name).map_err(|_| unreadable(column, name))
    }

    pub(super) fn json(&self, column: &'static str) -> Result<Value, CatalogError> {
        let text: &str = self.get(column)?;
        serde_json::from_str(text).map_err(|_| unreadable(column, "not JSON"))
    }
}

pub(super) fn unreadable(column: &'static str, found: impl ToString) -> CatalogError {
    CatalogError::Unreadable { column, found: found.to_string() }
}

fn timestamp(column: &'static str, ms: i64) -> Result<Timestamp, CatalogError> {
    Timestamp::from_millisecond(ms).map_err(|_| unreadable(column, ms))
}

const NEXT_NUMBER: &str = "UPDATE counters SET last = last + 1 WHERE kind = $1 RETURNING last";

/// The next number of a kind. None is given out twice, not even after a deletion.
pub(super) async fn next_number(
    connection: &mut SqliteConnection,
    kind: &'static str,
) -> Result<i64, CatalogError> {
    sqlx::query_scalar(NEXT_NUMBER)
        .bind(kind)
        .fetch_one(connection)
        .await
        .map_err(CatalogError::act("draw a number"))
}
