//! What a run left: its record, read back from the disk as anybody would read it.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use runbookd::run::RunStatus;
use runbookd::worker::{RunReport, RunUpdate};
use serde_json::Value;

use super::stage::is_required;

/// The longest text in an outline, in characters.
const SHOWN: usize = 160;

/// Token counts by model: input, output, cache read, cache write for 5 minutes, for an hour, unsplit.
type Counts = BTreeMap<String, [u64; 6]>;

/// Where the output stands among them.
const OUTPUT: usize = 1;

/// Which of the tokens that the provider sent stand in the record, by every category.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tokens {
    /// Those of the replies that came whole. What broke off is counted nowhere by the CLI.
    OfWholeReplies,
    /// Those of every reply that began: where the CLI counts nothing at all, what it showed counts.
    OfBegunReplies,
    /// Those of whole replies, the output as a lower bound: the session files were lost.
    AtLeast,
}

/// What a run left. A story that fails shows it.
pub(crate) struct Scene {
    pub(crate) report: RunReport,
    pub(crate) updates: Vec<RunUpdate>,
    pub(crate) trajectory: Value,
    /// The requests to the scripted provider, and what became of them.
    pub(crate) ledger: Vec<Value>,
    /// The agent's standard output as it was kept.
    pub(crate) log: Vec<u8>,
    /// Removed with the scene.
    _work: tempfile::TempDir,
}

impl Scene {
    pub(super) fn new(work: tempfile::TempDir, report: RunReport, updates: Vec<RunUpdate>) -> Self {
        let read = |name: &str| std::fs::read(report.folder.join(name)).unwrap_or_default();
        Self {
            trajectory: serde_json::from_slice(&read("trajectory.json")).unwrap(),
            ledger: String::from_utf8(read("logs/provider.jsonl"))
                .unwrap()
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect(),
            log: read("logs/agent/claude-code.txt"),
            report,
            updates,
            _work: work,
        }
    }

    /// The run's folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.report.folder
    }

    /// The text of a file of the run.
    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// `completed`, `cancelled`, or the failure's code.
    pub(crate) fn ending(&self) -> &'static str {
        match &self.report.status {
            RunStatus::Failed(failure) => failure.code(),
            status @ (RunStatus::Pending
            | RunStatus::Running
            | RunStatus::Completed
            | RunStatus::Cancelled) => status.as_str(),
        }
    }

    /// Every warning of the record.
    pub(crate) fn warnings(&self) -> Vec<&str> {
        self.trajectory["warnings"].as_array().unwrap().iter().filter_map(Value::as_str).collect()
    }

    /// The files of the run, sorted, relative to its folder.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    found.push(entry.path());
                }
            }
        }
        found.sort();
        found
    }

    /// The token counts of the record are those that the provider sent.
    pub(super) fn every_token_is_counted(&self, tokens: Tokens) {
        let counts_here = |entry: &&Value| match tokens {
            Tokens::OfWholeReplies | Tokens::AtLeast => entry["delivery"] == "complete",
            Tokens::OfBegunReplies => true,
        };
        let mut sent = Counts::new();
        for entry in self.ledger.iter().filter(counts_here) {
            if let (Some(model), true) = (entry["model"].as_str(), entry["usage"].is_object()) {
                let counts = counts(&entry["usage"]);
                let sum = sent.entry(model.to_owned()).or_default();
                sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
        }
        let models = self.trajectory["usage"]["models"].as_object().unwrap();
        let mut recorded: Counts =
            models.iter().map(|(model, usage)| (model.clone(), counts(usage))).collect();
        if tokens == Tokens::AtLeast {
            for (model, counts) in &mut recorded {
                let output = sent.get(model).map_or(0, |counts| counts[OUTPUT]);
                assert!((1..=output).contains(&counts[OUTPUT]), "{counts:?}");
                counts[OUTPUT] = output;
            }
            let lower_bound = |warning: &&str| warning.contains("a lower bound");
            assert!(self.warnings().iter().any(lower_bound), "{:?}", self.warnings());
        }
        assert_eq!(recorded, sent, "recorded tokens, and those that were sent");
    }

    /// Harbor's own validator accepts the interchange document.
    pub(super) fn the_interchange_document_is_valid(&self) {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/atif-validator");
        let validated = Command::new(tool).arg(self.folder().join("atif.json")).output().unwrap();
        let words = String::from_utf8_lossy(&validated.stdout);
        match validated.status.code() {
            Some(0) => {}
            Some(69) if !is_required() => println!("SKIPPED the validation of atif.json"),
            code => panic!("{code:?} {words}{}", String::from_utf8_lossy(&validated.stderr)),
        }
    }

    /// The whole run in a few lines: how it ended, what it achieved and used, its steps, and what
    /// looked wrong. The same on both engines.
    pub(crate) fn outline(&self) -> String {
        let mut text = match &self.report.status {
            RunStatus::Failed(failure) => format!("failed: {}: {failure}\n", failure.code()),
            status @ (RunStatus::Pending
            | RunStatus::Running
            | RunStatus::Completed
            | RunStatus::Cancelled) => format!("{}\n", status.as_str()),
        };
        let verdict = &self.trajectory["verdict"];
        let outputs = verdict["primary_outputs"].as_array().unwrap();
        let outputs = outputs.iter().map(|output| {
            let mark = if output["exists"] == true { "there" } else { "missing" };
            format!(", {} {mark}", word(&output["path"]))
        });
        let outputs: String = outputs.collect();
        writeln!(
            text,
            "verdict: {}, {} files, report {}{outputs}",
            verdict["passed"],
            verdict["n_results"],
            word(&verdict["validation"]["state"])
        )
        .unwrap();
        let usage = &self.trajectory["usage"];
        writeln!(text, "usage: {} {}", word(&usage["source"]), tokens(&usage["models"])).unwrap();
        for step in self.trajectory["agent_steps"].as_array().unwrap() {
            let indent = if step["parent_tool_call"].is_string() { "  " } else { "" };
            writeln!(text, "{indent}{}", step_line(step)).unwrap();
        }
        for warning in self.warnings() {
            writeln!(text, "! {}", clip(warning)).unwrap();
        }
        text
    }
}

