//! Sends a reply and writes into the ledger how far it came.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;

use super::events::Frame;
use super::ledger::Delivery;
use super::reply::{Ending, Reply};
use super::server::Shared;

/// Between the last bytes of a reply and its cut, so that the client has read them: one that sees
/// the cut together with the bytes before it drops them, and the cut would be somewhere else.
const FLUSH_PAUSE: Duration = Duration::from_secs(1);

/// The script wants the connection closed here. Hyper closes it on any error.
#[derive(Debug, thiserror::Error)]
#[error("the script cuts the connection")]
pub(super) struct CutByScript;

/// Follows one reply. Dropped before its end, it says that the reply was abandoned.
#[derive(Debug)]
pub(super) struct Courier {
    shared: Arc<Shared>,
    entry: usize,
    has_ended: bool,
}

impl Courier {
    pub(super) fn new(shared: Arc<Shared>, entry: usize) -> Self {
        Self { shared, entry, has_ended: false }
    }

    pub(super) fn end(&mut self, delivery: Delivery) {
        self.has_ended = true;
        let mut ledger = self.shared.ledger();
        if let Some(entry) = ledger.entry(self.entry) {
            entry.delivery = delivery;
        }
    }

    /// The frames of a reply as a body. A reply is complete when its last frame is handed over:
    /// nothing is asked of a body whose length is known once it is reached.
    pub(super) fn body(self, reply: Reply) -> Body {
        let frames = reply.frames.into_iter().filter(|frame| !frame.bytes.is_empty());
        let frames: Vec<Frame> = frames.collect();
        let mut parcel = Parcel { courier: self, frames: frames.into_iter(), ending: reply.ending };
        if parcel.frames.len() == 0 && parcel.ending != Ending::Cut {
            parcel.courier.end(parcel.ending.delivery());
            return Body::empty();
        }
        Body::from_stream(stream::unfold(parcel, Parcel::next))
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        if !self.has_ended {
            self.end(Delivery::Abandoned);
        }
    }
}

impl Ending {
    fn delivery(self) -> Delivery {
        match self {
            Self::Whole => Delivery::Complete,
            Self::ErrorEvent => Delivery::Failed,
            Self::Cut => Delivery::Cut,
        }
    }
}

/// What is left to send.
struct Parcel {
    courier: Courier,
    frames: std::vec::IntoIter<Frame>,
    ending: Ending,
}

impl Parcel {
    async fn next(mut self) -> Option<(Result<Bytes, CutByScript>, Self)> {
        let Some(frame) = self.frames.next() else {
            if self.ending != Ending::Cut || self.courier.has_ended {
                return None;
            }
            tokio::time::sleep(FLUSH_PAUSE).await;
            self.courier.end(Delivery::Cut);
            return Some((Err(CutByScript), self));
        };
        if !frame.pause.is_zero() {
            tokio::time::sleep(frame.pause).await;
        }
        if self.frames.len() == 0 && self.ending != Ending::Cut {
            self.courier.end(self.ending.delivery());
        }
        Some((Ok(frame.bytes), self))
    }
}
