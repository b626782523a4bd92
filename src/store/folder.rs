//! One run's folder.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Component, Path, PathBuf};

use super::StoreError;
use super::arrivals::Arrivals;
use super::layout::{
    ARRIVALS, Area, Document, EGRESS_LOG, GATEWAY_LOG, SETUP_LOG, SNAPSHOT_LOG, STEPS, STOP_NOTE,
    VALIDATION_REPORT,
};
use super::log::LogFile;
use super::mask::visit_files;
use crate::run::{FormerFile, OutputCheck, ValidationReport};

/// Largest `validation_report.json` that is read, in bytes. Reports have a few kilobytes; a larger
/// file is the agent's mistake and must not fill memory.
const MAX_REPORT_BYTES: u64 = 4 << 20;

/// How the name of a file starts that is still being written.
pub(super) const UNFINISHED: &str = ".write-";

/// The folder of one run.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    pub(super) fn new(path: PathBuf) -> Result<Self, StoreError> {
        for area in Area::ALL {
            let area = path.join(area.path());
            std::fs::create_dir_all(&area)
                .map_err(|source| StoreError::Create { path: area, source })?;
        }
        Ok(Self { path })
    }

    /// The folder of a run that is there already.
    pub(super) fn there(path: PathBuf) -> Self {
        Self { path }
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder inside it.
    #[must_use]
    pub fn area(&self, area: Area) -> PathBuf {
        self.path.join(area.path())
    }

    /// A document inside it, whether it was written or not.
    #[must_use]
    pub fn document(&self, document: Document) -> PathBuf {
        self.path.join(document.file_name())
    }

    /// Writes a document: readers see the old one or the new one, never a part.
    ///
    /// # Errors
    /// [`StoreError::Write`] when the disk refuses it.
    pub fn write(&self, document: Document, contents: &[u8]) -> Result<(), StoreError> {
        let path = self.document(document);
        write_atomically(&self.path, &path, contents)
            .map_err(|source| StoreError::Write { path, source })
    }

    /// A document's bytes; `None` when it is not there. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Read`] when the disk refuses it.
    pub fn read_if_there(&self, document: Document) -> Result<Option<Vec<u8>>, StoreError> {
        match self.read(document) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// How long a document is, in bytes; 0 where it is not there. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Read`] when the disk refuses it.
    pub fn document_bytes(&self, document: Document) -> Result<u64, StoreError> {
        Ok(match self.open_if_there(document)? {
            Some(file) => {
                let path = self.document(document);
                file.metadata().map_err(|source| StoreError::Read { path, source })?.len()
            }
            None => 0,
        })
    }

    /// Opens a document for reading; `None` when it is not there. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Read`] when the disk refuses it.
    pub fn open_if_there(&self, document: Document) -> Result<Option<File>, StoreError> {
        let path = self.document(document);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Read { path, source }),
        }
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`StoreError::Read`] when it is not there or cannot be read.
    pub fn read(&self, document: Document) -> Result<Vec<u8>, StoreError> {
        let path = self.document(document);
        std::fs::read(&path).map_err(|source| StoreError::Read { path, source })
    }

    /// The regular files of an area, sorted by path. One whose name is no text is left out, and so
    /// is everything in an area that is not there.
    ///
    /// # Errors
    /// [`StoreError::Read`] when a folder cannot be listed.
    pub fn files(&self, area: Area) -> Result<Vec<FormerFile>, StoreError> {
        let root = self.area(area);
        let mut files = Vec::new();
        if root.is_dir() {
            visit_files(&root, 0, &mut |file| {
                let path = file.strip_prefix(&root).ok().and_then(Path::to_str);
                let host_path = file.to_owned();
                files.extend(path.map(|path| FormerFile { path: path.to_owned(), host_path }));
                Ok(())
            })?;
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// Opens the log of the agent's standard output, `logs/agent/<runtime>.txt`. Where there is one,
    /// the same bytes are expected once more: see [`LogFile`].
    ///
    /// # Errors
    /// [`StoreError::Write`] when it cannot be made.
    pub fn agent_log(&self, runtime: &str) -> Result<LogFile, StoreError> {
        LogFile::open(self.agent_log_path(runtime))
    }

    /// Where the log of the agent's standard output lies.
    #[must_use]
    pub fn agent_log_path(&self, runtime: &str) -> PathBuf {
        self.area(Area::AgentLogs).join(format!("{runtime}.txt"))
    }

    /// When the lines of the agent's standard output arrived.
    ///
    /// # Errors
    /// [`StoreError::Write`] when the file cannot be made, read or cut.
    pub fn arrivals(&self) -> Result<Arrivals, StoreError> {
        Arrivals::open(self.area(Area::AgentLogs).join(ARRIVALS))
    }

    /// Notes why the agent is asked to end, for a process that takes the run over in between.
    ///
    /// # Errors
    /// [`StoreError::Write`] when the disk refuses it.
    pub fn note_stop(&self, why: &[u8]) -> Result<(), StoreError> {
        let folder = self.area(Area::AgentLogs);
        let path = folder.join(STOP_NOTE);
        write_atomically(&folder, &path, why).map_err(|source| StoreError::Write { path, source })
    }

    /// Why an earlier process asked the agent to end; `None` where none did.
    #[must_use]
    pub fn stop_note(&self) -> Option<Vec<u8>> {
        std::fs::read(self.area(Area::AgentLogs).join(STOP_NOTE)).ok()
    }

    /// Starts the log of the agent's standard error, `logs/agent/stderr.txt`. It is written in one
    /// go, so an earlier one is replaced.
    ///
    /// # Errors
    /// [`StoreError::Write`] when it cannot be made.
    pub fn stderr_log(&self) -> Result<LogFile, StoreError> {
        LogFile::replace(self.area(Area::AgentLogs).join("stderr.txt"))
    }

    /// Starts the log of the setup script, `logs/setup.txt`. It is written in one go, so an earlier
    /// one is replaced.
    ///
    /// # Errors
    /// [`StoreError::Write`] when it cannot be made.
    pub fn setup_log(&self) -> Result<LogFile, StoreError> {
        LogFile::replace(self.path.join(SETUP_LOG))
    }

    /// Opens the log of a model service that runs in this process, `logs/provider.jsonl`. What it
    /// answered before a restart stays.
    ///
    /// # Errors
    /// [`StoreError::Write`] when it cannot be made.
    pub fn provider_log(&self) -> Result<LogFile, StoreError> {
        LogFile::extend(self.path.join("logs/provider.jsonl"))
    }

    /// Where the ledger of the run's gateway lies, `logs/gateway.jsonl`. The gateway writes it.
    #[must_use]
    pub fn gateway_log(&self) -> PathBuf {
        self.path.join(GATEWAY_LOG)
    }

    /// The ledger of the run's gateway as it is; nothing where the run has none.
    ///
    /// # Errors
    /// [`StoreError::Read`] when it cannot be opened.
    pub fn gateway_ledger(&self) -> Result<Option<File>, StoreError> {
        self.ledger(GATEWAY_LOG)
    }

    /// Where the ledger of the run's proxy lies, `logs/egress.jsonl`. The proxy writes it.
    #[must_use]
    pub fn egress_log(&self) -> PathBuf {
        self.path.join(EGRESS_LOG)
    }

    /// The ledger of the run's proxy as it is; nothing where the run has none.
    ///
    /// # Errors
    /// [`StoreError::Read`] when it cannot be opened.
    pub fn egress_ledger(&self) -> Result<Option<File>, StoreError> {
        self.ledger(EGRESS_LOG)
    }

    /// The ledgers of the proxies of all its steps, its own first.
    ///
    /// # Errors
    /// [`StoreError::Read`] when one cannot be opened.
    pub fn egress_ledgers(&self) -> Result<Vec<File>, StoreError> {
        let steps = std::fs::read_dir(self.path.join(STEPS)).into_iter().flatten().flatten();
        let mut steps: Vec<PathBuf> = steps.map(|entry| entry.path()).collect();
        steps.sort();
        let steps = steps.into_iter().map(|path| Self::there(path).egress_ledger());
        std::iter::once(self.egress_ledger()).chain(steps).filter_map(Result::transpose).collect()
    }

    fn ledger(&self, name: &str) -> Result<Option<File>, StoreError> {
        let path = self.path.join(name);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Read { path, source }),
        }
    }

    /// Starts the log of the builds that the run's image needed, `logs/snapshot.txt`.
    ///
    /// # Errors
    /// [`StoreError::Write`] when it cannot be made.
    pub fn snapshot_log(&self) -> Result<LogFile, StoreError> {
        LogFile::replace(self.path.join(SNAPSHOT_LOG))
    }

    /// Empties an area, for files that are collected once more.
    ///
    /// # Errors
    /// [`StoreError::Write`] when something cannot be removed.
    pub fn clear(&self, area: Area) -> Result<(), StoreError> {
        let path = self.area(area);
        let cleared = match std::fs::remove_dir_all(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            Ok(()) | Err(_) => std::fs::create_dir_all(&path),
        };
        cleared.map_err(|source| StoreError::Write { path, source })
    }

    /// Copies a file that the run is given, unless it lies in its place already. The name may have
    /// folders.
    ///
    /// # Errors
    /// [`StoreError::Write`] when it cannot be copied.
    pub fn keep_asset(&self, name: &str, from: &Path) -> Result<(), StoreError> {
        let path = self.area(Area::Assets).join(name);
        if path.canonicalize().is_ok_and(|there| from.canonicalize().is_ok_and(|it| it == there)) {
            return Ok(());
        }
        let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        match folder.and_then(|()| std::fs::copy(from, &path)) {
            Ok(_) => Ok(()),
            Err(source) => Err(StoreError::Write { path, source }),
        }
    }

    /// Which of the declared outputs were collected, in their order.
    #[must_use]
    pub fn check_outputs(&self, declared: &[String]) -> Vec<OutputCheck> {
        let results = self.area(Area::Results);
        declared
            .iter()
            .map(|path| {
                let exists = stays_inside(path)
                    && std::fs::symlink_metadata(results.join(path)).is_ok_and(|m| m.is_file());
                OutputCheck { path: path.clone(), exists }
            })
            .collect()
    }

    /// Whether the runbook's report on itself is, byte for byte, one that a former run left.
    #[must_use]
    pub fn has_report_of(&self, former: &[FormerFile]) -> bool {
        let Some(old) = former.iter().find(|file| file.path == VALIDATION_REPORT) else {
            return false;
        };
        let new = self.area(Area::Results).join(VALIDATION_REPORT);
        let read = |path: &Path| read_bounded(path, MAX_REPORT_BYTES).ok().flatten();
        matches!((read(&old.host_path), read(&new)), (Some(old), Some(new)) if old == new)
    }

    /// Reads the runbook's own report on itself.
    #[must_use]
    pub fn validation_report(&self) -> ValidationReport {
        let path = self.area(Area::Results).join(VALIDATION_REPORT);
        let text = match read_bounded(&path, MAX_REPORT_BYTES) {
            Ok(Some(text)) => text,
            Ok(None) => {
                let reason = format!("{VALIDATION_REPORT} is larger than {MAX_REPORT_BYTES} bytes");
                return ValidationReport::Unreadable { reason };
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => return ValidationReport::Absent,
            Err(e) => return ValidationReport::Unreadable { reason: e.to_string() },
        };
        match serde_json::from_slice::<serde_json::Value>(&text) {
            Ok(report) if report.is_object() => match report.get("overall_passed") {
                None => ValidationReport::Read { overall_passed: None },
                Some(serde_json::Value::Bool(passed)) => {
                    ValidationReport::Read { overall_passed: Some(*passed) }
                }
                Some(other) => ValidationReport::Unreadable {
                    reason: format!("`overall_passed` must be true or false, not {other}"),
                },
            },
            Ok(_) => ValidationReport::Unreadable { reason: "it is not a JSON object".to_owned() },
            Err(e) => ValidationReport::Unreadable { reason: format!("it is not JSON: {e}") },
        }
    }

    /// The agent CLI's session files (`*.jsonl`), sorted by path.
    ///
    /// # Errors
    /// [`StoreError::Read`] when the folder cannot be listed.
    pub fn session_files(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut files = Vec::new();
        visit_files(&self.area(Area::Sessions), 0, &mut |file| {
            if file.extension().is_some_and(|e| e == "jsonl") {
                files.push(file.to_owned());
            }
            Ok(())
        })?;
        files.sort();
        Ok(files)
    }
}

