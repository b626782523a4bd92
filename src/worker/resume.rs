//! Finds a former run whose conversation shall go on, and everything of it that its agent needs.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::lines::MAX_LINE_BYTES;
use crate::run::{Asset, Former, FormerFile, RunName, RunRef, RuntimeName};
use crate::runtime;
use crate::secret::MASK;
use crate::store::{Area, Document, RunFolder, Store, StoreError};
use crate::trajectory::{DocumentError, TrajectorySession, read_session};

/// A run's conversation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// There is no such run.
    #[error(
        "there is no run `{wanted}` in {}: check the id, or name the folder with `--results`",
        results.display()
    )]
    NotFound {
        /// How the run was named.
        wanted: RunRef,
        /// Where it was looked for.
        results: PathBuf,
    },
    /// Several runs have the id.
    #[error("several runs have the id `{wanted}`: write one of {}", list(found))]
    Ambiguous {
        /// How the run was named.
        wanted: RunRef,
        /// The runs.
        found: Vec<RunName>,
    },
    /// It has not ended.
    #[error(
        "the run {name} has not ended (its record says `{status}`): wait for its end or cancel it; \
         one whose runbookd was killed left no session files and cannot be resumed"
    )]
    NotEnded {
        /// The run.
        name: RunName,
        /// Where it stands.
        status: String,
    },
    /// Its agent is one that this version does not know.
    #[error("the run {name} was carried out by the agent `{agent}`, which cannot be resumed here")]
    OtherAgent {
        /// The run.
        name: RunName,
        /// Its agent.
        agent: String,
    },
    /// It has several conversations, one for each step.
    #[error(
        "the run {name} has several steps, each with a conversation of its own, and cannot be gone \
         on with: start the runbook of one of them"
    )]
    SeveralSteps {
        /// The run.
        name: RunName,
    },
    /// It left no conversation.
    #[error(
        "the run {name} left no session files, so there is no conversation to go on with: start \
         its runbook again without `--resume`"
    )]
    NoSession {
        /// The run.
        name: RunName,
    },
    /// Its record cannot be understood.
    #[error("the record of the run {name} cannot be read")]
    Record {
        /// The run.
        name: RunName,
        /// Why.
        source: DocumentError,
    },
    /// Its session file cannot be read.
    #[error("the session file `{}` cannot be read", path.display())]
    Session {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its folder cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The run that `wanted` names in the results directory, ready to go on.
///
/// # Errors
/// [`ResumeError`] when there is not exactly one such run, or its conversation cannot go on.
pub fn find_former(results: &Path, wanted: &RunRef) -> Result<Former, ResumeError> {
    let not_found =
        || ResumeError::NotFound { wanted: wanted.clone(), results: results.to_owned() };
    let store = Store::existing(results).ok_or_else(not_found)?;
    let mut found = store.find(wanted)?;
    let name = match (found.pop(), found.is_empty()) {
        (Some(name), true) => name,
        (None, _) => return Err(not_found()),
        (Some(last), false) => {
            found.push(last);
            return Err(ResumeError::Ambiguous { wanted: wanted.clone(), found });
        }
    };
    let folder = store.folder(&name).ok_or_else(not_found)?;
    former(name, &folder)
}

fn former(name: RunName, folder: &RunFolder) -> Result<Former, ResumeError> {
    let json = folder.read(Document::Trajectory)?;
    let record = match read_session(&json) {
        Ok(record) => record,
        Err(source) => return Err(ResumeError::Record { name, source }),
    };
    let assets = assets(folder.files(Area::Assets)?, &record.assets());
    let TrajectorySession { status, agent, init_params, total_steps, .. } = record;
    if !matches!(status.as_str(), "completed" | "failed" | "cancelled") {
        return Err(ResumeError::NotEnded { name, status });
    }
    if total_steps.len() > 1 {
        return Err(ResumeError::SeveralSteps { name });
    }
    let Some(runtime) = RuntimeName::from_word(&agent.name) else {
        return Err(ResumeError::OtherAgent { name, agent: agent.name });
    };
    let mut sessions = folder.files(Area::Sessions)?;
    let conversations = format!("{}/", runtime::conversations_folder(runtime));
    sessions.retain(|file| file.path.starts_with(&conversations));
    let Some((session_id, main)) = conversation(runtime, &agent.session_ids, &sessions) else {
        return Err(ResumeError::NoSession { name });
    };
    let is_masked =
        says_mask(&main).map_err(|source| ResumeError::Session { path: main.clone(), source })?;
    Ok(Former {
        session_id,
        is_masked,
        results: folder.files(Area::Results)?,
        assets,
        runbook: folder.read(Document::Runbook)?,
        agent: agent.name,
        name,
        sessions,
        init_params,
    })
}

/// The given files that are still there, in the order in which they were given and numbered.
fn assets(mut files: Vec<FormerFile>, given: &[&str]) -> Vec<Asset> {
    files.sort_by_key(|file| given.iter().position(|name| *name == file.path));
    files
        .into_iter()
        .map(|FormerFile { path: name, host_path }| Asset { name, host_path })
        .collect()
}

/// The last conversation that has a file.
fn conversation(
    runtime: RuntimeName,
    session_ids: &[String],
    sessions: &[FormerFile],
) -> Option<(Uuid, PathBuf)> {
    session_ids.iter().rev().find_map(|id| {
        let id = Uuid::try_parse(id).ok()?;
        let path = runtime::session_file(runtime, id);
        let file = sessions.iter().find(|file| file.path == path)?;
        Some((id, file.host_path.clone()))
    })
}

/// Whether a secret was masked in a file.
fn says_mask(path: &Path) -> io::Result<bool> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut next = reader.by_ref().take(MAX_LINE_BYTES as u64);
        if next.read_until(b'\n', &mut line)? == 0 {
            return Ok(false);
        }
        if line.windows(MASK.len()).any(|window| window == MASK.as_bytes()) {
            return Ok(true);
        }
    }
}

