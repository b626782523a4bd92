//! Opening, checking and closing the file, and the two ways in: read and write.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, SqlStr, Sqlite, SqlitePool, Transaction};

use super::dialect::Dialect;
use super::error::DatabaseError;
use super::{lock, migrations, place};

/// How long a statement waits for SQLite's own lock. There is one writer, so only a checkpoint can
/// be in the way, and that takes far less.
const BUSY_LIMIT: Duration = Duration::from_secs(5);

/// How long a caller waits for its turn at a connection. Writes take milliseconds: who waits this
/// long waits for a disk that does not answer, and should say so.
const TURN_LIMIT: Duration = Duration::from_secs(30);

/// Connections that only read. Reads take well under a millisecond each; more connections than
/// this only hold memory.
const N_READERS: u32 = 4;

/// How long closing waits for what is still using a connection.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// A transaction that may write. It holds the only writing connection, so it must be short, and it
/// changes nothing unless it is committed.
pub type WriteTransaction = Transaction<'static, Sqlite>;

/// The open database. Clones share it.
#[derive(Debug, Clone)]
pub struct Database {
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    path: PathBuf,
    writer: SqlitePool,
    readers: SqlitePool,
    dialect: Dialect,
    /// `None` once closed.
    lock: Mutex<Option<File>>,
}

impl Database {
    /// Opens the file, and makes it where it is missing. It is checked and brought up to date.
    ///
    /// # Errors
    /// Every one says what to do: another process has it, it lies on a network file system, it is
    /// damaged, it is from a newer version.
    pub async fn open(path: &Path) -> Result<Self, DatabaseError> {
        let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)
            .map_err(|source| DatabaseError::Folder { path: folder.to_owned(), source })?;
        place::check(folder, path)?;
        let lock = lock::take(path)?;
        let failed = |source| DatabaseError::Open { path: path.to_owned(), source };
        make_private(path).map_err(|source| failed(source.into()))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_LIMIT);
        // SQLite ends a transaction by itself when the disk is full or fails; the driver does not
        // notice and could never begin another one on that connection.
        let writer = pool(1)
            .before_acquire(|connection, _| {
                let is_clean = !connection.is_in_transaction();
                Box::pin(async move { Ok(is_clean) })
            })
            .connect_with(options.clone())
            .await
            .map_err(|source| unopened(path, source))?;
        if let Err(error) = prepare(&writer, path).await {
            writer.close().await;
            return Err(error);
        }
        let readers = pool(N_READERS)
            .connect_with(options.create_if_missing(false).pragma("query_only", "1"))
            .await
            .map_err(failed)?;
        let lock = Mutex::new(Some(lock));
        let dialect = Dialect::sqlite();
        let parts = Parts { path: path.to_owned(), writer, readers, dialect, lock };
        Ok(Self { parts: Arc::new(parts) })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.parts.path
    }

    /// The dialect of this database.
    #[must_use]
    pub fn dialect(&self) -> &Dialect {
        &self.parts.dialect
    }

    /// A statement in the dialect of this database. Needed only for one with a `{…}` in it.
    #[must_use]
    pub fn sql(&self, text: &'static str) -> SqlStr {
        self.parts.dialect.say(text)
    }

    /// Connections for reading.
    #[must_use]
    pub fn readers(&self) -> &SqlitePool {
        &self.parts.readers
    }

    /// Begins a write transaction, when it is this caller's turn. Dropping it undoes it.
    ///
    /// # Errors
    /// [`DatabaseError::Begin`] when the turn did not come in time or the file cannot be written.
    pub async fn write(&self) -> Result<WriteTransaction, DatabaseError> {
        // A deferred transaction would ask for the write lock in its middle, where SQLite refuses
        // at once instead of waiting.
        self.parts.writer.begin_with("BEGIN IMMEDIATE").await.map_err(DatabaseError::Begin)
    }

    /// Closes the connections, folds the write-ahead log into the file and gives the lock back.
    ///
    /// # Errors
    /// [`DatabaseError::Close`] when something still uses a connection; the lock is then kept until
    /// the process ends.
    pub async fn close(&self) -> Result<(), DatabaseError> {
        let closed = async {
            self.parts.readers.close().await;
            // SQLite checkpoints when its last connection is closed.
            self.parts.writer.close().await;
        };
        tokio::time::timeout(CLOSE_LIMIT, closed)
            .await
            .map_err(|_| DatabaseError::Close { limit_s: CLOSE_LIMIT.as_secs() })?;
        self.parts.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(())
    }
}

/// Connections that are kept for as long as the process lives: there is no server behind them that
/// could go away.
fn pool(n: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(n)
        .min_connections(n)
        .acquire_timeout(TURN_LIMIT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// Makes the file for its owner alone, where it is missing: it holds what people asked agents to do.
/// SQLite gives the files beside it the same permissions.
fn make_private(path: &Path) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
}

/// Why the first connection failed. It reads the schema, so damage there shows before the file is
/// checked.
fn unopened(path: &Path, source: sqlx::Error) -> DatabaseError {
    /// SQLite's primary result codes for "malformed" and "not a database"; the extended ones carry
    /// them in their low byte.
    const DAMAGED: [u32; 2] = [11, 26];
    let code = source.as_database_error().and_then(|error| error.code());
    let code = code.and_then(|code| code.parse::<u32>().ok());
    if code.is_some_and(|code| DAMAGED.contains(&(code & 0xff))) {
        return DatabaseError::Damaged { path: path.to_owned(), report: source.to_string() };
    }
    DatabaseError::Open { path: path.to_owned(), source }
}

/// Checks the file and brings its schema up to date.
async fn prepare(writer: &SqlitePool, path: &Path) -> Result<(), DatabaseError> {
    let damaged = |report| DatabaseError::Damaged { path: path.to_owned(), report };
    let report: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(writer)
        .await
        .map_err(|error| damaged(error.to_string()))?;
    if report != "ok" {
        return Err(damaged(report));
    }
    match migrations::migrator().run(writer).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(version)) => {
            Err(DatabaseError::Newer { path: path.to_owned(), version })
        }
        Err(source) => Err(DatabaseError::Migrate { path: path.to_owned(), source }),
    }
}