/// Whether a relative path leads to something below its starting point.
fn stays_inside(path: &str) -> bool {
    let mut components = Path::new(path).components().peekable();
    components.peek().is_some() && components.all(|c| matches!(c, Component::Normal(_)))
}

pub(super) fn write_atomically(folder: &Path, path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    // The rename itself is on the disk only when its folder is.
    File::open(folder)?.sync_all()
}

/// The file's bytes, or `None` when it has more than `limit`.
fn read_bounded(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let n = File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((n as u64 <= limit).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, RunFolder) {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(root.path().join("run")).unwrap();
        (root, folder)
    }

    #[test]
    fn outputs_are_checked_in_order_and_never_outside() {
        let (root, folder) = folder();
        std::fs::write(root.path().join("run/outside.md"), "x").unwrap();
        std::fs::create_dir(folder.area(Area::Results).join("sub")).unwrap();
        std::fs::write(folder.area(Area::Results).join("sub/a.md"), "x").unwrap();
        let declared = ["sub/a.md", "missing.md", "sub", "../outside.md", "/etc/passwd", ""]
            .map(str::to_owned);
        let found: Vec<bool> =
            folder.check_outputs(&declared).into_iter().map(|check| check.exists).collect();
        assert_eq!(found, [true, false, false, false, false, false]);
    }

    #[test]
    fn a_validation_report_is_read_or_its_fault_is_said() {
        let (_root, folder) = folder();
        assert_eq!(folder.validation_report(), ValidationReport::Absent);
        for (text, expected) in [
            (r#"{"overall_passed":true}"#, "Read { overall_passed: Some(true) }"),
            (r#"{"stages":[]}"#, "Read { overall_passed: None }"),
            (r#"{"overall_passed":"yes"}"#, "must be true or false"),
            ("[]", "not a JSON object"),
            ("{", "not JSON"),
        ] {
            std::fs::write(folder.area(Area::Results).join(VALIDATION_REPORT), text).unwrap();
            let report = format!("{:?}", folder.validation_report());
            assert!(report.contains(expected), "{text}: {report}");
        }
    }
}
