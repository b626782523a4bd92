//! The chats that go on: how many at a time, and how they end with the server.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::error::ApiError;
use crate::reach::Reach;
use crate::run::Slug;
use crate::upstream::Upstream;

/// Chats that are passed on at a time. Each has a connection to its client and one to the service.
const MAX_AT_ONCE: usize = 512;

/// Of these, for one collection, so that one cannot keep the others out.
const MAX_OF_ONE: usize = 256;

/// What the bodies of all chat requests may have together, in KiB. Each is kept until it is recorded.
const MAX_BODIES_KIB: usize = 512 << 10;

/// When to come again, in seconds, after the places were taken. Answers take seconds.
const RETRY_AFTER: u64 = 2;

/// How long answers may go on after the stop was asked for, as other answers may.
const GRACE: Duration = Duration::from_secs(10);

/// How long what was cut then may take to be recorded.
const RECORD_LIMIT: Duration = Duration::from_secs(5);

/// The chats that are passed on to models.
#[derive(Debug)]
pub struct Chats {
    pub(super) upstream: Upstream,
    pub(super) stop: CancellationToken,
    tracker: TaskTracker,
    places: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    of_collection: Arc<Mutex<HashMap<Slug, usize>>>,
}

impl Chats {
    /// None yet. `reach` says where the addresses of model services may lead.
    #[must_use]
    pub fn new(reach: Reach) -> Self {
        Self {
            upstream: Upstream::new(reach),
            stop: CancellationToken::new(),
            tracker: TaskTracker::new(),
            places: Arc::new(Semaphore::new(MAX_AT_ONCE)),
            bodies: Arc::new(Semaphore::new(MAX_BODIES_KIB)),
            of_collection: Arc::default(),
        }
    }

    /// Waits for the chats that go on, cuts those that take too long, and waits for their records.
    pub async fn end(&self) {
        self.tracker.close();
        if tokio::time::timeout(GRACE, self.tracker.wait()).await.is_ok() {
            return;
        }
        tracing::info!(n_chats = self.tracker.len(), "cut the chats that were left");
        self.stop.cancel();
        if tokio::time::timeout(RECORD_LIMIT, self.tracker.wait()).await.is_err() {
            tracing::error!(n_chats = self.tracker.len(), "chats were not recorded in time");
        }
    }

    /// Lets a chat go on after its client has gone; a stop waits for it.
    pub(super) fn track(&self, chat: impl Future<Output = ()> + Send + 'static) {
        drop(self.tracker.spawn(chat));
    }

    /// Room for a body of so many bytes.
    pub(super) fn room(&self, n_bytes: usize) -> Result<Room, ApiError> {
        let n_kib = u32::try_from(n_bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.bodies).try_acquire_many_owned(n_kib);
        room.map(|room| Room { _room: room }).map_err(|_| {
            full("the chat requests that go on are large already: try again when one has ended")
        })
    }

    /// A place for one chat.
    pub(super) fn place(&self, collection: &Slug) -> Result<Place, ApiError> {
        let mut counts = self.of_collection.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.get(collection).copied().unwrap_or(0) >= MAX_OF_ONE {
            let detail = format!(
                "{MAX_OF_ONE} chats of this collection go on already: try again when one has ended"
            );
            return Err(full(detail));
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            full(format!("{MAX_AT_ONCE} chats go on already: try again when one has ended"))
        })?;
        *counts.entry(collection.clone()).or_default() += 1;
        let of_collection = Arc::clone(&self.of_collection);
        Ok(Place { collection: collection.clone(), of_collection, _place: place })
    }
}

/// The place of one chat; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    collection: Slug,
    of_collection: Arc<Mutex<HashMap<Slug, usize>>>,
    _place: OwnedSemaphorePermit,
}

/// Room for the body of one request; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Room {
    _room: OwnedSemaphorePermit,
}

fn full(detail: impl Into<String>) -> ApiError {
    ApiError::TooMany { detail: detail.into(), retry_after: RETRY_AFTER }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.of_collection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.collection) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.collection);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_collection_cannot_keep_the_others_out_and_large_bodies_have_a_limit() {
        let chats = Chats::new(Reach::Public);
        let slug = |name: &str| Slug::new(name).unwrap();
        let taken: Vec<Place> = (0..MAX_OF_ONE).map(|_| chats.place(&slug("a")).unwrap()).collect();
        assert!(chats.place(&slug("a")).is_err());
        let other = chats.place(&slug("b")).unwrap();
        drop((taken, other));
        assert!(chats.place(&slug("a")).is_ok());
        assert!(chats.of_collection.lock().unwrap().is_empty());
        let all = chats.room(MAX_BODIES_KIB * 1024).unwrap();
        assert!(chats.room(1).is_err() && chats.room(0).is_ok(), "no memory is left");
        drop(all);
        assert!(chats.room(1).is_ok());
    }
}
