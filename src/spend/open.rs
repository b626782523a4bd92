//! Opening the file: the one place of this room that speaks to SQLite as such.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Sqlite, SqlitePool, Transaction};

use super::error::SpendError;

/// The schema that this program knows.
const VERSION: i64 = 1;

/// The schema's text. Every statement of it may be said again.
const SCHEMA: &str = include_str!("schema.sql");

/// How long a transaction waits for those of other processes. Each takes a millisecond or the time
/// of one write to the disk.
const BUSY_LIMIT: Duration = Duration::from_secs(15);

/// How long a caller waits for a connection of this process.
const TURN_LIMIT: Duration = Duration::from_secs(30);

/// How long opening is tried while others open the file for the first time.
const OPEN_LIMIT: Duration = Duration::from_secs(15);

/// Between two tries to open.
const OPEN_AGAIN: Duration = Duration::from_millis(50);

/// Connections of one process: one writes, another reads what was used.
const N_CONNECTIONS: u32 = 2;

/// A transaction that may write, alone among all processes. Dropped, it changes nothing.
pub(super) type Write = Transaction<'static, Sqlite>;

/// The open file. Clones share it.
#[derive(Debug, Clone)]
pub struct Spend {
    pool: SqlitePool,
    path: Arc<Path>,
}

impl Spend {
    /// The file's name in the state folder.
    pub const FILE: &'static str = "spend.db";

    /// Opens the file, and makes it where it is missing. Any number of processes may have it open.
    ///
    /// # Errors
    /// [`SpendError`] when it cannot be opened, or is of a newer program.
    pub async fn open(path: &Path) -> Result<Self, SpendError> {
        let failed = |source| SpendError::Open { path: path.to_owned(), source };
        // Others are told of it, in another folder.
        let path = &std::path::absolute(path).map_err(|e| failed(e.into()))?;
        make_private(path).map_err(|e| failed(e.into()))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .busy_timeout(BUSY_LIMIT)
            .journal_mode(SqliteJournalMode::Wal)
            // What is spent stays spent when the machine loses its power.
            .synchronous(SqliteSynchronous::Full);
        let since = Instant::now();
        let pool = loop {
            // To become a write-ahead log a file must be held alone, and SQLite does not wait for it.
            match pool().connect_with(options.clone()).await {
                Ok(pool) => break pool,
                Err(e) if is_busy(&e) && since.elapsed() < OPEN_LIMIT => {
                    tokio::time::sleep(OPEN_AGAIN).await;
                }
                Err(e) => return Err(failed(e)),
            }
        };
        let spend = Self { pool, path: path.as_path().into() };
        spend.prepare().await?;
        Ok(spend)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Closes the connections of this process.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    pub(super) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// Begins a transaction that may write.
    pub(super) async fn write(&self) -> Result<Write, SpendError> {
        // A deferred one would ask for the lock in its middle, where SQLite does not wait.
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(SpendError::Begin)
    }

    async fn prepare(&self) -> Result<(), SpendError> {
        let failed = SpendError::act("prepare what is spent");
        let mut tx = self.write().await?;
        sqlx::raw_sql(SCHEMA).execute(&mut *tx).await.map_err(&failed)?;
        let version: Option<i64> = sqlx::query_scalar("SELECT version FROM spend_schema")
            .fetch_optional(&mut *tx)
            .await
            .map_err(&failed)?;
        match version {
            None => {
                sqlx::query("INSERT INTO spend_schema (version) VALUES ($1)")
                    .bind(VERSION)
                    .execute(&mut *tx)
                    .await
                    .map_err(&failed)?;
            }
            Some(version) if version > VERSION => {
                return Err(SpendError::Newer { path: self.path.to_path_buf(), version });
            }
            Some(_) => {}
        }
        tx.commit().await.map_err(failed)
    }
}

fn pool() -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(N_CONNECTIONS)
        .acquire_timeout(TURN_LIMIT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        // SQLite ends a transaction by itself when the disk is full; the driver does not notice.
        .before_acquire(|connection, _| {
            let is_clean = !connection.is_in_transaction();
            Box::pin(async move { Ok(is_clean) })
        })
}

/// SQLite's words for "somebody else has it", with whatever it says more in the higher bytes.
fn is_busy(error: &sqlx::Error) -> bool {
    const BUSY: u32 = 5;
    let code = error.as_database_error().and_then(|error| error.code());
    code.and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == BUSY)
}

/// Makes the file for its owner alone, where it is missing.
fn make_private(path: &Path) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
}
