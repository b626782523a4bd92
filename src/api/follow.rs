//! Following a run while it goes on: its events as a stream, none lost and none twice.
//!
//! The events' numbers are the stream's ids. A client that comes again with the last number it saw
//! goes on after it: what was stays in the run's file, so there is nothing to miss.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::auth::Caller;
use super::error::{ApiError, Problem};
use super::extract::{Query, Segments};
use super::runs::find;
use super::shares::{Share, Shares};
use crate::queue::Job;
use crate::records::wire_status;
use crate::run::RunName;
use crate::store::{EventReader, StoredEvent};

/// Archives that are sent at a time. Each holds a thread for as long as its client takes, and the
/// runs need those threads too.
const MAX_DOWNLOADS: usize = 32;

/// The number of the last event that a client saw.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Between two signs of life on a quiet stream. Proxies cut what is silent for 30 s or more.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);

/// How long a client may take nothing of what is there for it. It comes again and loses nothing.
const WRITE_LIMIT: Duration = Duration::from_secs(30);

/// How long the last event of a run waits for the queue. It is milliseconds behind, or a process died
/// between the two, and the next one makes good for it.
const END_KNOWN_LIMIT: Duration = Duration::from_secs(2);

/// How often the queue is asked meanwhile.
const END_LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long the streams may take to end. A download ends with its next part.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Frames that wait for the connection: enough to keep it busy, few enough for many streams.
const N_FRAMES: usize = 16;

/// A frame that says nothing.
const SIGN_OF_LIFE: &str = ": keep-alive\n\n";

/// Those who follow runs. They are let go when the daemon stops, and come again.
#[derive(Debug)]
pub struct Followers {
    tracker: TaskTracker,
    stop: CancellationToken,
    streams: Shares<String>,
    waits: Shares<String>,
    downloads: Arc<Semaphore>,
}

impl Followers {
    /// Nobody yet.
    #[must_use]
    pub fn new(max_per_token: usize) -> Self {
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let downloads = Arc::new(Semaphore::new(MAX_DOWNLOADS));
        let (streams, waits) = (Shares::new(max_per_token), Shares::new(max_per_token));
        Self { tracker, stop, streams, waits, downloads }
    }

    /// Lets everybody go, and waits until they have gone.
    pub async fn end(&self) {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(END_LIMIT, self.tracker.wait()).await.is_err() {
            tracing::info!(n_streams = self.tracker.len(), "cut the streams that were left");
        }
    }

    /// Does what blocks for a stream, so that a stop waits for it.
    pub(super) fn track_blocking(&self, work: impl FnOnce() + Send + 'static) {
        drop(self.tracker.spawn_blocking(work));
    }

    /// A place for one archive that is being sent.
    pub(super) fn download(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.downloads).try_acquire_owned().map_err(|_| ApiError::TooMany {
            detail: format!("{MAX_DOWNLOADS} archives are being sent already: try again later"),
            retry_after: HEARTBEAT_EVERY.as_secs(),
        })
    }

    /// Does something for a stream that goes on without its client.
    pub(super) fn track(&self, work: impl Future<Output = ()> + Send + 'static) {
        drop(self.tracker.spawn(work));
    }

    /// A place for one stream of this token.
    pub(super) fn place(&self, caller: &Caller) -> Result<Place, ApiError> {
        self.streams.take(caller.key(), 1).ok_or_else(|| ApiError::TooMany {
            detail: format!(
                "This token follows {} runs already: end one of these streams first",
                self.streams.max_each()
            ),
            retry_after: HEARTBEAT_EVERY.as_secs(),
        })
    }

    /// A place for one request of this token that waits for a run.
    pub(super) fn wait(&self, caller: &Caller) -> Result<Place, ApiError> {
        self.waits.take(caller.key(), 1).ok_or_else(|| ApiError::TooMany {
            detail: format!(
                "This token waits for {} runs already: start runs with `POST /api/v1/run/…` and \
                 look at them, or come again when one has ended",
                self.waits.max_each()
            ),
            retry_after: HEARTBEAT_EVERY.as_secs(),
        })
    }
}

/// The place of one stream or wait; it is free again when this is dropped.
pub(super) type Place = Share<String>;

