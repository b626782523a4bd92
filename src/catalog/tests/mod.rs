//! The rules of the catalog, shown on real files.

mod environment;
mod names;
mod outbox;
mod routines;
mod tokens;
mod uploads;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::*;
use crate::database::{Database, Vault};
use crate::run::Slug;
use crate::workflow::Workflow;

/// A catalog in a folder of its own.
struct Scene {
    folder: TempDir,
    catalog: Catalog,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalog = open(&folder).await;
        Self { folder, catalog }
    }

    /// A catalog with the collection `team` and in it the task `Report`.
    async fn with_task() -> Self {
        let scene = Self::new().await;
        scene.catalog.create_collection("team", None, at(0)).await.unwrap();
        let task = NewTask::new("Report", workflow());
        scene.catalog.create_task(&team(), task, at(0)).await.unwrap();
        scene
    }

    /// The same files after a restart.
    async fn restart(self) -> Self {
        self.catalog.database.close().await.unwrap();
        let catalog = open(&self.folder).await;
        Self { folder: self.folder, catalog }
    }
}

async fn open(folder: &TempDir) -> Catalog {
    let database = Database::open(&folder.path().join("runbookd.db")).await.unwrap();
    let vault = Vault::load(&folder.path().join("key")).unwrap();
    Catalog::new(database, Arc::new(vault))
}

/// A moment, in seconds after a Friday's midnight (UTC).
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_057_600 + seconds).unwrap()
}

fn team() -> Slug {
    Slug::new("team").unwrap()
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

fn workflow() -> Workflow {
    Workflow::parse(&json!({
        "init_params": {"instruction": "# Report on {{topic}}\n", "topic": "bees"},
        "step_configs": {"run": {"activity": "runbook"}},
        "steps": ["run"],
    }))
    .unwrap()
}

/// What a refusal says.
fn said<T: std::fmt::Debug>(result: Result<T, CatalogError>) -> String {
    result.unwrap_err().to_string()
}

const EVERYTHING: Page = Page { skip: 0, limit: 1000 };
