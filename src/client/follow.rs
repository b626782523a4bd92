//! Following a run: its events in their order, each once, over whatever happens to the connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use reqwest::Method;
use serde_json::Value;
use sse_stream::{Sse, SseByteStream};
use tokio::time::Instant;

use super::connect::Client;
use super::error::ClientError;
use crate::run::RunName;

/// How long nothing may come: the server gives a sign of life every 10 s.
const SILENCE_LIMIT: Duration = Duration::from_secs(35);

/// How long the server may be away before the run is left alone: long enough for a restart that
/// first lets runs end.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// The wait before the first new connection, doubled with each that brings nothing.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// The longest of these waits.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Largest event, in bytes: the longest line that the server keeps, and what frames it.
const MAX_EVENT_BYTES: usize = 17 << 20;

/// One event of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its number; an end that no worker told of has none.
    pub seq: Option<u64>,
    /// Whether it is the last one.
    pub is_last: bool,
    /// The event, `docs/events.md`.
    pub json: Value,
}

/// A run that is followed.
pub struct Follow<'c> {
    client: &'c Client,
    run: RunName,
    /// The number of the last event that was given.
    after: u64,
    connection: Option<Connection>,
    /// When something was heard last.
    heard: Instant,
    wait: Duration,
    /// Whether this connection brought nothing yet.
    is_fresh: bool,
    has_ended: bool,
}

type Connection = Pin<Box<dyn Stream<Item = Result<Sse, sse_stream::Error>> + Send>>;

impl std::fmt::Debug for Follow<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follow").field("run", &self.run).field("after", &self.after).finish()
    }
}

impl Client {
    /// Follows a run from the event after `after`.
    #[must_use]
    pub fn follow(&self, run: &RunName, after: u64) -> Follow<'_> {
        Follow {
            client: self,
            run: run.clone(),
            after,
            connection: None,
            heard: Instant::now(),
            wait: FIRST_WAIT,
            is_fresh: true,
            has_ended: false,
        }
    }
}

impl Follow<'_> {
    /// The next event; `None` after the last. To drop the future loses nothing.
    ///
    /// # Errors
    /// [`ClientError`]: the server refuses, or is away for too long.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        while !self.has_ended {
            if self.connection.is_none() {
                self.connect().await?;
            }
            if let Some(event) = self.listen().await?
                && let Some(event) = self.take(event)?
            {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Connects, however often that takes.
    async fn connect(&mut self) -> Result<(), ClientError> {
        loop {
            match self.connect_once().await {
                Ok(connection) => {
                    self.connection = Some(connection);
                    self.is_fresh = true;
                    return Ok(());
                }
                Err(error) if !error.may_pass() => return Err(error),
                Err(error) => {
                    tracing::debug!(error = crate::run::error_chain(&error), "connecting again");
                    self.pause().await?;
                }
            }
        }
    }

    async fn connect_once(&self) -> Result<Connection, ClientError> {
        let (collection, task) = (self.run.collection.as_str(), self.run.task.as_str());
        let path = ["api", "v1", "trajectory", collection, task, self.run.id.as_str(), "events"];
        let mut request =
            self.client.request(Method::GET, &path).header("Accept", "text/event-stream");
        if self.after > 0 {
            request = request.header("Last-Event-ID", self.after);
        }
        let sent = tokio::time::timeout(SILENCE_LIMIT, self.client.send(request)).await;
        let response = sent.unwrap_or_else(|_| Err(self.lost(SILENCE_LIMIT)))?;
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            return Err(self.client.foreign("it sent no stream of events".to_owned()));
        }
        Ok(events(response.bytes_stream()))
    }

    /// Hears the next event of the connection; `None` when the connection has ended.
    async fn listen(&mut self) -> Result<Option<Sse>, ClientError> {
        let Some(connection) = &mut self.connection else { return Ok(None) };
        match tokio::time::timeout(SILENCE_LIMIT, connection.next()).await {
            Ok(Some(Ok(event))) => return Ok(Some(event)),
            Ok(Some(Err(error))) => {
                tracing::debug!(error = crate::run::error_chain(&error), "the stream broke off");
            }
            Ok(None) => {}
            Err(_) => tracing::debug!("the stream has gone silent"),
        }
        self.connection = None;
        self.pause().await?;
        Ok(None)
    }

    /// Puts an event where it belongs: what was given already is left out.
    fn take(&mut self, event: Sse) -> Result<Option<Event>, ClientError> {
        let Some(data) = event.data else { return Ok(None) };
        let Ok(json) = serde_json::from_str::<Value>(&data) else {
            return Err(self.client.foreign("it sent an event that is no JSON".to_owned()));
        };
        let seq = event.id.and_then(|id| id.parse::<u64>().ok());
        let expected = self.after + 1;
        if let Some(got) = seq.filter(|seq| *seq > expected) {
            if self.is_fresh {
                return Err(ClientError::Gap { expected, got });
            }
            // What lies between is on the server: a new connection brings it.
            self.connection = None;
            return Ok(None);
        }
        (self.heard, self.wait, self.is_fresh) = (Instant::now(), FIRST_WAIT, false);
        if seq.is_some_and(|seq| seq < expected) {
            return Ok(None);
        }
        self.after = seq.unwrap_or(self.after);
        let is_last = json["last"] == true;
        self.has_ended = is_last;
        Ok(Some(Event { seq, is_last, json }))
    }

    /// Waits before the next connection, unless the patience is at its end.
    async fn pause(&mut self) -> Result<(), ClientError> {
        if self.heard.elapsed() > PATIENCE {
            return Err(self.lost(PATIENCE));
        }
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(MAX_WAIT);
        Ok(())
    }

    fn lost(&self, limit: Duration) -> ClientError {
        ClientError::Lost { server: self.client.server().to_owned(), limit_s: limit.as_secs() }
    }
}

/// The stream's events, none larger than the limit.
fn events<S>(bytes: S) -> Connection
where
    S: Stream<Item = reqwest::Result<bytes::Bytes>> + Send + 'static,
{
    let n_bytes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&n_bytes);
    let bounded = bytes.map_err(std::io::Error::other).and_then(move |chunk| {
        let so_far = counted.fetch_add(chunk.len(), Ordering::Relaxed) + chunk.len();
        let is_too_large = so_far > MAX_EVENT_BYTES;
        std::future::ready(if is_too_large {
            Err(std::io::Error::other("an event is larger than any that a run has"))
        } else {
            Ok(chunk)
        })
    });
    Box::pin(SseByteStream::new(bounded).inspect(move |_| n_bytes.store(0, Ordering::Relaxed)))
}
