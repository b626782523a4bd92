//! The agent CLI of a run: the pinned one, or one that the operator names.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::watch::{Phase, RunUpdate, Watcher};
use crate::run::{RunFailure, RuntimeName};
use crate::toolchain::{AgentCli, FetchProgress, Target, Toolchain, ToolchainError};

/// How often a download is reported. A person reads no faster.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// Where agent CLIs come from.
#[derive(Debug, Clone)]
pub enum AgentSource {
    /// The pinned package, from the cache or the registry.
    Pinned(Arc<Toolchain>),
    /// An executable that the operator answers for. What it says of its version is still checked.
    Executable(PathBuf),
}

impl AgentSource {
    /// Has the executable of `runtime`.
    pub(super) async fn fetch(
        &self,
        runtime: RuntimeName,
        target: Target,
        watch: Watcher<'_>,
    ) -> Result<PathBuf, RunFailure> {
        let toolchain = match self {
            Self::Executable(path) => return Ok(path.clone()),
            Self::Pinned(toolchain) => toolchain,
        };
        let unavailable = |e: ToolchainError| RunFailure::AgentUnavailable {
            detail: format!("{}. {}", crate::run::error_chain(&e), e.mend()),
        };
        let report = Mutex::new(Report { watch, last: None });
        let on_progress = |progress: FetchProgress| {
            if let Ok(mut report) = report.lock() {
                report.hear(progress);
            }
        };
        let fetched = toolchain.fetch(AgentCli::from(runtime), target, &on_progress).await;
        Ok(fetched.map_err(unavailable)?.path)
    }
}

/// Passes a download's progress on, at a speed that a person can read.
struct Report<'a> {
    watch: Watcher<'a>,
    last: Option<Instant>,
}

impl Report<'_> {
    fn hear(&mut self, progress: FetchProgress) {
        let phase = match progress {
            FetchProgress::WaitingForOther => Phase::WaitingForDownload,
            FetchProgress::Downloading { received_bytes, total_bytes } => {
                let is_due = self.last.is_none_or(|last| last.elapsed() >= REPORT_EVERY);
                if received_bytes > 0 && !is_due {
                    return;
                }
                self.last = Some(Instant::now());
                Phase::FetchingAgent { done: received_bytes, total: Some(total_bytes) }
            }
            FetchProgress::Unpacking => return,
        };
        (self.watch)(RunUpdate::Phase(phase));
    }
}
