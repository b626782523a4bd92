//! Clients that ask at the same time, and how long each answer took.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::common::Outcome;

/// Longest answer that is waited for.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What is timed of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An answer in one piece, to its last byte.
    Whole,
    /// The first byte of a stream.
    FirstByte,
}

impl Kind {
    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole answer",
            Self::FirstByte => "first byte of a stream",
        }
    }
}

/// Whom to ask.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    http: reqwest::Client,
    url: String,
    key: String,
}

impl Target {
    /// An address with its own connections.
    pub(crate) fn new(base_url: &str, key: &str) -> Outcome<Self> {
        // Only the first call makes a difference.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .tcp_nodelay(true)
            .timeout(ANSWER_LIMIT)
            .build()?;
        Ok(Self { http, url: format!("{base_url}/chat/completions"), key: key.to_owned() })
    }

    async fn ask(&self, kind: Kind) -> Outcome<Duration> {
        let messages = json!([{ "role": "user", "content": "Say something." }]);
        let is_stream = kind == Kind::FirstByte;
        let body = json!({ "model": "gpt-say", "messages": messages, "stream": is_stream });
        let request = self.http.post(&self.url).bearer_auth(&self.key).body(body.to_string());
        let begun = Instant::now();
        let mut answer = request.send().await?.error_for_status()?;
        let mut took = None;
        while answer.chunk().await?.is_some() {
            took.get_or_insert_with(|| begun.elapsed());
        }
        match (kind, took) {
            (_, None) => Err("an answer was empty".into()),
            (Kind::FirstByte, Some(took)) => Ok(took),
            (Kind::Whole, Some(_)) => Ok(begun.elapsed()),
        }
    }
}

/// So many requests of so many clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) kind: Kind,
    pub(crate) n_clients: usize,
    /// Of each client, one after the other.
    pub(crate) n_requests: usize,
}

impl Load {
    /// Asks, and gives how long the answers took.
    pub(crate) async fn put_on(self, target: &Target) -> Outcome<Taken> {
        let mut clients = JoinSet::new();
        for _ in 0..self.n_clients {
            let target = target.clone();
            clients.spawn(async move {
                let mut taken = Vec::with_capacity(self.n_requests);
                for _ in 0..self.n_requests {
                    taken.push(target.ask(self.kind).await?.as_secs_f64() * 1e3);
                }
                Outcome::Ok(taken)
            });
        }
        let mut all = Vec::new();
        while let Some(taken) = clients.join_next().await {
            all.extend(taken??);
        }
        all.sort_by(f64::total_cmp);
        Ok(Taken(all))
    }
}

/// How long answers took, in milliseconds, sorted.
#[derive(Debug)]
pub(crate) struct Taken(Vec<f64>);

impl Taken {
    /// What so many of a hundred did not exceed.
    pub(crate) fn percentile(&self, share: usize) -> f64 {
        let place = (self.0.len() * share).div_ceil(100).saturating_sub(1);
        self.0.get(place).copied().unwrap_or(f64::NAN)
    }
}