/// A failing story shows the scene.
impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{self}");
        }
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Lines of the agent's output that are shown.
        const LAST: usize = 20;
        writeln!(f, "== the run\n{}\n== its files", self.outline())?;
        for file in self.files() {
            let n_bytes = file.symlink_metadata().map_or(0, |metadata| metadata.len());
            let name = file.strip_prefix(self.folder()).unwrap_or(&file);
            writeln!(f, "{n_bytes:>9} {}", name.display())?;
        }
        writeln!(f, "== the requests")?;
        self.ledger.iter().try_for_each(|entry| writeln!(f, "{entry}"))?;
        let log = String::from_utf8_lossy(&self.log);
        let lines: Vec<&str> = log.lines().collect();
        writeln!(f, "== the last of {} lines", lines.len())?;
        for line in &lines[lines.len().saturating_sub(LAST)..] {
            writeln!(f, "{}", line.chars().take(1_000).collect::<String>())?;
        }
        let stderr = std::fs::read_to_string(self.folder().join("logs/agent/stderr.txt"));
        writeln!(f, "== standard error\n{}", stderr.unwrap_or_default())
    }
}

fn counts(usage: &Value) -> [u64; 6] {
    ["input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "cache_write_unsplit"]
        .map(|category| usage[category].as_u64().unwrap_or(0))
}

fn tokens(models: &Value) -> String {
    let models = models.as_object().unwrap().iter();
    let models: Vec<String> = models
        .map(|(model, usage)| {
            let counts = counts(usage).map(|count| count.to_string());
            format!("{model} {}", counts.join("/"))
        })
        .collect();
    models.join(", ")
}

fn step_line(step: &Value) -> String {
    let kind = word(&step["kind"]);
    let said = |field: &str| clip(step[field]["text"].as_str().unwrap_or_default());
    match kind {
        "message" => {
            let thinking = said("thinking");
            let thinking = if thinking.is_empty() { thinking } else { format!("({thinking}) ") };
            let made_up = if step["synthetic"] == true { " [made up]" } else { "" };
            format!("message{made_up}: {thinking}{}", said("text"))
        }
        "tool_call" => {
            let result = &step["result"];
            let outcome = match (result.is_null(), result["is_error"] == true) {
                (true, _) => "no result".to_owned(),
                (false, failed) => {
                    let mark = if failed { "FAILED " } else { "" };
                    format!("{mark}{}", clip(result["content"]["text"].as_str().unwrap()))
                }
            };
            // The CLI says how long a sub-agent took.
            let outcome = outcome.split("duration_ms: ").next().unwrap_or_default();
            format!(
                "{} {} -> {outcome}",
                word(&step["name"]),
                clip(&step["input"]["value"].to_string())
            )
        }
        "retry" => format!(
            "retry {} of {}: {} {}",
            step["attempt"],
            step["max_retries"],
            step["status"],
            word(&step["error"])
        ),
        "result" => format!("result {}: {}", word(&step["subtype"]), said("text")),
        "user_text" => format!("user: {}", said("text")),
        other => other.to_owned(),
    }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// One line of at most [`SHOWN`] characters.
fn clip(text: &str) -> String {
    let line = text.trim().replace('\n', "\\n");
    // Claude Code draws an id for each sub-agent, and says it twice.
    let id = line.split_once("agentId: ").and_then(|(_, rest)| rest.split(' ').next());
    let line = id.map_or_else(|| line.clone(), |id| line.replace(id, "ID"));
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
