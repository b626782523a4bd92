//! The client for model services.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_platform_verifier::Verifier;

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long an unused connection is kept: an agent thinks and works between its requests.
const IDLE_LIMIT: Duration = Duration::from_secs(120);

/// How long a service may say nothing inside an answer. The agent CLI gives a silent stream up after
/// five minutes; this comes later, for whoever does not.
const SILENCE_LIMIT: Duration = Duration::from_secs(600);

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The certificates could not be read.
    #[error("could not set up TLS for model services")]
    Tls(#[source] rustls::Error),
    /// The client could not be built.
    #[error("could not set up the client for model services")]
    Client(#[source] reqwest::Error),
}

/// Asks model services. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Upstream {
    pub(super) client: reqwest::Client,
}

impl Upstream {
    /// Makes the client. It reads certificates from the disk, so it belongs on a blocking thread.
    ///
    /// # Errors
    /// [`UpstreamError`] when the system's certificates cannot be read.
    pub fn new() -> Result<Self, UpstreamError> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls_config().map_err(UpstreamError::Tls)?)
            .referer(false)
            // A redirect could lead anywhere, and the credential would go along.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .read_timeout(SILENCE_LIMIT)
            .pool_idle_timeout(IDLE_LIMIT)
            .build()
            .map_err(UpstreamError::Client)?;
        Ok(Self { client })
    }
}

fn tls_config() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new(Arc::clone(&provider))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        // The platform's verifier is what reqwest itself would install here.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
