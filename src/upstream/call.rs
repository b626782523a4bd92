//! Asking a service, and handing its answer on as it comes.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::sync::OnceCell;
use tokio::task::JoinError;

use super::choose::Endpoint;
use crate::reach::{GuardedResolver, Reach, tls_config};
use crate::run::error_chain;

/// What a service's log shows of this program.
const USER_AGENT: &str = concat!("runbookd/", env!("CARGO_PKG_VERSION"));

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long a service may think before its answer begins. An answer in one piece begins when it is
/// finished; OpenAI's clients wait for ten minutes.
const FIRST_BYTE_LIMIT: Duration = Duration::from_secs(600);

/// How long a service may say nothing inside an answer. Models that reason pause for minutes.
const IDLE_LIMIT: Duration = Duration::from_secs(300);

/// Connections to one service that are kept for the next request.
const MAX_IDLE_CONNECTIONS: usize = 64;

/// Largest answer that is not a success, in bytes. It is a sentence, sometimes a web page.
const MAX_REFUSAL_BYTES: usize = 1 << 20;

/// A request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The client could not be made.
    #[error("could not set up TLS for model services")]
    Tls(#[source] rustls::Error),
    /// The client could not be made.
    #[error("could not set up the client for model services")]
    Client(#[source] reqwest::Error),
    /// The thread that made it is gone.
    #[error("setting the client for model services up broke off")]
    Gone(#[source] JoinError),
    /// The service could not be reached, or did not answer as HTTP does.
    #[error("could not reach {host}")]
    Reach {
        /// The host.
        host: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The service said nothing for too long.
    #[error("{host} said nothing for {} s", limit.as_secs())]
    Silent {
        /// The host.
        host: String,
        /// For how long it was waited.
        limit: Duration,
    },
    /// The answer broke off.
    #[error("the answer of {host} broke off")]
    BrokeOff {
        /// The host.
        host: String,
        /// Why.
        source: reqwest::Error,
    },
}

impl CallError {
    /// Whether time ran out.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Silent { .. } => true,
            Self::Reach { source, .. } => source.is_timeout(),
            Self::Tls(_) | Self::Client(_) | Self::Gone(_) | Self::BrokeOff { .. } => false,
        }
    }

    /// Whether the service certainly never got the request, and bills nothing.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        match self {
            Self::Tls(_) | Self::Client(_) | Self::Gone(_) => true,
            Self::Reach { source, .. } => source.is_connect(),
            Self::Silent { .. } | Self::BrokeOff { .. } => false,
        }
    }

    /// What happened, for the client and the record. Its own parts are not in it: the address can
    /// have been set by somebody else than the client.
    #[must_use]
    pub fn sentence(&self) -> String {
        error_chain(self)
    }
}

/// Calls services.
#[derive(Debug)]
pub struct Upstream {
    reach: Reach,
    /// Made when it is needed first: it reads the system's certificates.
    client: OnceCell<reqwest::Client>,
}

/// A service's answer. Its body comes when it is asked for.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    host: String,
    response: reqwest::Response,
}

impl Upstream {
    /// Nothing is called yet.
    #[must_use]
    pub fn new(reach: Reach) -> Self {
        Self { reach, client: OnceCell::new() }
    }

    /// Where addresses may lead.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// Asks for a completion. Dropped, it ends the call, and so does dropping the answer.
    ///
    /// # Errors
    /// [`CallError`] when no answer begins.
    pub async fn ask(
        &self,
        endpoint: &Endpoint,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, CallError> {
        let host = endpoint.url.host_str().unwrap_or_default().to_owned();
        let client = self.client.get_or_try_init(|| make(self.reach)).await?;
        let mut key = HeaderValue::from_str(&format!("Bearer {}", endpoint.key.expose()))
            .expect("a chosen key has the characters of one");
        key.set_sensitive(true);
        let asked = client
            .post(endpoint.url.clone())
            .headers(headers)
            .header(AUTHORIZATION, key)
            .header(CONTENT_TYPE, "application/json")
            // The bytes are read along as they pass.
            .header(ACCEPT_ENCODING, "identity")
            .body(body)
            .send();
        match tokio::time::timeout(FIRST_BYTE_LIMIT, asked).await {
            Ok(Ok(response)) => Ok(Answer {
                status: response.status().as_u16(),
                headers: response.headers().clone(),
                host,
                response,
            }),
            Ok(Err(source)) => Err(CallError::Reach { host, source: source.without_url() }),
            Err(_) => Err(CallError::Silent { host, limit: FIRST_BYTE_LIMIT }),
        }
    }
}

impl Answer {
    /// The next bytes, as they come; `None` at the end.
    ///
    /// # Errors
    /// [`CallError`] when no end comes.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        let host = || self.host.clone();
        match tokio::time::timeout(IDLE_LIMIT, self.response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(source)) => {
                Err(CallError::BrokeOff { host: host(), source: source.without_url() })
            }
            Err(_) => Err(CallError::Silent { host: host(), limit: IDLE_LIMIT }),
        }
    }

    /// The whole body of an answer that is not a success, or its beginning where it is very long.
    ///
    /// # Errors
    /// As [`Answer::next`].
    pub async fn refusal(&mut self) -> Result<Bytes, CallError> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.next().await? {
            let room = MAX_REFUSAL_BYTES - whole.len();
            whole.extend_from_slice(&piece[..piece.len().min(room)]);
            if whole.len() == MAX_REFUSAL_BYTES {
                break;
            }
        }
        Ok(whole.freeze())
    }
}

async fn make(reach: Reach) -> Result<reqwest::Client, CallError> {
    let made = tokio::task::spawn_blocking(move || {
        reqwest::Client::builder()
            .tls_backend_preconfigured(tls_config().map_err(CallError::Tls)?)
            .user_agent(USER_AGENT)
            .referer(false)
            // A redirect could lead anywhere, and the key would go along.
            .redirect(reqwest::redirect::Policy::none())
            // A request that was sent is not sent again: it costs money.
            .retry(reqwest::retry::never())
            // A proxy would resolve the name anew, past the guard.
            .no_proxy()
            .dns_resolver(Arc::new(GuardedResolver { reach }))
            .connect_timeout(CONNECT_LIMIT)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .build()
            .map_err(CallError::Client)
    });
    made.await.map_err(CallError::Gone)?
}
