//! The client itself: which server, whom it trusts, and one exchange with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use serde_json::Value;
use url::Url;

use super::error::{ClientError, detail, shown};
use crate::secret::Secret;

/// What the server's log shows of this program.
const USER_AGENT: &str = concat!("runbookd/", env!("CARGO_PKG_VERSION"));

/// How long a connection may take, on any network that a person would wait for.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long an ordinary answer may take. The server gives up after 30 s by itself.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Largest answer that is read whole, in bytes: a page of trajectories with all their steps.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Largest refusal that is read, in bytes.
const MAX_REFUSAL_BYTES: usize = 1 << 20;

/// Which server, and who asks.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// The server's address; a path before `/api` is kept.
    pub server: Url,
    /// The token, which is sent to that server alone.
    pub token: Option<Secret>,
    /// More certificate authorities, a PEM file.
    pub extra_ca: Option<PathBuf>,
}

/// A client of one server.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    server: Url,
    token: Option<Secret>,
}

impl Client {
    /// Makes a client. Nothing is sent yet.
    ///
    /// # Errors
    /// When certificates cannot be read.
    pub fn new(settings: ClientSettings) -> Result<Self, ClientError> {
        let ClientSettings { server, token, extra_ca } = settings;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls_config(&server, extra_ca.as_deref())?)
            .user_agent(USER_AGENT)
            .referer(false)
            // The token must not go where a redirect leads.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT);
        if is_this_machine(&server) {
            // A proxy would look for the server on its own machine.
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(ClientError::Build)?;
        Ok(Self { http, server, token })
    }

    /// The server's address, as people write it.
    #[must_use]
    pub fn server(&self) -> &str {
        self.server.as_str().trim_end_matches('/')
    }

    /// Whether the token would go over the network for everybody to read.
    #[must_use]
    pub fn exposes_the_token(&self) -> bool {
        self.token.is_some() && self.server.scheme() == "http" && !is_this_machine(&self.server)
    }

    /// The address of a path of the API. Each segment is one, whatever is in it.
    #[must_use]
    pub fn address(&self, segments: &[&str]) -> Url {
        let mut url = self.server.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// A request with the token, and without a limit on its time.
    pub(super) fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.token
            && let Ok(mut value) = HeaderValue::try_from(format!("Bearer {}", token.expose()))
        {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        self.http.request(method, self.address(segments)).headers(headers)
    }

    /// Sends a request, and gives the answer of a server that did it.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let sent = request.send().await;
        let response = sent.map_err(|e| self.unreached(e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if let Some(to) = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()) {
            return Err(self.foreign(format!("it leads on to {}", shown(to))));
        }
        let seconds =
            response.headers().get(RETRY_AFTER).and_then(|s| s.to_str().ok()?.parse().ok());
        let body = self.read(response, MAX_REFUSAL_BYTES).await?;
        Err(ClientError::Refused {
            status: status.as_u16(),
            detail: detail(&body),
            retry_after: seconds.map(Duration::from_secs),
        })
    }

    /// Sends a request, and reads its answer as JSON.
    pub(super) async fn exchange(&self, request: RequestBuilder) -> Result<Value, ClientError> {
        let response = self.send(request).await?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or("nothing").to_owned();
        let body = self.read(response, MAX_ANSWER_BYTES).await?;
        serde_json::from_slice(&body)
            .map_err(|_| self.foreign(format!("it sent {} instead of JSON", shown(&kind))))
    }

    /// Reads a bounded body.
    async fn read(&self, mut response: Response, limit: usize) -> Result<Bytes, ClientError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.broken(e))? {
            if body.len() + chunk.len() > limit {
                return Err(ClientError::TooLarge { limit });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.into())
    }

    pub(super) fn unreached(&self, source: reqwest::Error) -> ClientError {
        ClientError::Reach { server: self.server().to_owned(), source: source.without_url() }
    }

    pub(super) fn broken(&self, source: reqwest::Error) -> ClientError {
        ClientError::Broken { server: self.server().to_owned(), source: source.without_url() }
    }

    pub(super) fn foreign(&self, found: String) -> ClientError {
        ClientError::Foreign { server: self.server().to_owned(), found }
    }
}

fn is_this_machine(server: &Url) -> bool {
    match server.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The system's roots and those of the file. A server without TLS is asked also from a machine that
/// has no certificates.
fn tls_config(server: &Url, extra_ca: Option<&Path>) -> Result<ClientConfig, ClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(ClientError::Tls)?;
    if server.scheme() != "https" {
        return Ok(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    }
    let extra_roots = match extra_ca {
        None => Vec::new(),
        Some(path) => CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|source| ClientError::ExtraCa { path: path.to_owned(), source })?,
    };
    let verifier =
        Verifier::new_with_extra_roots(extra_roots, provider).map_err(ClientError::Tls)?;
    Ok(config
        // The platform's verifier is what reqwest itself would install here.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(server: &str, token: Option<&str>) -> Client {
        Client::new(ClientSettings {
            server: server.parse().unwrap(),
            token: token.map(|token| Secret::new(token.to_owned())),
            extra_ca: None,
        })
        .unwrap()
    }

    #[test]
    fn a_name_is_one_segment_below_whatever_path_the_server_has() {
        for (server, expected) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000/api/a%2Fb%20%3F%23"),
            ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/api/a%2Fb%20%3F%23"),
            ("http://localhost/under/here/", "http://localhost/under/here/api/a%2Fb%20%3F%23"),
        ] {
            assert_eq!(client(server, None).address(&["api", "a/b ?#"]).as_str(), expected);
        }
    }

    #[test]
    fn a_token_is_exposed_only_on_a_network_without_tls() {
        for (server, token, expected) in [
            ("http://127.0.0.1:8000", Some("mlc_made_up"), false),
            ("http://[::1]:8000", Some("mlc_made_up"), false),
            ("http://localhost:8000", Some("mlc_made_up"), false),
            ("http://build.example.org", Some("mlc_made_up"), true),
            ("http://build.example.org", None, false),
        ] {
            assert_eq!(client(server, token).exposes_the_token(), expected, "{server}");
        }
    }

    #[test]
    fn the_token_is_in_no_description_of_the_client() {
        let client = client("http://localhost", Some("mlc_made_up"));
        let request = client.request(Method::GET, &["api"]);
        assert!(!format!("{client:?} {request:?}").contains("made_up"));
    }
}
