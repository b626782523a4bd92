//! What requests hold in memory at the same time: bodies, what is made of them, pages of lists.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::response::Response;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Shared;
use super::auth::Caller;
use super::error::ApiError;
use super::shares::{Share, Shares};

/// All of it together, in KiB. A small machine has 2 GiB, and the runs want most of it.
const ALL_KIB: usize = 256 << 10;

/// The most for one token, in KiB: what is left is the others'.
const EACH_KIB: usize = ALL_KIB / 2;

/// How long a request waits for others to end.
const WAIT_LIMIT: Duration = Duration::from_secs(5);

/// Smaller answers are not counted while they are sent, in bytes.
const LARGE_ANSWER_BYTES: u64 = 256 << 10;

/// The least that a body is counted by, in bytes.
const STEP_BYTES: usize = 16 << 10;

/// Largest body of a path, where it is not the one of all JSON.
#[derive(Debug, Clone, Copy)]
pub(super) struct MaxBody(pub(super) usize);

/// The memory that requests have.
#[derive(Debug)]
pub struct Memory {
    all: Arc<Semaphore>,
    tokens: Shares<String>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(ALL_KIB)), tokens: Shares::new(EACH_KIB) }
    }
}

/// What one request holds. It is given back when the last clone goes: the request's end, or the end
/// of its answer.
#[derive(Debug, Clone)]
pub(super) struct Held(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    memory: Arc<Memory>,
    token: String,
    parts: Mutex<Vec<(OwnedSemaphorePermit, Share<String>)>>,
}

impl Held {
    /// Nothing yet.
    pub(super) fn nothing(memory: &Arc<Memory>, caller: Option<&Caller>) -> Self {
        let token = caller.map(Caller::key).unwrap_or_default();
        let (memory, parts) = (Arc::clone(memory), Mutex::default());
        Self(Arc::new(Inner { memory, token, parts }))
    }

    /// So much more, in bytes. Waits a little for others to end.
    pub(super) async fn grow(&self, n_bytes: usize) -> Result<(), ApiError> {
        let n_kib = n_bytes.div_ceil(1 << 10).min(EACH_KIB);
        let wanted = u32::try_from(n_kib).unwrap_or(u32::MAX);
        let memory = &self.0.memory;
        let share = memory.tokens.take(self.0.token.clone(), n_kib).ok_or_else(|| {
            too_much("The requests of this token hold as much memory as one may have")
        })?;
        let permit = Arc::clone(&memory.all).acquire_many_owned(wanted);
        let permit = match tokio::time::timeout(WAIT_LIMIT, permit).await {
            Ok(permit) => permit.expect("it is never closed"),
            Err(_) => {
                return Err(too_much("All requests together hold as much memory as they may"));
            }
        };
        self.0.parts.lock().unwrap_or_else(PoisonError::into_inner).push((permit, share));
        Ok(())
    }

    /// The answer. Where it is large, it holds as much as it takes until it is sent.
    pub(super) fn until_sent(self, answer: Response) -> Response {
        let n_bytes = answer.body().size_hint().exact();
        let Some(n_bytes) = n_bytes.filter(|n| *n >= LARGE_ANSWER_BYTES) else { return answer };
        self.keep(usize::try_from(n_bytes.div_ceil(1 << 10)).unwrap_or(usize::MAX));
        answer.map(|body| Body::new(Holding { body, _held: self }))
    }

    /// Gives back what is more than so many KiB.
    fn keep(&self, n_kib: usize) {
        let mut parts = self.0.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut n_held = 0;
        parts.retain(|(permit, _)| {
            let is_needed = n_held < n_kib;
            n_held += permit.num_permits();
            is_needed
        });
    }
}

impl FromRequestParts<Shared> for Held {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Shared) -> Result<Self, ApiError> {
        // Before the open paths nobody stands who would let go of it later.
        let held = parts.extensions.get::<Self>().cloned();
        Ok(held.unwrap_or_else(|| Self::nothing(&api.memory, None)))
    }
}

fn too_much(why: &str) -> ApiError {
    ApiError::TooMany {
        detail: format!("{why}: send the request again in a moment, or ask for less at once"),
        retry_after: WAIT_LIMIT.as_secs(),
    }
}

/// The body of a request, counted as it comes. Gives the largest size in the error.
pub(super) async fn read_body(
    request: Request,
    (limit, held): (usize, &Held),
) -> Result<Bytes, ApiError> {
    let limit = request.extensions().get::<MaxBody>().map_or(limit, |own| own.0.min(limit));
    let too_large =
        || ApiError::TooLarge(format!("The request's body is larger than {limit} bytes"));
    let mut body = request.into_body();
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let (mut bytes, mut n_held) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let broken = |_| ApiError::BadRequest("The request's body broke off".to_owned());
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(too_large());
        }
        let n_more = (bytes.len() + data.len()).saturating_sub(n_held);
        if n_more > 0 {
            // A body that comes byte by byte is not counted byte by byte.
            let n_more = n_more.max(STEP_BYTES);
            held.grow(n_more).await?;
            n_held += n_more;
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.into())
}

/// An answer that holds memory until it is sent.
struct Holding {
    body: Body,
    _held: Held,
}

impl HttpBody for Holding {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Scope;

    fn held(memory: &Arc<Memory>, token: &str) -> Held {
        let caller = Caller { scope: Scope::Admin, token: token.to_owned() };
        Held::nothing(memory, Some(&caller))
    }

    #[tokio::test(start_paused = true)]
    async fn one_token_cannot_have_all_and_all_together_cannot_have_more() {
        let memory = Arc::new(Memory::default());
        let (one, other, third) = (held(&memory, "a"), held(&memory, "b"), held(&memory, "c"));
        one.grow(EACH_KIB << 10).await.unwrap();
        let refused = held(&memory, "a").grow(1).await.unwrap_err();
        assert!(refused.to_string().contains("of this token"), "{refused}");
        other.grow(EACH_KIB << 10).await.unwrap();
        let refused = third.grow(1).await.unwrap_err();
        assert!(refused.to_string().contains("All requests together"), "{refused}");
        let (waiting, ()) = tokio::join!(third.grow(1), async { drop(one) });
        waiting.unwrap();
    }

    #[tokio::test]
    async fn a_large_answer_holds_memory_until_it_is_sent() {
        let memory = Arc::new(Memory::default());
        for (n_bytes, expected) in [(LARGE_ANSWER_BYTES as usize, 1), (10, 0)] {
            let held = held(&memory, "a");
            held.grow(1).await.unwrap();
            let answer = held.until_sent(Response::new(Body::from(vec![b'x'; n_bytes])));
            assert_eq!(ALL_KIB - memory.all.available_permits(), expected);
            let size = answer.body().size_hint().exact();
            let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            assert_eq!((size, body.len()), (Some(n_bytes as u64), n_bytes));
            assert_eq!(memory.all.available_permits(), ALL_KIB);
        }
    }
}
