//! Real files: new, old, damaged, in use.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/runbookd.db");
    (folder, path)
}

async fn n_workers(database: &Database) -> i64 {
    sqlx::query_scalar("SELECT COUNT(*) FROM workers").fetch_one(database.readers()).await.unwrap()
}

async fn add_worker(database: &Database) {
    let mut tx = database.write().await.unwrap();
    sqlx::query("INSERT INTO workers VALUES ('w', 's', 1, 'v', 0, 0)")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_file_is_made_closed_whole_and_opened_again() {
    let (_folder, path) = folder();
    let database = Database::open(&path).await.unwrap();
    add_worker(&database).await;
    for file in ["runbookd.db", "runbookd.db-wal", "runbookd.db.lock"] {
        let mode = path.with_file_name(file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    // The same process cannot have it twice either.
    let refused = Database::open(&path).await.unwrap_err();
    let pid = std::process::id();
    assert!(matches!(refused, DatabaseError::InUse { holder: Some(h), .. } if h == pid));
    database.close().await.unwrap();
    // The write-ahead log is folded in: one file can be copied.
    assert!(!path.with_file_name("runbookd.db-wal").exists());
    // Open again although a clone of the closed one is still there.
    let again = Database::open(&path).await.unwrap();
    assert_eq!(n_workers(&again).await, 1);
    assert!(matches!(database.write().await, Err(DatabaseError::Begin(_))));
}

#[tokio::test]
async fn the_file_is_kept_as_safely_as_it_can_be() {
    let (_folder, path) = folder();
    let database = Database::open(&path).await.unwrap();
    let mut tx = database.write().await.unwrap();
    for (question, answer) in [
        ("PRAGMA journal_mode", "wal"),
        ("PRAGMA synchronous", "2"),
        ("PRAGMA foreign_keys", "1"),
        ("PRAGMA busy_timeout", "5000"),
    ] {
        let row = sqlx::query(question).fetch_one(&mut *tx).await.unwrap();
        let found: String = sqlx::Row::try_get_unchecked(&row, 0).unwrap();
        assert_eq!(found, answer, "{question}");
    }
}

#[tokio::test]
async fn readers_cannot_write() {
    let (_folder, path) = folder();
    let database = Database::open(&path).await.unwrap();
    let refused = sqlx::query("DELETE FROM workers").execute(database.readers()).await.unwrap_err();
    assert!(refused.to_string().contains("readonly"), "{refused}");
}

#[tokio::test]
async fn a_transaction_that_is_not_committed_changes_nothing() {
    let (_folder, path) = folder();
    let database = Database::open(&path).await.unwrap();
    let mut tx = database.write().await.unwrap();
    sqlx::query("INSERT INTO workers VALUES ('w', 's', 1, 'v', 0, 0)")
        .execute(&mut *tx)
        .await
        .unwrap();
    assert_eq!(n_workers(&database).await, 0);
    drop(tx);
    add_worker(&database).await;
    assert_eq!(n_workers(&database).await, 1);
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_left_as_it_is() {
    let (_folder, path) = folder();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "this is not a database, whatever its name says").unwrap();
    let refused = Database::open(&path).await.unwrap_err();
    assert!(matches!(refused, DatabaseError::Open { .. } | DatabaseError::Damaged { .. }));
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("this is not"));
    // One that was a database once.
    std::fs::remove_file(&path).unwrap();
    let database = Database::open(&path).await.unwrap();
    add_worker(&database).await;
    database.close().await.unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let n = bytes.len();
    bytes[4096..n - 100].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let refused = Database::open(&path).await.unwrap_err();
    assert!(matches!(refused, DatabaseError::Damaged { .. }), "{refused:?}");
    assert!(refused.to_string().contains("restore a backup"), "{refused}");
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused() {
    let (_folder, path) = folder();
    let database = Database::open(&path).await.unwrap();
    let mut tx = database.write().await.unwrap();
    sqlx::raw_sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (9000, 'from the future', TRUE, x'00', 0)",
    )
    .execute(&mut *tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
    database.close().await.unwrap();
    let refused = Database::open(&path).await.unwrap_err();
    assert!(matches!(refused, DatabaseError::Newer { version: 9000, .. }), "{refused:?}");
}

#[test]
fn a_statement_says_what_its_server_understands() {
    let text = "SELECT id FROM jobs LIMIT 1 {skip}";
    assert_eq!(Dialect::sqlite().say(text).as_str(), "SELECT id FROM jobs LIMIT 1 ");
    assert_eq!(
        Dialect::postgresql().say(text).as_str(),
        "SELECT id FROM jobs LIMIT 1 FOR UPDATE SKIP LOCKED"
    );
}
