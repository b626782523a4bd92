//! One run's folder.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::arrivals::Arrivals;
use super::layout::{
    ARRIVALS, Area, Document, EGRESS_LOG, GATEWAY_LOG, SETUP_LOG, SNAPSHOT_LOG, STEPS, STOP_NOTE,
    VALIDATION_REPORT,
};
use super::log::LogFile;
use crate::run::{FormerFile, OutputCheck, ValidationReport};
use crate::secret::{RedactedStream, Redactor};

/// Largest `validation_report.json` that is read, in bytes. Reports have a few kilobytes; a larger
/// file is the agent's mistake and must not fill memory.
const MAX_REPORT_BYTES: u64 = 4 << 20;

/// How much of a file tells whether it is a text, in bytes.
const TEXT_HEAD_BYTES: u64 = 8 << 10;

/// How much of a file is masked at once, in bytes.
const REDACT_CHUNK_BYTES: usize = 1 << 20;

/// Deepest folder that is masked. The collector refuses deeper ones.
const MAX_REDACT_DEPTH: usize = 64;

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

    /// Masks secrets in the texts of an area. Other files stay as they are: a mask would break them.
    ///
    /// # Errors
    /// [`StoreError::Read`] or [`StoreError::Write`]; the files before the fault are masked.
    pub fn redact_texts(&self, area: Area, redactor: &Redactor) -> Result<MaskedFiles, StoreError> {
        let mut found = MaskedFiles::default();
        visit_files(&self.area(area), 0, &mut |file| {
            let read = |source| StoreError::Read { path: file.to_owned(), source };
            if !is_text(file).map_err(read)? {
                found.n_binary += 1;
                return Ok(());
            }
            let masked = redact_file(file, redactor)
                .map_err(|source| StoreError::Write { path: file.to_owned(), source })?;
            found.n_texts += 1;
            found.n_masked += u64::from(masked);
            Ok(())
        })?;
        Ok(found)
    }

    /// Masks known secrets in every file of an area. Returns how many files held one.
    ///
    /// # Errors
    /// [`StoreError::Read`] or [`StoreError::Write`]; the files before the fault are masked.
    pub fn redact(&self, area: Area, redactor: &Redactor) -> Result<usize, StoreError> {
        let mut n_masked = 0;
        visit_files(&self.area(area), 0, &mut |file| {
            let masked = redact_file(file, redactor)
                .map_err(|source| StoreError::Write { path: file.to_owned(), source })?;
            n_masked += usize::from(masked);
            Ok(())
        })?;
        Ok(n_masked)
    }
}

/// What was masked in the files of an area. Part of `trajectory.json`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaskedFiles {
    /// Texts that were looked through.
    pub n_texts: u64,
    /// Those of them that held a secret.
    pub n_masked: u64,
    /// Other files, which are as the agent left them.
    pub n_binary: u64,
}

/// Whether a file is a text, judged by its first bytes: those of pictures, archives and documents
/// have control characters among them. A text of 16-bit characters is none.
fn is_text(path: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    File::open(path)?.take(TEXT_HEAD_BYTES).read_to_end(&mut head)?;
    let is_written =
        |byte: &u8| !byte.is_ascii_control() || b"\t\n\r\x08\x0b\x0c\x1b".contains(byte);
    Ok(!head.starts_with(b"%PDF-") && head.iter().all(is_written))
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

/// Calls `visit` for each regular file below `folder`, following no link.
fn visit_files(
    folder: &Path,
    depth: usize,
    visit: &mut dyn FnMut(&Path) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    if depth > MAX_REDACT_DEPTH {
        return Ok(());
    }
    let unreadable = |source| StoreError::Read { path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let kind = entry.file_type().map_err(unreadable)?;
        if kind.is_dir() {
            visit_files(&entry.path(), depth + 1, visit)?;
        } else if kind.is_file() {
            visit(&entry.path())?;
        }
    }
    Ok(())
}

/// Rewrites a file with its secrets masked; leaves one without secrets alone.
fn redact_file(path: &Path, redactor: &Redactor) -> io::Result<bool> {
    let mut source = File::open(path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut masked = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
    let mut stream = RedactedStream::new(redactor.clone());
    let mut chunk = vec![0; REDACT_CHUNK_BYTES];
    let mut out = Vec::new();
    loop {
        let n = source.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        stream.feed(&chunk[..n], &mut out);
        masked.write_all(&out)?;
        out.clear();
    }
    let found = stream.finish(&mut out);
    masked.write_all(&out)?;
    if found == 0 {
        return Ok(false);
    }
    masked.as_file().set_permissions(source.metadata()?.permissions())?;
    masked.persist(path).map_err(|e| e.error)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

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

    #[test]
    fn texts_are_masked_and_what_is_none_stays() {
        let (_root, folder) = folder();
        let results = folder.area(Area::Results);
        let write = |name: &str, bytes: &[u8]| std::fs::write(results.join(name), bytes).unwrap();
        write("a.txt", "ü k=sk-made-up-1234 \u{1b}[0m end\n".as_bytes());
        write("b.txt", b"plain");
        write("c.bin", b"\x00 sk-made-up-1234");
        write("d.pdf", b"%PDF-1.7 sk-made-up-1234");
        let redactor = Redactor::new(&[Secret::new("sk-made-up-1234".to_owned())]);
        let found = folder.redact_texts(Area::Results, &redactor).unwrap();
        assert_eq!(found, MaskedFiles { n_texts: 2, n_masked: 1, n_binary: 2 });
        let read = |name: &str| std::fs::read_to_string(results.join(name)).unwrap();
        assert_eq!(read("a.txt"), "ü k=[redacted] \u{1b}[0m end\n");
        assert!(read("c.bin").contains("1234") && read("d.pdf").contains("1234"));
    }

    #[test]
    fn secrets_in_session_files_are_masked_and_other_files_are_not_touched() {
        let (_root, folder) = folder();
        let sessions = folder.area(Area::Sessions).join("projects");
        std::fs::create_dir_all(&sessions).unwrap();
        std::fs::write(sessions.join("a.jsonl"), "k=sk-made-up-1234 end").unwrap();
        std::fs::write(sessions.join("b.jsonl"), "plain").unwrap();
        let redactor = Redactor::new(&[Secret::new("sk-made-up-1234".to_owned())]);
        assert_eq!(folder.redact(Area::Sessions, &redactor).unwrap(), 1);
        assert_eq!(std::fs::read(sessions.join("a.jsonl")).unwrap(), b"k=[redacted] end");
        assert_eq!(std::fs::read(sessions.join("b.jsonl")).unwrap(), b"plain");
        assert_eq!(folder.session_files().unwrap().len(), 2);
    }
}
