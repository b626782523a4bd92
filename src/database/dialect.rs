//! Where the text of a statement differs between database servers.

use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

/// The words that stand for a server's own: each placeholder and what is said in its place.
#[derive(Debug, Clone)]
pub struct Dialect {
    words: Vec<(&'static str, &'static str)>,
}

impl Dialect {
    /// SQLite: its one writer needs no row locks.
    #[must_use]
    pub fn sqlite() -> Self {
        Self { words: vec![("{skip}", "")] }
    }

    /// PostgreSQL: concurrent leases pass over the rows that another one is taking.
    #[must_use]
    pub fn postgresql() -> Self {
        Self { words: vec![("{skip}", "FOR UPDATE SKIP LOCKED")] }
    }

    /// This dialect with one more replacement. It lets a test say a statement without one of its
    /// guards and show what the guard is for.
    #[cfg(test)]
    pub(crate) fn with(mut self, from: &'static str, to: &'static str) -> Self {
        self.words.push((from, to));
        self
    }

    /// The statement in this dialect.
    #[must_use]
    pub fn say(&self, text: &'static str) -> SqlStr {
        if !self.words.iter().any(|(from, _)| text.contains(from)) {
            return text.into_sql_str();
        }
        let said =
            self.words.iter().fold(text.to_owned(), |said, (from, to)| said.replace(from, to));
        // Only our own constants are in it: values are always bound.
        AssertSqlSafe(said).into_sql_str()
    }
}
