//! How a gateway's process is started: it is this program, in a session of its own, with nothing of
//! its starter but what it is told.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::order::GatewayOrder;
use super::place::Place;
use crate::reach::Reach;
use crate::secret::Secret;

/// From the start to the first word. It takes a fraction of a second; a busy machine takes longer.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Longest first word, in bytes.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// What of a gateway's complaints is told, in bytes.
const TAIL_BYTES: usize = 1 << 10;

/// The first descriptor that is not one of the standard three.
const FIRST_UNKNOWN_FD: i32 = 3;

/// This program while it runs, whatever lies at its path by now.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// The variables that a gateway needs of its starter: where the system's certificates are, and the
/// way out of the network that the operator's machine has.
pub const ENVIRONMENT: [&str; 10] = [
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// What gateways are started from, and what all of them have in common.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// The whole environment. An address of a proxy may hold a password.
    pub environment: Vec<(&'static str, Secret)>,
    /// Which addresses may be asked.
    pub reach: Reach,
    /// What is logged, in `tracing`'s filter syntax, where somebody said so.
    pub log_filter: Option<String>,
}

/// What a gateway says when it has read its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FirstWord {
    /// It serves.
    Ready,
    /// Another one serves the place already.
    Busy,
    /// It must not do what it was told.
    Refused(String),
    /// It could not.
    Failed(String),
}

/// There is no gateway.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program could not be started.
    #[error("the run's gateway could not be started")]
    Spawn(#[source] io::Error),
    /// It could not be told what to do, or did not say what came of it.
    #[error("the run's gateway broke down at its start: {tail}")]
    Broken {
        /// What it had to complain about.
        tail: String,
        /// How that was noticed.
        source: io::Error,
    },
    /// It took too long.
    #[error("the run's gateway did not start within {} s", START_LIMIT.as_secs())]
    Slow,
    /// Another one serves the place.
    #[error("another gateway serves the run")]
    Busy,
    /// It must not ask its model service.
    #[error("{0}")]
    Refused(String),
    /// It could not serve.
    #[error("the run's gateway does not serve: {0}")]
    Failed(String),
}

impl Program {
    /// This program itself. An upgrade that replaces its file changes nothing for it.
    #[must_use]
    pub fn this(
        environment: Vec<(&'static str, Secret)>,
        reach: Reach,
        log_filter: Option<String>,
    ) -> Self {
        Self { path: PathBuf::from(THIS_PROGRAM), environment, reach, log_filter }
    }

    /// Starts a gateway in a place that is made, and returns when it serves. It lives on when the
    /// value that this gives is dropped.
    ///
    /// # Errors
    /// [`LaunchError`] when none serves; then there is no process.
    pub async fn start(&self, order: &GatewayOrder, place: &Place) -> Result<Child, LaunchError> {
        let mut child = self.spawn(place).map_err(LaunchError::Spawn)?;
        let told = timeout(START_LIMIT, tell(&mut child, order)).await;
        let failed = match told {
            Ok(Ok(FirstWord::Ready)) => return Ok(child),
            Ok(Ok(FirstWord::Busy)) => LaunchError::Busy,
            Ok(Ok(FirstWord::Refused(why))) => LaunchError::Refused(why),
            Ok(Ok(FirstWord::Failed(why))) => LaunchError::Failed(why),
            Ok(Err(source)) => LaunchError::Broken { tail: tail(place), source },
            Err(_) => LaunchError::Slow,
        };
        // It has ended by itself, or is to.
        let _ = child.start_kill();
        let _ = timeout(START_LIMIT, child.wait()).await;
        Err(failed)
    }

    fn spawn(&self, place: &Place) -> io::Result<Child> {
        // As for a sandbox: what we inherited ourselves would go on to it and be held for its life.
        close_fds::set_fds_cloexec_threadsafe(FIRST_UNKNOWN_FD, &[]);
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(place.log())?;
        Command::new(&self.path)
            .arg0("runbookd")
            .arg("gateway")
            .arg(place.root())
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value.expose())))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
    }
}

/// Gives the order, and hears what comes of it.
async fn tell(child: &mut Child, order: &GatewayOrder) -> io::Result<FirstWord> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    stdin.write_all(&serde_json::to_vec(order)?).await?;
    drop(stdin);
    let mut word = Vec::new();
    stdout.take(MAX_ANSWER_BYTES).read_to_end(&mut word).await?;
    Ok(serde_json::from_slice(&word)?)
}

/// The last that a gateway had to complain about.
#[must_use]
pub fn tail(place: &Place) -> String {
    let log = std::fs::read(place.log()).unwrap_or_default();
    let tail = &log[log.len().saturating_sub(TAIL_BYTES)..];
    let tail = String::from_utf8_lossy(tail).trim().replace('\n', " / ");
    if tail.is_empty() { "it said nothing".to_owned() } else { tail }
}
