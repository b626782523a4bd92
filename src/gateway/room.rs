//! The room that the bodies of all requests on their way share: an agent can open hundreds of
//! connections, and the gateway's memory is the machine's.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::refusal::Refusal;

/// Largest request, in bytes. The agent CLI sends its whole context each time; the services take 32
/// MiB.
const MAX_REQUEST_BYTES: usize = 64 << 20;

/// Room for all bodies, in bytes: two of the largest, or more of usual size than a run has
/// connections.
const ROOM_BYTES: usize = 2 * MAX_REQUEST_BYTES;

/// How long a request waits for room. The others' bodies go on within moments where the service
/// takes them; the agent CLI comes again.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// From a request's head, or from its turn, to the end of its body. The agent is on this machine.
const BODY_LIMIT: Duration = Duration::from_secs(120);

/// In how large parts room is given away, in bytes: small enough that small requests take little.
const PART_BYTES: usize = 4 << 10;

/// Room for bodies.
#[derive(Debug)]
pub(super) struct Room {
    parts: Arc<Semaphore>,
}

/// A body, and the room that it takes.
#[derive(Debug)]
pub(super) struct Carried {
    bytes: Vec<u8>,
    _parts: OwnedSemaphorePermit,
}

impl Default for Room {
    fn default() -> Self {
        Self::of(ROOM_BYTES)
    }
}

impl Room {
    fn of(n_bytes: usize) -> Self {
        Self { parts: Arc::new(Semaphore::new(n_bytes.div_ceil(PART_BYTES))) }
    }

    /// Reads a body to its end, once there is room for all of it.
    pub(super) async fn whole(&self, body: Body) -> Result<Carried, Refusal> {
        let announced = body.size_hint().upper().map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        // What does not say how long it is can be as long as any.
        let n_bytes = announced.unwrap_or(MAX_REQUEST_BYTES);
        if n_bytes > MAX_REQUEST_BYTES {
            return Err(TOO_LARGE);
        }
        let n_parts = u32::try_from(n_bytes.div_ceil(PART_BYTES)).unwrap_or(u32::MAX);
        let parts = timeout(WAIT_LIMIT, Arc::clone(&self.parts).acquire_many_owned(n_parts)).await;
        let Ok(Ok(parts)) = parts else { return Err(Refusal::Crowded) };
        let read = timeout(BODY_LIMIT, read(body, announced.unwrap_or_default())).await;
        let bytes = read.unwrap_or(Err(Refusal::Body("the request did not come in time")))?;
        Ok(Carried { bytes, _parts: parts })
    }
}

const TOO_LARGE: Refusal = Refusal::Body("the request is larger than 64 MiB");

async fn read(body: Body, n_bytes: usize) -> Result<Vec<u8>, Refusal> {
    let mut whole = Vec::with_capacity(n_bytes);
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| Refusal::Body("the request broke off"))?;
        if whole.len() + piece.len() > MAX_REQUEST_BYTES {
            return Err(TOO_LARGE);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}

impl Carried {
    /// Another body in the place of this one.
    pub(super) fn replaced(self, bytes: Vec<u8>) -> Self {
        Self { bytes, ..self }
    }

    /// The body as it is sent. Its room is free again when nobody has it any more.
    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Carried {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body that does not say how long it is.
    fn stream(text: &'static str) -> Body {
        Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(text)]))
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_waits_for_it_and_then_is_told_to_come_again() {
        let room = Room::of(3 * PART_BYTES);
        let first = room.whole(Body::from(vec![1; 2 * PART_BYTES])).await.unwrap();
        let sent = first.replaced(b"masked".to_vec()).into_bytes();
        assert_eq!(room.whole(Body::empty()).await.unwrap().as_ref(), b"");
        let second = || room.whole(Body::from(vec![2; 2 * PART_BYTES]));
        assert_eq!(second().await.unwrap_err(), Refusal::Crowded);
        let clone = sent.clone();
        drop(sent);
        assert_eq!(second().await.unwrap_err(), Refusal::Crowded);
        let (read, ()) = tokio::join!(second(), async { drop(clone) });
        assert_eq!(read.unwrap().as_ref(), [2; 2 * PART_BYTES]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_says_no_length_takes_the_room_of_the_longest_and_what_says_too_much_none() {
        assert_eq!(Room::of(PART_BYTES).whole(stream("a")).await.unwrap_err(), Refusal::Crowded);
        let room = Room::default();
        assert_eq!(room.whole(stream("a")).await.unwrap().as_ref(), b"a");
        let large = Body::from(vec![0; MAX_REQUEST_BYTES + 1]);
        assert_eq!(room.whole(large).await.unwrap_err(), TOO_LARGE);
    }
}
