//! After the agent's end: nothing of it goes on, and what it made is collected.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::attend::Stop;
use super::keep::{KeepError, keep_end};
use crate::host::blocking;
use crate::sandbox::{
    AgentFolder, CollectLimits, Collected, CollectedFile, Folder, Sandbox, SandboxError, collect,
};
use crate::secret::Redactor;
use crate::store::{Area, LogFile, MaskedFiles, RunFolder, SETUP_LOG, StoreError};

/// What is collected of `/app/results`. A report with its pictures has megabytes and a few hundred
/// files; more is a mistake (a virtual environment, a checkout) that must not fill the disk.
const RESULTS: CollectLimits =
    CollectLimits { n_entries: 20_000, total_bytes: 4 << 30, file_bytes: 2 << 30, depth: 32 };

/// What is collected of the agent CLI's session files. They hold every tool result once more.
const SESSIONS: CollectLimits =
    CollectLimits { n_entries: 5_000, total_bytes: 2 << 30, file_bytes: 1 << 30, depth: 16 };

/// What an agent left.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Remains {
    /// What was collected of `/app/results`.
    pub(super) results: Vec<CollectedFile>,
    /// The other files of the run, relative to its folder.
    pub(super) logs: Vec<String>,
    /// The end of the standard error, secrets masked.
    pub(super) stderr_tail: String,
    /// The end of what the setup script wrote, secrets masked.
    pub(super) setup_tail: String,
    /// What could not be collected, as whole sentences.
    pub(super) warnings: Vec<String>,
    /// What was masked in the results, where that was wanted.
    #[serde(default)]
    pub(super) masked: Option<MaskedFiles>,
}

/// What is masked of what an agent left.
pub(super) struct Masking {
    /// What masks it.
    pub(super) redactor: Redactor,
    /// Whether the results are masked as the logs are.
    pub(super) results: bool,
}

/// An agent's end could not be brought about, or its remains could not be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConcludeError {
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] KeepError),
    #[error("the collector of the agent's files panicked")]
    Collector,
}

/// Ends what is left of the agent and collects its files, unless the run was ended by force. The
/// first fault is given beside what could be collected. The sandbox stays for the caller to remove.
pub(super) async fn conclude(
    sandbox: &mut Sandbox,
    folder: &RunFolder,
    Masking { redactor, results }: Masking,
    stop: &Stop,
    has_setup: bool,
) -> (Remains, Result<(), ConcludeError>) {
    let killed = sandbox.kill().await.map_err(ConcludeError::Sandbox);
    let (remains, collected) = if killed.is_ok() && !stop.force.is_cancelled() {
        let collection = Collection {
            results: sandbox.folder(Folder::Results),
            sessions: sandbox.folder(Folder::Sessions),
            stderr: sandbox.stderr().to_owned(),
            setup_log: has_setup.then(|| sandbox.setup_log().to_owned()),
            folder: folder.clone(),
            redactor,
            masks_results: results,
        };
        match blocking(move || collection.collect()).await {
            Ok(collected) => collected,
            Err(_) => (Remains::default(), Err(ConcludeError::Collector)),
        }
    } else {
        (Remains::default(), Ok(()))
    };
    (remains, killed.and(collected))
}

/// Everything that collecting needs, so that it can go to a thread that may block.
struct Collection {
    results: AgentFolder,
    sessions: AgentFolder,
    stderr: PathBuf,
    /// `None` where there was no setup script.
    setup_log: Option<PathBuf>,
    folder: RunFolder,
    redactor: Redactor,
    /// Whether they are masked in the results, too.
    masks_results: bool,
}

impl Collection {
    /// Copies what there is. A fault in one part does not cost the others.
    fn collect(self) -> (Remains, Result<(), ConcludeError>) {
        let mut remains = Remains::default();
        // An earlier process may have been killed while it collected.
        let cleared = [Area::Results, Area::Sessions].map(|area| self.folder.clear(area));
        if let Some(fault) = cleared.into_iter().find_map(Result::err) {
            return (remains, Err(fault.into()));
        }
        remains.results = self.copy(&self.results, Area::Results, &RESULTS, &mut remains.warnings);
        let sessions = self.copy(&self.sessions, Area::Sessions, &SESSIONS, &mut remains.warnings);
        let below =
            |area: Area| move |file: CollectedFile| format!("{}/{}", area.path(), file.path);
        remains.logs = sessions.into_iter().map(below(Area::Sessions)).collect();
        let redacted = self.folder.redact(Area::Sessions, &self.redactor);
        let redacted = redacted.map(|_| ()).map_err(ConcludeError::Store);
        let results = self.mask_results(&mut remains);
        let stderr = self.keep_stderr(&mut remains);
        let setup = self.keep_setup_log(&mut remains);
        (remains, redacted.and(results).and(stderr).and(setup))
    }

    /// Masks the results where that is wanted. Their sizes are those of the masked files.
    fn mask_results(&self, remains: &mut Remains) -> Result<(), ConcludeError> {
        if !self.masks_results {
            return Ok(());
        }
        remains.masked = Some(self.folder.redact_texts(Area::Results, &self.redactor)?);
        let area = self.folder.area(Area::Results);
        for file in &mut remains.results {
            if let Ok(metadata) = std::fs::metadata(area.join(&file.path)) {
                file.bytes = metadata.len();
            }
        }
        Ok(())
    }

    fn keep_stderr(&self, remains: &mut Remains) -> Result<(), ConcludeError> {
        remains.stderr_tail = self.keep(&self.stderr, self.folder.stderr_log()?)?;
        remains.logs.push(format!("{}/stderr.txt", Area::AgentLogs.path()));
        Ok(())
    }

    fn keep_setup_log(&self, remains: &mut Remains) -> Result<(), ConcludeError> {
        let Some(log) = &self.setup_log else { return Ok(()) };
        remains.setup_tail = self.keep(log, self.folder.setup_log()?)?;
        remains.logs.push(SETUP_LOG.to_owned());
        Ok(())
    }

    fn keep(&self, from: &Path, log: LogFile) -> Result<String, ConcludeError> {
        Ok(keep_end(from, log, &self.redactor)?)
    }

    /// Copies a folder. What is left out is worth a warning, but not the run.
    fn copy(
        &self,
        from: &AgentFolder,
        area: Area,
        limits: &CollectLimits,
        warnings: &mut Vec<String>,
    ) -> Vec<CollectedFile> {
        /// How many left-out files are named in the record.
        const NAMED: usize = 20;
        let Collected { files, skipped, n_skipped, cut_off, .. } =
            match collect(from, &self.folder.area(area), limits) {
                Ok(collected) => collected,
                Err(e) => {
                    let cause = crate::run::error_chain(&e);
                    warnings.push(format!(
                        "The files of {} could not be collected: {cause}.",
                        area.path()
                    ));
                    return Vec::new();
                }
            };
        for skip in skipped.iter().take(NAMED) {
            warnings.push(format!(
                "Not collected from {}: {}: {}.",
                area.path(),
                skip.path,
                skip.reason
            ));
        }
        if n_skipped > NAMED {
            warnings.push(format!(
                "{} more files of {} were not collected.",
                n_skipped - NAMED,
                area.path()
            ));
        }
        if cut_off {
            warnings.push(format!(
                "{} holds more than {} files and folders; the rest was not collected.",
                area.path(),
                limits.n_entries
            ));
        }
        files
    }
}
