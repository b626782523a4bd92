//! What nobody needs any more goes: old uploads, old deliveries of webhooks.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, CatalogError};
use crate::run::error_chain;
use crate::store::{Store, StoreError};

/// How often it is looked for what is too old. What is kept for days need not go to the minute.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// Most uploads that one look removes, so that it ends; the next one goes on.
const MAX_AT_ONCE: usize = 10_000;

/// Removes what is too old.
#[derive(Debug, Clone)]
pub struct Housekeeping {
    /// Where deliveries are, and what names uploads.
    pub catalog: Catalog,
    /// Where uploads are.
    pub store: Store,
    /// How long uploads are kept; `None` keeps them for ever.
    pub keep_uploads: Option<Duration>,
    /// How long deliveries are kept that have ended; `None` keeps them for ever.
    pub keep_deliveries: Option<Duration>,
}

/// Something that is too old could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum HousekeepingError {
    /// The catalog failed.
    #[error("could not ask the catalog for what is old")]
    Catalog(#[from] CatalogError),
    /// The disk failed.
    #[error("could not remove old uploads")]
    Store(#[from] StoreError),
    /// The thread that looked at the disk is gone.
    #[error("removing old uploads broke off")]
    Broken(#[from] tokio::task::JoinError),
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Uploaded files.
    pub n_uploads: u64,
    /// Deliveries.
    pub n_deliveries: u64,
}

impl Housekeeping {
    /// Looks every hour until `drain` is cancelled.
    pub async fn run(&self, clock: fn() -> Timestamp, drain: CancellationToken) {
        loop {
            match self.once(clock()).await {
                Ok(removed) if removed == Removed::default() => {}
                Ok(Removed { n_uploads, n_deliveries }) => {
                    tracing::info!(n_uploads, n_deliveries, "removed what was too old");
                }
                Err(e) => tracing::warn!(error = %error_chain(&e), "what is old stays for now"),
            }
            tokio::select! {
                () = drain.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Removes what is too old at `now`.
    ///
    /// # Errors
    /// [`HousekeepingError`]; what was removed until then is gone.
    pub async fn once(&self, now: Timestamp) -> Result<Removed, HousekeepingError> {
        let mut removed = Removed::default();
        if let Some(before) = earlier(now, self.keep_deliveries) {
            removed.n_deliveries = self.catalog.prune_deliveries(before).await?;
        }
        if let Some(before) = earlier(now, self.keep_uploads) {
            removed.n_uploads = self.remove_uploads(before).await?;
        }
        Ok(removed)
    }

    /// Removes the uploads that came before, but for those that a task or a routine names. A run that
    /// waits has its own copy of what it was given.
    async fn remove_uploads(&self, before: Timestamp) -> Result<u64, HousekeepingError> {
        let store = self.store.clone();
        let old = blocking(move || store.uploads_before(before, MAX_AT_ONCE)).await?;
        let mut n_removed = 0;
        for path in old {
            let Some(digits) = path.upload_digits() else { continue };
            if self.catalog.is_named(path.collection(), digits).await? {
                continue;
            }
            let store = self.store.clone();
            blocking(move || store.remove_upload(&path)).await?;
            n_removed += 1;
        }
        Ok(n_removed)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, HousekeepingError> {
    Ok(tokio::task::spawn_blocking(work).await??)
}

/// The moment so long before another; `None` where there is no such length, or no such moment.
fn earlier(now: Timestamp, by: Option<Duration>) -> Option<Timestamp> {
    now.checked_sub(by?).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::catalog::{DeliveryOutcome, NewDelivery, NewTask};
    use crate::database::{Database, Vault};
    use crate::run::{RunId, RunName, Slug};
    use crate::store::StoragePath;
    use crate::workflow::Workflow;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn slug(name: &str) -> Slug {
        Slug::new(name).unwrap()
    }

    fn upload(store: &Store, batch: &str) -> StoragePath {
        let mut upload = store.receive(&slug("team"), &slug(batch), "a.csv").unwrap();
        upload.append(b"1").unwrap();
        StoragePath::parse(&upload.keep().unwrap().path).unwrap()
    }

    fn days_after(now: Timestamp, n: u32) -> Timestamp {
        now.checked_add(DAY * n).unwrap()
    }

    #[tokio::test]
    async fn what_is_old_goes_unless_somebody_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("db")).await.unwrap();
        let vault = Arc::new(Vault::load(&folder.path().join("key")).unwrap());
        let catalog = Catalog::new(database, vault);
        let store = Store::open(&folder.path().join("results")).unwrap();
        // Files have the time of the disk that they are on.
        let written = std::fs::metadata(folder.path()).unwrap().modified().unwrap();
        let now = Timestamp::try_from(written).unwrap();
        let team = catalog.create_collection("team", None, now).await.unwrap().name;
        let (free, named) = (upload(&store, "0123456789ab"), upload(&store, "aaaaaaaaaaaa"));
        let workflow = json!({
            "init_params": { "instruction": "# Hello\n", "file_paths": [named.to_string()] },
            "step_configs": { "run": { "activity": "runbook", "instruction_path": "init_params.instruction" } },
            "steps": ["run"],
        });
        let task = NewTask::new("hello", Workflow::parse(&workflow).unwrap());
        catalog.create_task(&team, task, now).await.unwrap();
        let run = RunName { collection: team, task: slug("hello"), id: RunId::new("x").unwrap() };
        let url = "https://receiver.example/hook".to_owned();
        let new = NewDelivery { run, url, secret: None, body: "{}".to_owned() };
        catalog.enqueue_delivery(&new, now).await.unwrap();
        let delivery = catalog.claim_delivery(now).await.unwrap().unwrap();
        catalog.finish_delivery(&delivery, DeliveryOutcome::Delivered, now).await.unwrap();

        let keeps = |uploads, deliveries| Housekeeping {
            catalog: catalog.clone(),
            store: store.clone(),
            keep_uploads: uploads,
            keep_deliveries: deliveries,
        };
        let removed = |n_uploads, n_deliveries| Removed { n_uploads, n_deliveries };
        let both = keeps(Some(DAY * 30), Some(DAY * 10));
        assert_eq!(keeps(None, None).once(days_after(now, 999)).await.unwrap(), removed(0, 0));
        assert_eq!(both.once(days_after(now, 9)).await.unwrap(), removed(0, 0));
        assert_eq!(both.once(days_after(now, 11)).await.unwrap(), removed(0, 1));
        assert_eq!(both.once(days_after(now, 29)).await.unwrap(), removed(0, 0));
        assert_eq!(both.once(days_after(now, 31)).await.unwrap(), removed(1, 0));
        let is_there = |path| store.open_file(path).unwrap().is_some();
        assert_eq!((is_there(&free), is_there(&named)), (false, true));
    }
}
