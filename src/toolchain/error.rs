//! Every way an agent CLI cannot be had, and what to do about each.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::pem;

/// The toolchain could not do its part. `Display` says what failed, the sources why, and
/// [`Self::mend`] what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainError {
    /// No agent CLI is published for this machine.
    #[error("no agent CLI is published for {os} on {arch}")]
    UnsupportedHost {
        /// The operating system.
        os: String,
        /// The processor.
        arch: String,
    },
    /// The registry's URL cannot be used. It is not shown: it may hold a password.
    #[error("the URL of the npm registry {problem}")]
    Registry {
        /// What is wrong, as a fragment that follows "the URL of the npm registry".
        problem: &'static str,
    },
    /// The registry's token cannot be sent.
    #[error("the token of the npm registry holds a space, a line break or another such character")]
    RegistryToken,
    /// The extra CA bundle cannot be read.
    #[error("could not read the extra CA bundle `{path}`")]
    ExtraCa {
        /// The bundle.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The extra CA bundle is empty, or no PEM file.
    #[error("the extra CA bundle `{path}` holds no certificate")]
    EmptyExtraCa {
        /// The bundle.
        path: PathBuf,
    },
    /// The trusted certificates could not be put together.
    #[error("could not prepare TLS")]
    Tls(#[source] rustls::Error),
    /// The HTTP client could not be made.
    #[error("could not prepare the HTTP client")]
    Client(#[source] reqwest::Error),
    /// The cache could not be read or written.
    #[error("could not use `{path}` in the cache of agent CLIs")]
    Cache {
        /// What was read or written.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The cache's disk or quota is full.
    #[error("there is no space left for `{path}` in the cache of agent CLIs")]
    DiskFull {
        /// What was written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process held the lock for too long.
    #[error("another process has held `{path}` for {} s", limit.as_secs_f64())]
    LockTimeout {
        /// The lock file.
        path: PathBuf,
        /// How long this one waited.
        limit: Duration,
    },
    /// The package could not be downloaded. Nothing of it was kept.
    #[error("could not download {}", origin.url)]
    Download {
        /// What was asked of whom.
        origin: Box<Origin>,
        /// Why it failed.
        source: DownloadError,
    },
    /// The package is the pinned one and yet not what was expected. Nothing of it was kept.
    #[error("could not unpack `{member}` of {package} {version}")]
    Unpack {
        /// The executable's path inside the package.
        member: &'static str,
        /// The package.
        package: String,
        /// Its version.
        version: &'static str,
        /// Why it failed.
        source: UnpackError,
    },
    /// [`verify`](super::Toolchain::verify) found nothing.
    #[error("the agent CLI is not installed at `{path}`")]
    NotInstalled {
        /// Where it should be.
        path: PathBuf,
    },
    /// [`verify`](super::Toolchain::verify) found another file.
    #[error("`{path}` is not the pinned agent CLI: {expected} is pinned, but it is {got}")]
    Altered {
        /// The file.
        path: PathBuf,
        /// The pinned SHA-256.
        expected: String,
        /// The file's SHA-256.
        got: String,
    },
    /// Work on the cache was stopped because the daemon is stopping.
    #[error("work on the cache of agent CLIs was stopped")]
    Interrupted(#[source] tokio::task::JoinError),
}

/// Where an executable comes from and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The package.
    pub url: String,
    /// The registry in use.
    pub registry: String,
    /// The executable's path inside the package.
    pub member: &'static str,
    /// The executable's place in the cache.
    pub destination: PathBuf,
}

/// Why a package could not be downloaded.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// There was no answer.
    #[error("the registry could not be reached")]
    Unreachable(#[source] reqwest::Error),
    /// The answer ended early or stalled.
    #[error("the transfer broke off after {received_bytes} of {expected_bytes} bytes")]
    BrokeOff {
        /// What had come.
        received_bytes: u64,
        /// What is pinned.
        expected_bytes: u64,
        /// Why, where the connection said so.
        source: Option<reqwest::Error>,
    },
    /// A failure of the registry's own (5xx).
    #[error("the registry failed with HTTP {status}")]
    Unavailable {
        /// The HTTP status.
        status: u16,
    },
    /// The registry wants other credentials (401 or 403).
    #[error("the registry refused access with HTTP {status}")]
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// The registry does not have the package (404).
    #[error("the registry does not have this package")]
    NotFound,
    /// An answer that is none of the others.
    #[error("the registry answered with HTTP {status}")]
    Unexpected {
        /// The HTTP status.
        status: u16,
    },
    /// The answer announced another length than the pinned one.
    #[error("a file of {expected_bytes} bytes is pinned, but this one has {got_bytes}")]
    WrongLength {
        /// What is pinned.
        expected_bytes: u64,
        /// What was announced.
        got_bytes: u64,
    },
    /// More came than is pinned.
    #[error("a file of {expected_bytes} bytes is pinned, but this one is longer")]
    TooLong {
        /// What is pinned.
        expected_bytes: u64,
    },
    /// The content is not the pinned one.
    #[error("{expected} is pinned, but this file is {got}")]
    WrongIntegrity {
        /// The pinned integrity.
        expected: String,
        /// The file's.
        got: String,
    },
}

/// Why a package could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The tarball is damaged, or unpacks to more than it may.
    #[error("the tarball cannot be read")]
    Read(#[source] io::Error),
    /// The executable is not in the tarball.
    #[error("it is not in the tarball")]
    Missing,
    /// The executable is a link or another thing that is not a plain file.
    #[error("it is not a regular file")]
    NotAFile,
    /// The executable has another size.
    #[error("{expected_bytes} bytes are pinned, but it has {got_bytes}")]
    WrongSize {
        /// What is pinned.
        expected_bytes: u64,
        /// What the tarball says.
        got_bytes: u64,
    },
    /// The executable has another content.
    #[error("{expected} is pinned, but it is {got}")]
    WrongHash {
        /// The pinned SHA-256.
        expected: String,
        /// The file's.
        got: String,
    },
}

impl ToolchainError {
    /// A failure to read or write `path`, with a full disk told apart.
    pub(super) fn cache(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Self::DiskFull { path, source }
        } else {
            Self::Cache { path, source }
        }
    }

    /// Whether the same download may succeed a moment later.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Download { source, .. } if source.is_transient())
    }

    /// What to do about it, as whole sentences.
    #[must_use]
    pub fn mend(&self) -> String {
        match self {
            Self::UnsupportedHost { .. } => {
                "Run it on Linux (x86_64 or aarch64), for example in a container or a virtual \
                 machine."
                    .to_owned()
            }
            Self::Registry { .. } => {
                "Set npm_config_registry to an http or https URL; a token has a setting of its own."
                    .to_owned()
            }
            Self::RegistryToken => {
                "Set the registry's token as npm keeps it in `_authToken`, without quotes."
                    .to_owned()
            }
            Self::ExtraCa { path, .. } | Self::EmptyExtraCa { path } => {
                format!("Put PEM certificates into `{}`, or take the setting away.", path.display())
            }
            Self::Tls(_) => {
                "Install the system's CA certificates (package `ca-certificates`), or set an extra \
                 CA bundle."
                    .to_owned()
            }
            Self::Client(_) => {
                "Check the proxy variables (HTTPS_PROXY, HTTP_PROXY, NO_PROXY).".to_owned()
            }
            Self::Cache { path, .. } => format!(
                "Check that the user who runs this may read and write `{}` and the folders above \
                 it.",
                path.display()
            ),
            Self::DiskFull { .. } => {
                "Free about 400 MB there, or set another cache folder.".to_owned()
            }
            Self::LockTimeout { path, .. } => format!(
                "See which process holds it (`fuser {}`) and stop that process if it hangs.",
                path.display()
            ),
            Self::Download { origin, source } => format!(
                "{} The registry in use is {} (npm_config_registry). Without it, put the file \
                 `{}` of the package at `{}`; its hash is checked.",
                source.mend(),
                origin.registry,
                origin.member,
                origin.destination.display()
            ),
            Self::Unpack { .. } => {
                "Nothing was kept. Try again; if it stays so, the pin in this program is wrong: \
                 please report it."
                    .to_owned()
            }
            Self::NotInstalled { .. } => "Fetch it first.".to_owned(),
            Self::Altered { path, .. } => {
                format!("Delete `{}` and fetch it again; find out who changed it.", path.display())
            }
            Self::Interrupted(_) => "Start it again.".to_owned(),
        }
    }
}

impl DownloadError {
    fn is_transient(&self) -> bool {
        match self {
            // A chain of redirects without an end is as long the next time.
            Self::Unreachable(error) => !error.is_redirect(),
            Self::BrokeOff { .. } | Self::Unavailable { .. } => true,
            Self::Refused { .. }
            | Self::NotFound
            | Self::Unexpected { .. }
            | Self::WrongLength { .. }
            | Self::TooLong { .. }
            | Self::WrongIntegrity { .. } => false,
        }
    }

    fn mend(&self) -> &'static str {
        match self {
            Self::Unreachable(_) | Self::BrokeOff { .. } => {
                "Check the network, the proxy variables (HTTPS_PROXY, HTTP_PROXY, NO_PROXY) and, \
                 behind a proxy that opens TLS, the extra CA bundle."
            }
            Self::Unavailable { .. } => "Try again later.",
            Self::Refused { .. } => {
                "Check that the registry's token is set, current, and may read the package."
            }
            Self::NotFound => "Check that the registry mirrors the public one with all versions.",
            Self::Unexpected { .. } => "Check that the URL is that of an npm registry.",
            Self::WrongLength { .. } | Self::TooLong { .. } | Self::WrongIntegrity { .. } => {
                "The registry, or a proxy on the way, served another file than the published one; \
                 nothing of it was kept. Ask who runs it, or use https://registry.npmjs.org/."
            }
        }
    }
}
