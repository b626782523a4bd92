//! The rules of the queue, shown on real files.

mod chaos;
mod concurrency;
mod crash;
mod model;
mod rules;
mod steps;

use std::collections::BTreeMap;

use jiff::Timestamp;
use tempfile::TempDir;
use uuid::Uuid;

use crate::database::Database;
use crate::run::{RunId, RunName, Slug};

use super::*;

/// A moment, in milliseconds after a fixed one.
fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(1_800_000_000_000 + ms).unwrap()
}

fn slug(name: &str) -> Slug {
    Slug::new(name).unwrap()
}

/// The run with this number.
fn name(collection: &str, n: u32) -> RunName {
    RunName {
        collection: slug(collection),
        task: slug("task"),
        id: RunId::new(&format!("{n:08x}")).unwrap(),
    }
}

fn job(name: RunName) -> NewJob {
    NewJob {
        name,
        spec: "the spec".to_owned(),
        sealed: Some("sealed-made-up".to_owned()),
        session_id: Some("session".to_owned()),
        priority: 0,
        run_at: None,
        max_attempts: 3,
        idempotency: None,
        triggered_by_routine: None,
    }
}

fn worker(n: u32) -> WorkerId {
    WorkerId::new(format!("worker-{n}"))
}

fn limits(per_collection: u32) -> LeaseLimits {
    LeaseLimits { per_collection, exceptions: BTreeMap::new() }
}

fn finish(ended: Ended, total_bytes: u64) -> Finish {
    Finish {
        ended,
        reason: None,
        exit_code: Some(0),
        total_bytes,
        usage: JobUsage::default(),
        duration: None,
    }
}

/// A queue on a file of its own.
struct Scene {
    queue: Queue,
    _folder: TempDir,
}

impl Scene {
    async fn new() -> Self {
        Self::speaking(Dialect::sqlite()).await
    }

    async fn speaking(dialect: Dialect) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("runbookd.db")).await.unwrap();
        Self { queue: Queue::speaking(database, dialect), _folder: folder }
    }

    /// What is left of the secrets of all runs.
    async fn sealed(&self) -> Vec<Option<String>> {
        sqlx::query_scalar("SELECT sealed FROM jobs")
            .fetch_all(self.queue.database.readers())
            .await
            .unwrap()
    }

    /// Says statements to the database that no product code says.
    async fn say(&self, text: &'static str) {
        let mut tx = self.queue.write().await.unwrap();
        sqlx::raw_sql(text).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Submits a run and leases it.
    async fn leased(&self, name: RunName) -> Leased {
        self.queue.submit(job(name), at(0)).await.unwrap();
        self.lease().await.unwrap()
    }

    async fn lease(&self) -> Option<Leased> {
        self.queue.lease(&worker(1), Uuid::new_v4(), &limits(100), at(0)).await.unwrap()
    }
}