/// How a client is told of a run: what it gets of each event.
pub(super) trait Telling: Send + Sync + 'static {
    /// After which event the reading begins.
    fn after(&self) -> u64;
    /// What it gets at once.
    fn opening(&mut self) -> String;
    /// What it gets on a quiet stream.
    fn sign_of_life(&self) -> &'static str;
    /// What it gets of an event; nothing where that is empty.
    fn event(&mut self, event: &StoredEvent) -> String;
    /// What it gets where a run has ended and no event told of it.
    fn ended(&mut self, job: &Job) -> String;
    /// What it gets where the stream is cut and the run goes on.
    fn cut(&mut self) -> String;
    /// Whether a client that goes away stops the run.
    fn stops_the_run(&self) -> bool;
}

/// The events as they are.
struct Plain {
    after: u64,
}

impl Telling for Plain {
    fn after(&self) -> u64 {
        self.after
    }

    fn opening(&mut self) -> String {
        SIGN_OF_LIFE.to_owned()
    }

    fn sign_of_life(&self) -> &'static str {
        SIGN_OF_LIFE
    }

    fn event(&mut self, event: &StoredEvent) -> String {
        format!("id: {}\ndata: {}\n\n", event.seq, event.json)
    }

    /// A run that never began, or whose worker was lost, has no last event, so that its end is told
    /// without a number.
    fn ended(&mut self, job: &Job) -> String {
        let end = json!({ "kind": "finished", "status": wire_status(job.status), "last": true });
        format!("data: {end}\n\n")
    }

    fn cut(&mut self) -> String {
        String::new()
    }

    fn stops_the_run(&self) -> bool {
        false
    }
}

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(events))
}

/// Where to go on.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Wish {
    /// The number of the last event that was seen; the header `Last-Event-ID` wins.
    after: Option<u64>,
}

/// Streams the run's events: those that were, then those that come, until the run has ended. Each
/// has its number as its id; `Last-Event-ID` or `?after=` goes on after one.
#[utoipa::path(get, path = "/api/v1/trajectory/{collection}/{task}/{id}/events", tag = "runs",
    params(Wish),
    responses((status = 200, description = "Server-sent events.", content_type = "text/event-stream"),
        (status = 404, description = "There is no such run."),
        (status = 429, description = "The token follows too many runs.")))]
async fn events(
    State(api): State<Shared>,
    caller: Caller,
    Segments(path): Segments<(String, String, String)>,
    Query(wish): Query<Wish>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let after = after(&headers, wish.after)?;
    let job = find(&api, &path).await?;
    let place = api.runs.followers.place(&caller)?;
    Ok(follow(&api, place, job.name, Plain { after }))
}

/// Tells a client of a run until it has ended.
pub(super) fn follow(api: &Shared, place: Place, run: RunName, telling: impl Telling) -> Response {
    let (frames, receiver) = mpsc::channel(N_FRAMES);
    let stream = Stream {
        // Watched before it is read: what is written in between is announced.
        news: api.store.watch(&run),
        reader: Some(api.store.events(&run, telling.after())),
        stop: api.runs.followers.stop.clone(),
        frames,
        run,
        telling,
        _place: place,
    };
    let tracker = &api.runs.followers.tracker;
    drop(tracker.spawn(stream.serve(Arc::clone(api))));
    let body = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|frame| (Ok::<_, Infallible>(frame), receiver))
    });
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-cache"),
        // Proxies that hold answers back would hold back every event.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(body)).into_response()
}

/// The number after which a client goes on: that of the header, else the one that it wrote.
pub(super) fn after(headers: &HeaderMap, wish: Option<u64>) -> Result<u64, ApiError> {
    let Some(header) = headers.get(LAST_EVENT_ID) else { return Ok(wish.unwrap_or(0)) };
    let text = header.to_str().map(str::trim).unwrap_or_default();
    if text.is_empty() {
        return Ok(wish.unwrap_or(0));
    }
    text.parse().map_err(|_| {
        let loc = vec![json!("header"), json!("Last-Event-ID")];
        let msg = "it must be the number of an event, such as 7".to_owned();
        ApiError::Invalid(vec![Problem { loc, msg, kind: "int_parsing" }])
    })
}

/// One stream to one client.
struct Stream<T> {
    run: RunName,
    news: watch::Receiver<u64>,
    /// `None` while a thread reads with it.
    reader: Option<EventReader>,
    frames: mpsc::Sender<Bytes>,
    stop: CancellationToken,
    telling: T,
    _place: Place,
}

