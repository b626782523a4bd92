//! The body of a form on its way to the reader of forms: no faster than it is read, no slower than is
//! borne with, and no header of a part without an end.
//!
//! The reader of forms (multer) takes whatever is there before it looks at it, and looks for the end
//! of a part's header in all of it. Here it gets nothing new until it has looked at what it has.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use futures_util::Stream;
use tokio::time::{Instant, Sleep};

/// How much is handed on at once, in bytes: enough for any header of a part, and few enough for a
/// thousand forms.
const PORTION_BYTES: usize = 16 << 10;

/// Portions within which a part's header must end. The first one may be looked at only after the
/// second was asked for.
const MAX_HEAD_PORTIONS: usize = 2;

/// How long a client may take for [`LEAST_BYTES`].
const PACE_INTERVAL: Duration = Duration::from_secs(60);

/// What a client sends at least in each [`PACE_INTERVAL`], in bytes, unless the form ends: the
/// slowest line in use sends a hundred times as much.
const LEAST_BYTES: usize = 64 << 10;

/// Why a form is not read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DripFault {
    /// The client sends too little.
    Slow,
    /// The header of a part does not end.
    LongHead,
}

impl DripFault {
    /// The fault as a sentence for the client.
    pub(super) fn sentence(self) -> String {
        match self {
            Self::Slow => format!(
                "less than {} KiB were sent in {} s: the request was given up",
                LEAST_BYTES >> 10,
                PACE_INTERVAL.as_secs()
            ),
            Self::LongHead => format!(
                "the header of one part of the form (its name, its file's name) is longer than {} \
                 KiB: shorten it",
                PORTION_BYTES >> 10
            ),
        }
    }
}

/// What the reader is looking for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Head,
    Data,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// What may be handed on now.
    credit: usize,
    /// Portions in this phase.
    n_portions: usize,
    /// Whether the reader has looked at all it has.
    has_looked: bool,
    /// Whether it has anything at all.
    has_some: bool,
    fault: Option<DripFault>,
    /// What came since the pace was measured last.
    n_bytes: usize,
    waited: Duration,
    waits_since: Option<Instant>,
}

/// Tells the stream what its reader does, and why the stream ended.
#[derive(Debug, Clone)]
pub(super) struct Tap(Arc<Mutex<State>>);

impl Tap {
    /// The next part's header is looked for.
    pub(super) fn head(&self) {
        self.begin(Phase::Head);
    }

    /// A part's content is read.
    pub(super) fn data(&self) {
        self.begin(Phase::Data);
    }

    /// Why the stream ended before its time.
    pub(super) fn fault(&self) -> Option<DripFault> {
        self.state().fault
    }

