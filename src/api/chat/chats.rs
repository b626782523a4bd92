//! The chats that go on: how many at a time, and how they end with the server.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use bytes::BytesMut;
use futures_util::StreamExt as _;
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

/// How long a request waits for a place.
const PLACE_WAIT: Duration = Duration::from_secs(5);

/// When to come again, in seconds, after the places were taken. Answers take seconds.
const RETRY_AFTER: u64 = 2;

/// How long answers may go on after the stop was asked for: a little less than their connections, so
/// that the record knows who cut them.
const GRACE: Duration = Duration::from_secs(8);

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
    of_collection: Mutex<HashMap<Slug, Arc<Semaphore>>>,
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
            of_collection: Mutex::default(),
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

    /// Reads a body while there is room for it. Many large ones at a time must not fill the memory.
    pub(super) async fn read(
        &self,
        body: Body,
        max_bytes: usize,
    ) -> Result<(Bytes, Room), ApiError> {
        let too_large =
            || ApiError::TooLarge(format!("The request's body is larger than {max_bytes} bytes"));
        let mut stream = body.into_data_stream();
        let mut whole = BytesMut::new();
        let mut room = self.room(0)?;
        while let Some(piece) = stream.next().await {
            let piece = piece
                .map_err(|_| ApiError::BadRequest("The request's body broke off".to_owned()))?;
            if whole.len() + piece.len() > max_bytes {
                return Err(too_large());
            }
            let n_kib = (whole.len() + piece.len()).div_ceil(1024);
            room.0.merge(self.room(n_kib - room.0.num_permits())?.0);
            whole.extend_from_slice(&piece);
        }
        Ok((whole.freeze(), room))
    }

    /// Room for so many KiB.
    fn room(&self, n_kib: usize) -> Result<Room, ApiError> {
        let n_kib = u32::try_from(n_kib).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.bodies).try_acquire_many_owned(n_kib);
        room.map(Room).map_err(|_| {
            full("The chat requests that go on are large already: try again when one has ended")
        })
    }

    /// A place for one chat, now or soon: those that are being recorded will be free.
    pub(super) async fn place(&self, collection: &Slug) -> Result<Place, ApiError> {
        let own = self.of_collection(collection);
        let both = async {
            let own = own.acquire_owned().await;
            // In this order: whoever waits for its collection holds nothing of the others.
            (own, Arc::clone(&self.places).acquire_owned().await)
        };
        match tokio::time::timeout(PLACE_WAIT, both).await {
            Ok((Ok(own), Ok(place))) => Ok(Place { _own: own, _place: place }),
            Ok(_) | Err(_) => Err(full(format!(
                "{MAX_OF_ONE} chats of this collection or {MAX_AT_ONCE} of all go on already: try \
                 again when one has ended"
            ))),
        }
    }

    /// The places of one collection. Those of collections without a chat are forgotten.
    fn of_collection(&self, collection: &Slug) -> Arc<Semaphore> {
        let mut known = self.of_collection.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, places| Arc::strong_count(places) > 1);
        let places =
            known.entry(collection.clone()).or_insert_with(|| Arc::new(Semaphore::new(MAX_OF_ONE)));
        Arc::clone(places)
    }
}

/// The place of one chat; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _own: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

/// Room for the body of one request; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Room(OwnedSemaphorePermit);

fn full(detail: impl Into<String>) -> ApiError {
    ApiError::TooMany { detail: detail.into(), retry_after: RETRY_AFTER }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slug(name: &str) -> Slug {
        Slug::new(name).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn one_collection_cannot_keep_the_others_out_and_one_that_waits_gets_a_free_place() {
        let chats = Chats::new(Reach::Public);
        let mut taken = Vec::new();
        for _ in 0..MAX_OF_ONE {
            taken.push(chats.place(&slug("a")).await.unwrap());
        }
        assert!(chats.place(&slug("a")).await.is_err());
        let other = chats.place(&slug("b")).await.unwrap();
        let own = slug("a");
        let (_, waited) = tokio::join!(
            async {
                tokio::time::sleep(PLACE_WAIT / 2).await;
                drop(taken.pop());
            },
            chats.place(&own)
        );
        waited.unwrap();
        drop((taken, other));
        drop(chats.of_collection(&slug("c")));
        chats.place(&slug("d")).await.unwrap();
        let known: Vec<Slug> = chats.of_collection.lock().unwrap().keys().cloned().collect();
        assert_eq!(known, [slug("d")], "who has no chat is forgotten");
    }

    #[tokio::test]
    async fn bodies_have_a_limit_each_and_together() {
        let chats = Chats::new(Reach::Public);
        let body = |n: usize| Body::from(vec![b'x'; n]);
        let (bytes, room) = chats.read(body(2000), 2000).await.unwrap();
        assert_eq!((bytes.len(), room.0.num_permits()), (2000, 2));
        assert!(matches!(chats.read(body(2001), 2000).await, Err(ApiError::TooLarge(_))));
        let all = chats.room(MAX_BODIES_KIB - 2).unwrap();
        assert!(matches!(chats.read(body(1), 2000).await, Err(ApiError::TooMany { .. })));
        assert!(chats.read(Body::empty(), 2000).await.is_ok());
        drop(all);
        assert!(chats.read(body(1), 2000).await.is_ok());
    }
}
