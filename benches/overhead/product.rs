//! One `runbookd run`, watched from outside.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::interval;

use super::agent;
use super::engine::Engine;
use super::setup::{Setup, source};
use crate::common::{Outcome, peak_bytes};

/// How often runbookd's peak memory is read. The kernel keeps the peak, so nothing is missed but
/// what grows in the last moment.
const SAMPLE: Duration = Duration::from_millis(10);

/// The moments at which a part of a run ends, in order: `--json` tells all but the last.
pub(crate) const PARTS: [&str; 6] = [
    "start, engine, plan",
    "CLI, model service",
    "sandbox made and started",
    "agent runs",
    "files collected, sandbox gone, record closed",
    "end of the process",
];

/// The part in which the agent runs.
const AGENT_RUNS: usize = 3;

/// A finished run.
#[derive(Debug)]
pub(crate) struct ProductRun {
    /// From the start of the process to its end.
    pub(crate) wall: Duration,
    /// How long each of [`PARTS`] took.
    pub(crate) parts: [Duration; PARTS.len()],
    /// The agent CLI's own account of its time.
    pub(crate) own: Duration,
    /// The most memory that runbookd's process held.
    pub(crate) peak_bytes: u64,
    /// The prompt, so that the floor has the same one.
    pub(crate) instruction: PathBuf,
}

impl ProductRun {
    /// What was spent while no agent ran.
    pub(crate) fn overhead(&self) -> Duration {
        self.wall.saturating_sub(self.parts[AGENT_RUNS])
    }
}

/// Runs the runbook once.
pub(crate) async fn run(setup: &Setup, engine: Engine) -> Outcome<ProductRun> {
    let complaints = setup.folder().join("complaints");
    let mut command = command(setup, engine, &complaints)?;
    let begun = Instant::now();
    let mut child = command.spawn()?;
    let process = child.id().map(|id| id.to_string()).unwrap_or_default();
    let output = child.stdout.take().ok_or("runbookd has no output")?;
    let mut lines = BufReader::new(output).lines();
    let mut sample = interval(SAMPLE);
    let mut peak = None;
    let mut timeline = Timeline::default();
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) => timeline.hear(&line, begun.elapsed())?,
                None => break,
            },
            _ = sample.tick() => peak = peak_bytes(&process).or(peak),
        }
    }
    let status = child.wait().await?;
    let wall = begun.elapsed();
    if !status.success() {
        let words = std::fs::read_to_string(&complaints).unwrap_or_default();
        return Err(format!("`runbookd run` ended with {status}: {}", words.trim()).into());
    }
    let folder = timeline.folder.clone().ok_or("`runbookd run` named no folder")?;
    Ok(ProductRun {
        wall,
        parts: timeline.parts(wall)?,
        own: agent::own_time(&folder.join("logs/agent/claude-code.txt"))?,
        peak_bytes: peak.ok_or("the memory of runbookd could not be read")?,
        instruction: folder.join("instruction.md"),
    })
}

fn command(setup: &Setup, engine: Engine, complaints: &Path) -> Outcome<Command> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runbookd"));
    command
        .arg("run")
        .arg(source("runbook.md"))
        .arg("--script")
        .arg(source("script.yaml"))
        .args(["--json", "--engine", engine.name(), "--image", &setup.image])
        .arg("--results")
        .arg(setup.folder().join("results"))
        // What a killed benchmark leaves is not mixed with a person's own runs.
        .env("RUNBOOKD_STATE", setup.folder().join("state"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(complaints)?)
        .kill_on_drop(true);
    Ok(command)
}

/// When each part of a run ended.
#[derive(Debug, Default)]
struct Timeline {
    ends: [Option<Duration>; PARTS.len()],
    folder: Option<PathBuf>,
}

impl Timeline {
    fn hear(&mut self, line: &str, at: Duration) -> Outcome<()> {
        let line: Value = serde_json::from_str(line)?;
        let ended = match (line["event"].as_str(), line["phase"].as_str()) {
            (Some("opened"), _) => {
                self.folder = line["folder"].as_str().map(PathBuf::from);
                0
            }
            (Some("phase"), Some("provisioning")) => 1,
            (Some("phase"), Some("running")) => 2,
            (Some("phase"), Some("collecting")) => AGENT_RUNS,
            (Some("finished"), _) => 4,
            (_, _) => return Ok(()),
        };
        self.ends[ended] = Some(at);
        Ok(())
    }

    /// The parts' times, which add up to `wall`.
    fn parts(mut self, wall: Duration) -> Outcome<[Duration; PARTS.len()]> {
        self.ends[PARTS.len() - 1] = Some(wall);
        let mut parts = [Duration::ZERO; PARTS.len()];
        let mut before = Duration::ZERO;
        for ((part, end), name) in parts.iter_mut().zip(self.ends).zip(PARTS) {
            let end =
                end.ok_or_else(|| format!("`runbookd run` did not tell the end of: {name}"))?;
            *part = end.saturating_sub(before);
            before = end;
        }
        Ok(parts)
    }
}