    fn begin(&self, phase: Phase) {
        let mut state = self.state();
        (state.phase, state.n_portions, state.credit) = (phase, 0, 0);
        state.has_looked = !state.has_some;
        // What we did in between was not the client's delay.
        state.waits_since = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of a form, by the portion.
pub(super) struct Drip {
    body: BodyDataStream,
    tap: Tap,
    /// What came and is not handed on yet.
    rest: Bytes,
    patience: Pin<Box<Sleep>>,
}

/// A form's body by the portion, and what steers it.
pub(super) fn drip(body: Body) -> (Drip, Tap) {
    let tap = Tap(Arc::new(Mutex::new(State {
        phase: Phase::Head,
        credit: 0,
        n_portions: 0,
        has_looked: true,
        has_some: false,
        fault: None,
        n_bytes: 0,
        waited: Duration::ZERO,
        waits_since: None,
    })));
    let patience = Box::pin(tokio::time::sleep(PACE_INTERVAL));
    let drip =
        Drip { body: body.into_data_stream(), tap: tap.clone(), rest: Bytes::new(), patience };
    (drip, tap)
}

/// The stream has ended before its time; [`Tap::fault`] says why.
#[derive(Debug, thiserror::Error)]
#[error("the form was not read to its end")]
pub(super) struct CutShort(#[source] Option<axum::Error>);

impl Stream for Drip {
    type Item = Result<Bytes, CutShort>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, CutShort>>> {
        let this = &mut *self;
        let mut state = this.tap.state();
        if state.fault.is_some() {
            return Poll::Ready(None);
        }
        if state.credit == 0 && !state.has_looked {
            // It looks at what it has, and asks again where that is not enough.
            state.has_looked = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if state.credit == 0 {
            if state.phase == Phase::Head && state.n_portions == MAX_HEAD_PORTIONS {
                state.fault = Some(DripFault::LongHead);
                return Poll::Ready(Some(Err(CutShort(None))));
            }
            (state.n_portions, state.credit) = (state.n_portions + 1, PORTION_BYTES);
        }
        if this.rest.is_empty() {
            match Pin::new(&mut this.body).poll_next(context) {
                Poll::Ready(Some(Ok(bytes))) => {
                    state.came(bytes.len());
                    this.rest = bytes;
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Some(Err(CutShort(Some(error)))));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    if state.is_too_slow(this.patience.as_mut(), context) {
                        state.fault = Some(DripFault::Slow);
                        return Poll::Ready(Some(Err(CutShort(None))));
                    }
                    return Poll::Pending;
                }
            }
        }
        let portion = this.rest.split_to(state.credit.min(this.rest.len()));
        state.credit -= portion.len();
        (state.has_some, state.has_looked) = (true, false);
        Poll::Ready(Some(Ok(portion)))
    }
}

impl State {
    /// Something came.
    fn came(&mut self, n_bytes: usize) {
        self.waited += self.waits_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.n_bytes += n_bytes;
        if self.n_bytes >= LEAST_BYTES {
            (self.n_bytes, self.waited) = (0, Duration::ZERO);
        }
    }

    /// Whether the client has used its patience up. Else `context` is woken when it has.
    fn is_too_slow(&mut self, mut patience: Pin<&mut Sleep>, context: &mut Context<'_>) -> bool {
        let since = *self.waits_since.get_or_insert_with(Instant::now);
        let until = since + PACE_INTERVAL.saturating_sub(self.waited);
        if patience.deadline() != until {
            patience.as_mut().reset(until);
        }
        patience.poll(context).is_ready()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::extract::{FromRequest as _, Multipart, Request};
    use proptest::prelude::*;

    use super::*;

    fn request(body: Body) -> (Request, Tap) {
        let (drip, tap) = drip(body);
        let request = Request::post("/")
            .header("content-type", "multipart/form-data; boundary=XX")
            .body(Body::from_stream(drip));
        (request.unwrap(), tap)
    }

    /// Reads a form whole, and says what was in its parts, or why it could not be read.
    async fn read(body: Body) -> Result<Vec<(String, usize)>, Option<DripFault>> {
        let (request, tap) = request(body);
        let mut form = Multipart::from_request(request, &()).await.unwrap();
        let mut parts = Vec::new();
        loop {
            tap.head();
            let Some(mut field) = form.next_field().await.map_err(|_| tap.fault())? else {
                return Ok(parts);
            };
            let (name, mut n_bytes) = (field.name().unwrap_or_default().to_owned(), 0);
            loop {
                tap.data();
                let Some(chunk) = field.chunk().await.map_err(|_| tap.fault())? else { break };
                n_bytes += chunk.len();
            }
            parts.push((name, n_bytes));
        }
    }

    fn written(parts: &[(String, usize)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, n_bytes) in parts {
            let head = format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
            body.extend_from_slice(head.as_bytes());
            body.extend((0..*n_bytes).map(|n| b"\r\n--XY"[n % 6]));
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--XX--\r\n");
        body
    }

    fn in_pieces(bytes: &[u8], size: usize) -> Body {
        let pieces: Vec<_> = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
        Body::from_stream(futures_util::stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn a_form_is_read_whole_however_its_bytes_come(
            sizes in prop::collection::vec(0_usize..70_000, 0..6),
            name in "[a-z]{1,9000}",
            piece in 1_usize..40_000,
        ) {
            let parts: Vec<(String, usize)> =
                sizes.into_iter().map(|n_bytes| (name.clone(), n_bytes)).collect();
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let read = runtime.block_on(read(in_pieces(&written(&parts), piece)));
            prop_assert_eq!(read, Ok(parts));
        }
    }

    #[tokio::test]
    async fn a_header_of_a_part_without_an_end_is_given_up() {
        let long = written(&[("n".repeat(1 << 20), 3)]);
        assert_eq!(read(in_pieces(&long, 9000)).await, Err(Some(DripFault::LongHead)));
        let second = written(&[("a".to_owned(), 3), ("n".repeat(1 << 20), 3)]);
        assert_eq!(read(in_pieces(&second, 400_000)).await, Err(Some(DripFault::LongHead)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_a_little_now_and_then_is_given_up_and_a_slow_one_is_not() {
        let body = |n_bytes: usize| {
            let bytes = written(&[("a".to_owned(), 1 << 20)]);
            let pieces: Vec<_> = bytes.chunks(n_bytes).map(Bytes::copy_from_slice).collect();
            Body::from_stream(futures_util::stream::unfold(
                pieces.into_iter(),
                |mut pieces| async move {
                    tokio::time::sleep(PACE_INTERVAL / 4).await;
                    pieces.next().map(|piece| (Ok::<_, Infallible>(piece), pieces))
                },
            ))
        };
        let began = Instant::now();
        assert_eq!(read(body(LEAST_BYTES / 5)).await, Err(Some(DripFault::Slow)));
        assert_eq!(began.elapsed(), PACE_INTERVAL);
        assert_eq!(read(body(LEAST_BYTES / 3)).await, Ok(vec![("a".to_owned(), 1 << 20)]));
    }
}
