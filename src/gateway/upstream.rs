//! The client for model services.

use std::sync::Arc;
use std::time::Duration;

use crate::reach::{GuardedResolver, Reach, parse_target, tls_config};

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

/// A model service that must not be asked: whoever set its address could reach our own network, or
/// have the credential sent where everybody can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the address of the model service is private or does not begin with `https://`: the server's \
     operator can allow that (RUNBOOKD_UPSTREAM_PRIVATE=1)"
)]
pub struct Inadmissible;

/// Whether a model service may be asked at an address. A name is looked at again when it is called.
///
/// # Errors
/// [`Inadmissible`].
pub fn admit(upstream: &str, reach: Reach) -> Result<(), Inadmissible> {
    let is_public =
        || parse_target(upstream, Reach::Public).is_ok_and(|url| url.scheme() == "https");
    match reach {
        Reach::Private => Ok(()),
        Reach::Public if is_public() => Ok(()),
        Reach::Public => Err(Inadmissible),
    }
}

/// Asks model services. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Upstream {
    pub(super) client: reqwest::Client,
    pub(super) reach: Reach,
}

impl Upstream {
    /// Makes the client, for services at these addresses. It reads certificates from the disk, so it belongs on a blocking thread.
    ///
    /// # Errors
    /// [`UpstreamError`] when the system's certificates cannot be read.
    pub fn new(reach: Reach) -> Result<Self, UpstreamError> {
        let mut tls = tls_config().map_err(UpstreamError::Tls)?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(Arc::new(GuardedResolver { reach }))
            .referer(false)
            // A redirect could lead anywhere, and the credential would go along.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .read_timeout(SILENCE_LIMIT)
            .pool_idle_timeout(IDLE_LIMIT)
            .build()
            .map_err(UpstreamError::Client)?;
        Ok(Self { client, reach })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_inside_our_network_is_not_asked_unless_the_operator_allows_it() {
        for (upstream, expected) in [
            ("https://api.anthropic.com", true),
            ("https://gw.example.org/anthropic", true),
            ("http://gw.example.org", false),
            ("https://127.0.0.1:8000", false),
            ("https://169.254.169.254/latest", false),
            ("https://[::ffff:10.0.0.1]", false),
            ("https://2130706433", false),
        ] {
            assert_eq!(admit(upstream, Reach::Public).is_ok(), expected, "{upstream}");
            assert_eq!(admit(upstream, Reach::Private), Ok(()));
        }
    }
}
