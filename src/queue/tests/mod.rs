//! The rules of the queue, shown on real files.

mod rules;

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
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("runbookd.db")).await.unwrap();
        Self { queue: Queue::new(database), _folder: folder }
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
