//! Clients that ask for streams at the same time, and what came of it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::common::Outcome;

/// Longest answer that is waited for.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Text of a request, in bytes: an agent sends its whole context each time.
const CONTEXT_BYTES: usize = 48 << 10;

/// What every whole answer has at its end.
const END: &[u8] = b"message_stop";

/// Whom to ask.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    http: reqwest::Client,
    url: String,
    key: String,
    body: String,
}

impl Target {
    /// A service at an address, or behind a socket, which knows the model by this name.
    pub(crate) fn new(
        base_url: &str,
        socket: Option<PathBuf>,
        key: &str,
        model: &str,
    ) -> Outcome<Self> {
        // Only the first call makes a difference.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = reqwest::Client::builder().no_proxy().timeout(ANSWER_LIMIT);
        client = client.tcp_nodelay(true);
        if let Some(socket) = socket {
            client = client.unix_socket(socket);
        }
        let context = "Ten bytes.".repeat(CONTEXT_BYTES / 10);
        let body = json!({
            "model": model, "max_tokens": 1000, "stream": true,
            "messages": [{ "role": "user", "content": context }],
        });
        Ok(Self {
            http: client.build()?,
            url: format!("{base_url}/v1/messages"),
            key: key.to_owned(),
            body: body.to_string(),
        })
    }

    /// Asks once, and gives the time to the first byte of the answer, which must be whole.
    async fn ask(&self) -> Outcome<Duration> {
        let request = self.http.post(&self.url).header("x-api-key", &self.key);
        let request = request.header("anthropic-version", "2023-06-01");
        let request = request.header("content-type", "application/json").body(self.body.clone());
        let begun = Instant::now();
        let mut answer = request.send().await?.error_for_status()?;
        let (mut took, mut text) = (None, Vec::new());
        while let Some(chunk) = answer.chunk().await? {
            took.get_or_insert_with(|| begun.elapsed());
            text.extend_from_slice(&chunk);
        }
        let is_whole = memchr::memmem::find(&text, END).is_some();
        match took {
            Some(took) if is_whole => Ok(took),
            Some(_) | None => Err("an answer was not whole".into()),
        }
    }
}

/// So many streams of so many clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) n_clients: usize,
    /// Of each client, one after the other.
    pub(crate) n_requests: usize,
}

impl Load {
    /// Asks, and gives what came of it.
    pub(crate) async fn put_on(self, target: &Target) -> Outcome<Taken> {
        let mut clients = JoinSet::new();
        let begun = Instant::now();
        for _ in 0..self.n_clients {
            let target = target.clone();
            clients.spawn(async move {
                let mut taken = Vec::with_capacity(self.n_requests);
                for _ in 0..self.n_requests {
                    taken.push(target.ask().await?.as_secs_f64() * 1e3);
                }
                Outcome::Ok(taken)
            });
        }
        let mut all = Vec::new();
        while let Some(taken) = clients.join_next().await {
            all.extend(taken??);
        }
        let per_second = all.len() as f64 / begun.elapsed().as_secs_f64();
        all.sort_by(f64::total_cmp);
        Ok(Taken { first_byte_ms: all, per_second })
    }
}

/// What came of a load.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Sorted.
    first_byte_ms: Vec<f64>,
    /// Whole streams per second.
    pub(crate) per_second: f64,
}

impl Taken {
    /// The time to the first byte that so many of a hundred did not exceed, in milliseconds.
    pub(crate) fn first_byte(&self, share: usize) -> f64 {
        let place = (self.first_byte_ms.len() * share).div_ceil(100).saturating_sub(1);
        self.first_byte_ms.get(place).copied().unwrap_or(f64::NAN)
    }
}