/// Why a stream is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// The run has ended, and that was told.
    Told,
    /// The client has gone, or takes nothing.
    Gone,
    /// We stop, or cannot read.
    Cut,
}

impl<T: Telling> Stream<T> {
    async fn serve(mut self, api: Shared) {
        // An early byte, so that the client knows at once that it is heard.
        let opening = self.telling.opening();
        let mut going = self.send(opening).await;
        while going.is_ok() {
            self.news.borrow_and_update();
            going = match self.pass_on(&api).await {
                Ok(0) => self.wait(&api).await,
                other => other.map(|_| ()),
            };
        }
        match going {
            Ok(()) | Err(Over::Told) => {}
            Err(Over::Cut) => {
                let last = self.telling.cut();
                if !last.is_empty() {
                    // Nobody waits for a client now.
                    let _ = self.frames.try_send(last.into());
                }
            }
            Err(Over::Gone) if self.telling.stops_the_run() => cancel(&api, &self.run).await,
            Err(Over::Gone) => {}
        }
    }

    /// Passes on what is there, and says how much that was.
    async fn pass_on(&mut self, api: &Shared) -> Result<usize, Over> {
        let Some(mut reader) = self.reader.take() else { return Err(Over::Cut) };
        let read = tokio::task::spawn_blocking(move || (reader.read(), reader)).await;
        let Ok((events, reader)) = read else { return Err(Over::Cut) };
        self.reader = Some(reader);
        let events = events.map_err(|error| {
            let error = crate::run::error_chain(&error);
            tracing::error!(run.id = %self.run, error, "could not read the events of a run");
            Over::Cut
        })?;
        for event in &events {
            if event.last {
                self.until_known(api).await;
            }
            let told = self.telling.event(event);
            self.send(told).await?;
            if event.last {
                return Err(Over::Told);
            }
        }
        Ok(events.len())
    }

    /// Waits until the queue knows the end that the last event tells, so that who hears of it and asks
    /// for the run is told the same. A worker writes the event first: nothing may be lost between.
    async fn until_known(&self, api: &Shared) {
        let known = async {
            while let Ok(Some(job)) = api.queue.get(&self.run).await
                && !job.status.is_terminal()
            {
                tokio::time::sleep(END_LOOK_EVERY).await;
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.frames.closed() => {}
            // A queue that is slow to hear of it keeps nobody for long.
            _ = tokio::time::timeout(END_KNOWN_LIMIT, known) => {}
        }
    }

    /// Waits for news; on a quiet stream, sees whether there can be any.
    async fn wait(&mut self, api: &Shared) -> Result<(), Over> {
        match api.queue.get(&self.run).await {
            Ok(Some(job)) if job.status.is_terminal() => return self.end(api, &job).await,
            Ok(Some(_)) | Err(_) => {}
            Ok(None) => return Err(Over::Cut),
        }
        let news = self.news.clone();
        let quiet = tokio::time::sleep(HEARTBEAT_EVERY);
        tokio::select! {
            () = self.stop.cancelled() => Err(Over::Cut),
            () = self.frames.closed() => Err(Over::Gone),
            () = changed(news) => Ok(()),
            () = quiet => self.send(self.telling.sign_of_life().to_owned()).await,
        }
    }

    /// The run has ended. Its last event may have come meanwhile.
    async fn end(&mut self, api: &Shared, job: &Job) -> Result<(), Over> {
        while self.pass_on(api).await? > 0 {}
        let end = self.telling.ended(job);
        self.send(end).await?;
        Err(Over::Told)
    }

    async fn send(&self, frame: String) -> Result<(), Over> {
        if frame.is_empty() {
            return Ok(());
        }
        let sent = self.frames.send_timeout(frame.into(), WRITE_LIMIT);
        tokio::select! {
            () = self.stop.cancelled() => Err(Over::Cut),
            sent = sent => sent.map_err(|_| Over::Gone),
        }
    }
}

/// Stops a run whose client has gone.
pub(super) async fn cancel(api: &Shared, run: &RunName) {
    if let Err(error) = api.queue.cancel(run, (api.clock)()).await {
        let error = crate::run::error_chain(&error);
        tracing::warn!(run.id = %run, error, "a run whose client has gone could not be stopped");
    }
}

/// Ends when there is news. A sender that is gone will tell none.
async fn changed(mut news: watch::Receiver<u64>) {
    if news.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
