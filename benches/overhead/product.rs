//! One `runbookd run`, watched from outside.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::{interval, timeout};

use super::agent;
use super::engine::Engine;
use super::setup::{RUN_LIMIT, Setup, source};
use crate::common::{Outcome, peak_bytes};

/// How often runbookd's peak memory is read. The kernel keeps the peak, so nothing is missed but
/// what grows in the last moment.
const SAMPLE: Duration = Duration::from_millis(10);

/// The parts of a run, in order. `--json` tells the end of all but the last.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    /// From the process's start to the opened record.
    Plan,
    /// The CLI is looked for, the scripted model starts.
    Prepare,
    /// The sandbox is made and started.
    Provision,
    /// The agent runs.
    Agent,
    /// Files are collected, the sandbox goes, the record is closed.
    Conclude,
    /// From the last word to the process's end.
    Exit,
}

impl Part {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 6] =
        [Self::Plan, Self::Prepare, Self::Provision, Self::Agent, Self::Conclude, Self::Exit];

    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plan => "start, engine, plan",
            Self::Prepare => "CLI found, model service started",
            Self::Provision => "sandbox made and started",
            Self::Agent => "agent runs",
            Self::Conclude => "files collected, sandbox gone, record closed",
            Self::Exit => "end of the process",
        }
    }
}

/// A time for each part.
type Parts<T> = [T; Part::ALL.len()];

/// A finished run.
#[derive(Debug)]
pub(crate) struct ProductRun {
    /// From the start of the process to its end.
    pub(crate) wall: Duration,
    /// How long each part took.
    parts: Parts<Duration>,
    /// The agent CLI's own account of its time.
    pub(crate) own: Duration,
    /// The most memory that runbookd's process held.
    pub(crate) peak_bytes: u64,
    /// The prompt, so that the floor has the same one.
    pub(crate) instruction: PathBuf,
}

impl ProductRun {
    /// How long a part took.
    pub(crate) fn took(&self, part: Part) -> Duration {
        self.parts[part as usize]
    }

    /// What was spent while no agent ran.
    pub(crate) fn overhead(&self) -> Duration {
        self.wall.saturating_sub(self.took(Part::Agent))
    }
}

/// Runs the runbook once.
pub(crate) async fn run(setup: &Setup, engine: Engine) -> Outcome<ProductRun> {
    let late = |_| format!("`runbookd run` with {} did not end in {RUN_LIMIT:?}", engine.name());
    timeout(RUN_LIMIT, watched(setup, engine)).await.map_err(late)?
}

async fn watched(setup: &Setup, engine: Engine) -> Outcome<ProductRun> {
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
        let failure = timeline.failure.unwrap_or_default();
        return Err(format!("`runbookd run` ended with {status}: {failure} {words}").into());
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

/// The state folder is the person's own: what a killed benchmark leaves, their next run removes.
fn command(setup: &Setup, engine: Engine, complaints: &Path) -> Outcome<Command> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runbookd"));
    command
        .arg("run")
        .arg(source("runbook.md"))
        .arg("--script")
        .arg(source("script.yaml"))
        .args(["--json", "--engine", engine.name()])
        .arg("--results")
        .arg(setup.folder().join("results"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(complaints)?)
        .kill_on_drop(true);
    match engine {
        Engine::Docker => command.arg("--image").arg(&setup.image),
        // It has no images and refuses a run that asks for one.
        Engine::Bubblewrap => &mut command,
    };
    Ok(command)
}

/// When each part of a run ended.
#[derive(Debug, Default)]
struct Timeline {
    ends: Parts<Option<Duration>>,
    folder: Option<PathBuf>,
    /// Why the run failed, as it says itself.
    failure: Option<String>,
}

impl Timeline {
    fn hear(&mut self, line: &str, at: Duration) -> Outcome<()> {
        let line: Value = serde_json::from_str(line)?;
        let ended = match (line["event"].as_str(), line["phase"].as_str()) {
            (Some("opened"), _) => {
                self.folder = line["folder"].as_str().map(PathBuf::from);
                Part::Plan
            }
            (Some("phase"), Some("provisioning")) => Part::Prepare,
            (Some("phase"), Some("running")) => Part::Provision,
            (Some("phase"), Some("collecting")) => Part::Agent,
            (Some("finished"), _) => {
                self.failure = line["failure"]["message"].as_str().map(str::to_owned);
                Part::Conclude
            }
            (_, _) => return Ok(()),
        };
        self.ends[ended as usize] = Some(at);
        Ok(())
    }

    /// The parts' times, which add up to `wall`.
    fn parts(mut self, wall: Duration) -> Outcome<Parts<Duration>> {
        self.ends[Part::Exit as usize] = Some(wall);
        let mut parts = [Duration::ZERO; Part::ALL.len()];
        let mut before = Duration::ZERO;
        for part in Part::ALL {
            let told = self.ends[part as usize];
            let end = told.ok_or_else(|| format!("no end was told of: {}", part.name()))?;
            parts[part as usize] = end.saturating_sub(before);
            before = end;
        }
        Ok(parts)
    }
}
