//! The HTTP client for the registry: whom it trusts and how long it waits.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_platform_verifier::Verifier;

use super::error::ToolchainError;
use super::fetch::Limits;

/// What the registry's log shows of this program.
const USER_AGENT: &str = concat!("runbookd/", env!("CARGO_PKG_VERSION"));

/// Builds the client. It reads certificates from the disk, so it belongs on a blocking thread.
pub(super) fn build_client(
    extra_ca: Option<&Path>,
    limits: &Limits,
) -> Result<reqwest::Client, ToolchainError> {
    let extra_roots = extra_ca.map(read_extra_ca).transpose()?.unwrap_or_default();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls_config(extra_roots).map_err(ToolchainError::Tls)?)
        .user_agent(USER_AGENT)
        .referer(false)
        .connect_timeout(limits.connect)
        .read_timeout(limits.stall)
        .timeout(limits.attempt)
        .build()
        .map_err(ToolchainError::Client)
}

/// The system's roots and `extra_roots`, with the crypto provider named here instead of taken from
/// a process-wide default. Without ALPN servers speak HTTP/1.1, which is all that one file needs.
fn tls_config(extra_roots: Vec<CertificateDer<'static>>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new_with_extra_roots(extra_roots, Arc::clone(&provider))?;
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        // The platform's verifier is what reqwest itself would install here.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

fn read_extra_ca(path: &Path) -> Result<Vec<CertificateDer<'static>>, ToolchainError> {
    let roots: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|source| ToolchainError::ExtraCa { path: path.to_owned(), source })?;
    if roots.is_empty() {
        return Err(ToolchainError::EmptyExtraCa { path: path.to_owned() });
    }
    Ok(roots)
}
