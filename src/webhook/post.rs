//! Sending one webhook, once.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use url::Url;

use super::sign::signature;
use crate::reach::{GuardedResolver, Reach, parse_target, tls_config};
use crate::run::error_chain;
use crate::secret::Secret;

/// What a receiver's log shows of this program.
const USER_AGENT: &str = concat!("runbookd/", env!("CARGO_PKG_VERSION"));

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long a receiver may take for its whole answer. It is to note the news, not to act on it.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// The certificates could not be read.
    #[error("could not set up TLS for webhooks")]
    Tls(#[source] rustls::Error),
    /// The client could not be built.
    #[error("could not set up the client for webhooks")]
    Client(#[source] reqwest::Error),
}

/// Sends webhooks.
#[derive(Debug, Clone)]
pub struct Post {
    client: reqwest::Client,
    reach: Reach,
}

/// One webhook as it is sent.
#[derive(Debug)]
pub(super) struct Letter<'a> {
    pub(super) url: &'a str,
    pub(super) secret: Option<&'a Secret>,
    pub(super) trajectory_id: &'a str,
    pub(super) body: &'a str,
}

/// Why a webhook was not taken, for the delivery log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) why: String,
    /// Whether another attempt could end otherwise.
    pub(super) may_pass: bool,
}

impl Post {
    /// Makes the client. It reads certificates from the disk, so it belongs on a blocking thread.
    ///
    /// # Errors
    /// [`PostError`] when the system's certificates cannot be read.
    pub fn new(reach: Reach) -> Result<Self, PostError> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls_config().map_err(PostError::Tls)?)
            .user_agent(USER_AGENT)
            .referer(false)
            // A redirect could lead anywhere, and the signature would go along.
            .redirect(reqwest::redirect::Policy::none())
            // A proxy would resolve the name anew, past the guard.
            .no_proxy()
            .dns_resolver(Arc::new(GuardedResolver { reach }))
            .connect_timeout(CONNECT_LIMIT)
            .timeout(ANSWER_LIMIT)
            .pool_max_idle_per_host(0)
            .build()
            .map_err(PostError::Client)?;
        Ok(Self { client, reach })
    }

    /// Sends a webhook. Only an answer of 2xx is a delivery.
    pub(super) async fn send(&self, letter: &Letter<'_>, now: Timestamp) -> Result<(), Refusal> {
        let url: Url = parse_target(letter.url, self.reach)
            .map_err(|e| Refusal { why: format!("the webhook's URL {e}"), may_pass: false })?;
        let timestamp = now.as_second();
        let mut request = self
            .client
            .post(url)
            .header("Content-Type", "application/json")
            .header("X-Mise-Timestamp", timestamp.to_string())
            .header("X-Mise-Trajectory-Id", letter.trajectory_id);
        if let Some(secret) = letter.secret {
            let signed = signature(secret, timestamp, letter.body.as_bytes());
            request = request.header("X-Mise-Signature", signed);
        }
        let answer = request.body(letter.body.to_owned()).send().await.map_err(|e| {
            // The URL may have a token in its query.
            Refusal { why: error_chain(&e.without_url()), may_pass: true }
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let may_pass = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
        let hint = if status.is_redirection() { " (redirects are not followed)" } else { "" };
        Err(Refusal { why: format!("the receiver answered {status}{hint}"), may_pass })
    }
}
