//! The client for model services.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::dns::Resolve as _;
use tokio::time::{Instant, timeout};
use url::{Host, Url};

use crate::reach::{GuardedResolver, Reach, parse_target, tls_config};

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long an unused connection is kept: an agent thinks and works between its requests.
const IDLE_LIMIT: Duration = Duration::from_secs(120);

/// How long a service may say nothing inside an answer. The agent CLI gives a silent stream up after
/// five minutes; this comes later, for whoever does not.
const SILENCE_LIMIT: Duration = Duration::from_secs(600);

/// How long a name may take. Resolvers give up after about as long.
const RESOLVE_LIMIT: Duration = Duration::from_secs(10);

/// How soon a name is looked at again: not for each request, and before somebody has waited for it to
/// lead elsewhere.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The hosts of model services, and where Google's tokens are. Nobody else can say where they lead.
/// A star stands for one label, or for a part of one.
const WELL_KNOWN: [&str; 8] = [
    "api.anthropic.com",
    "openrouter.ai",
    "bedrock.*.amazonaws.com",
    "bedrock-runtime.*.amazonaws.com",
    "aiplatform.googleapis.com",
    "*-aiplatform.googleapis.com",
    "aiplatform.*.rep.googleapis.com",
    "oauth2.googleapis.com",
];

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

/// A name that leads where a model service must not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Astray {
    /// One of its addresses is private.
    #[error(
        "the name in its address leads to a private address: the server's operator can allow that \
         (RUNBOOKD_UPSTREAM_PRIVATE=1)"
    )]
    Private,
    /// It has no address here. A proxy would look it up itself, and nobody would look at what it found.
    #[error(
        "the name in its address cannot be resolved on this machine, so nobody can say where it leads"
    )]
    Unresolved,
}

/// Asks model services. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Upstream {
    pub(super) client: reqwest::Client,
    pub(super) reach: Reach,
    /// When the names were looked at that lead where they may. There are as many as the run's route
    /// has.
    looked: Arc<Mutex<BTreeMap<String, Instant>>>,
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
        Ok(Self::with(client, reach))
    }

    pub(super) fn with(client: reqwest::Client, reach: Reach) -> Self {
        Self { client, reach, looked: Arc::default() }
    }

    /// Looks at where a name leads before it is called. Where this machine has a proxy, the resolver
    /// above is never asked: the proxy would look the name up, and reach what it reaches.
    pub(super) async fn look_at(&self, url: &str) -> Result<(), Astray> {
        let url = Url::parse(url).map_err(|_| Astray::Unresolved)?;
        // An address was looked at when the gateway began.
        let Some(Host::Domain(name)) = url.host() else { return Ok(()) };
        if self.reach == Reach::Private || is_well_known(name) || self.was_looked_at(name) {
            return Ok(());
        }
        let resolver = GuardedResolver { reach: self.reach };
        let asked = name.parse().map_err(|_| Astray::Unresolved)?;
        match timeout(RESOLVE_LIMIT, resolver.resolve(asked)).await {
            Ok(Ok(_)) => {
                let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
                looked.insert(name.to_owned(), Instant::now());
                Ok(())
            }
            Ok(Err(e)) if is_denied(e.as_ref()) => Err(Astray::Private),
            Ok(Err(_)) | Err(_) => Err(Astray::Unresolved),
        }
    }

    fn was_looked_at(&self, name: &str) -> bool {
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.get(name).is_some_and(|at| at.elapsed() < LOOK_AGAIN)
    }
}

fn is_denied(error: &(dyn std::error::Error + 'static)) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
}

fn is_well_known(name: &str) -> bool {
    WELL_KNOWN.iter().any(|known| match known.split_once('*') {
        None => name == *known,
        Some((before, after)) => {
            let part = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            part.is_some_and(|part| !part.is_empty() && !part.contains('.'))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_services_own_hosts_are_well_known() {
        for (name, expected) in [
            ("api.anthropic.com", true),
            ("bedrock-runtime.eu-central-1.amazonaws.com", true),
            ("us-east5-aiplatform.googleapis.com", true),
            ("aiplatform.eu.rep.googleapis.com", true),
            ("gw.example.org", false),
            ("api.anthropic.com.example.org", false),
            ("vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com", false),
            ("bedrock-runtime.a.b.amazonaws.com", false),
            ("bedrock-runtime..amazonaws.com", false),
        ] {
            assert_eq!(is_well_known(name), expected, "{name}");
        }
    }

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