fn list(names: &[RunName]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<String>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Slug;

    const SESSION: &str = "5e551011-0000-4000-8000-000000000000";

    /// A results directory with one run, whose record says this.
    fn results(status: &str, agent: &str, with_session: bool) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        add(root.path(), "one", &record(status, agent), with_session);
        root
    }

    fn record(status: &str, agent: &str) -> String {
        serde_json::json!({
            "schema_version": 1,
            "status": status,
            "agent": { "name": agent, "session_ids": ["no uuid", SESSION] },
            "init_params": { "name": "Ada" },
            "steps": { "run": { "inputs": { "assets": ["z.csv", "a.csv"] } } },
        })
        .to_string()
    }

    fn add(root: &Path, task: &str, record: &str, with_session: bool) {
        let store = Store::open(root).unwrap();
        let slug = |name: &str| Slug::new(name).unwrap();
        let id = crate::run::RunId::parse("00000010").unwrap();
        let name = RunName { collection: slug("team"), task: slug(task), id };
        let folder = store.create(&name).unwrap();
        folder.write(Document::Trajectory, record.as_bytes()).unwrap();
        folder.write(Document::Runbook, b"# X").unwrap();
        std::fs::write(folder.area(Area::Assets).join("a.csv"), "").unwrap();
        std::fs::write(folder.area(Area::Assets).join("z.csv"), "").unwrap();
        std::fs::write(folder.area(Area::Sessions).join(".claude.json"), "{}").unwrap();
        if with_session {
            let path = folder.area(Area::Sessions).join("projects/-app");
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join(format!("{SESSION}.jsonl")), "{}\n[redacted]\n").unwrap();
        }
    }

    fn refusal(results: &Path, wanted: &str) -> String {
        find_former(results, &wanted.parse().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn a_run_that_cannot_go_on_is_refused_with_the_reason() {
        for (status, agent, with_session, words) in [
            ("running", "claude-code", true, "has not ended (its record says `running`)"),
            ("completed", "codex", true, "carried out by the agent `codex`"),
            ("failed", "claude-code", false, "left no session files"),
        ] {
            let results = results(status, agent, with_session);
            let refusal = refusal(results.path(), "00000010");
            assert!(refusal.contains(words), "{refusal}");
        }
        let root = tempfile::tempdir().unwrap();
        let several = r#"{"total_steps":["draft","review"],"#;
        let several = record("completed", "claude-code").replacen('{', several, 1);
        add(root.path(), "one", &several, true);
        let refused = refusal(root.path(), "00000010");
        assert!(refused.contains("has several steps, each with a conversation"), "{refused}");
        let results = results("cancelled", "claude-code", true);
        for wanted in ["00000011", "team/two/00000010"] {
            let refusal = refusal(results.path(), wanted);
            assert!(refusal.starts_with(&format!("there is no run `{wanted}`")), "{refusal}");
        }
        assert!(refusal(&results.path().join("no"), "00000010").starts_with("there is no run"));
        add(results.path(), "two", &record("completed", "claude-code"), true);
        assert_eq!(
            refusal(results.path(), "00000010"),
            "several runs have the id `00000010`: write one of `team/one/00000010`, \
             `team/two/00000010`"
        );
    }

    #[test]
    fn a_former_run_brings_its_conversation_and_its_files() {
        let results = results("cancelled", "claude-code", true);
        let former = find_former(results.path(), &"team/one/00000010".parse().unwrap()).unwrap();
        assert_eq!(former.session_id.to_string(), SESSION);
        assert!(former.is_masked);
        let sessions: Vec<&str> = former.sessions.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(sessions, [format!("projects/-app/{SESSION}.jsonl")]);
        let assets: Vec<&str> = former.assets.iter().map(|asset| asset.name.as_str()).collect();
        assert_eq!(assets, ["z.csv", "a.csv"]);
        assert_eq!(former.runbook, b"# X");
    }
}
