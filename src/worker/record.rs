//! The record of a run on disk, from its opening to its closing.

use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::conclude::Remains;
use super::ending::{Ending, How};
use super::execute::Parts;
use super::report::RunReport;
use super::settle::settle;
use crate::provider;
use crate::provider::scripted::LedgerEntry;
use crate::run::{RunFailure, RunName, RunPlan, RunStatus, ValidationReport, Verdict};
use crate::runtime::{self, AgentEnd, OutcomeFacts, StopReason};
use crate::sandbox::{CollectedFile, Exit};
use crate::store::{Area, Document, RunFolder, SNAPSHOT_LOG, StoreError};
use crate::trajectory::{
    AtifDocument, AtifFacts, DocumentFacts, Reconciled, Recorder, ResultFile, RunTimes,
    StartedFrom, TrajectoryDocument, UsageReport, read_started_from,
};

/// How a run ended, with all that is known of it.
pub(super) struct Ended {
    status: RunStatus,
    recorder: Recorder,
    usage: UsageReport,
    reconciled: Reconciled,
    notes: Vec<String>,
    remains: Remains,
    exit_code: Option<i32>,
}

impl Ended {
    /// A run that never had an agent, or lost what was known of it.
    pub(super) fn without_agent(status: RunStatus) -> Self {
        Self {
            status,
            recorder: Recorder::new(),
            usage: UsageReport::default(),
            reconciled: Reconciled::default(),
            notes: Vec::new(),
            remains: Remains::default(),
            exit_code: None,
        }
    }

    /// The agent's exit code, where it had one.
    pub(super) fn exit_code(&self) -> Option<i32> {
        self.exit_code
    }

    /// A run whose sandbox ended without an agent.
    pub(super) fn before_agent(status: RunStatus, remains: Remains) -> Self {
        Self { remains, ..Self::without_agent(status) }
    }

    /// A run whose agent has ended.
    /// It reads session files, so it belongs on a thread that may block.
    pub(super) fn with_agent(
        plan: &RunPlan,
        folder: &RunFolder,
        recorder: Recorder,
        ending: Ending,
    ) -> Self {
        let exit_code = ending.exit_code();
        let Ending { how, seal, mut remains, .. } = ending;
        let (exit, stopped) = match how {
            How::Agent { exit, stopped } => (exit, stopped),
            How::NoAgent { status } => return Self::before_agent(status, remains),
        };
        remains.logs.push(format!("{}/{}.txt", Area::AgentLogs.path(), plan.runtime.as_str()));
        let facts = OutcomeFacts {
            summary: recorder.summary(),
            end: exit.as_ref().map_or(AgentEnd::Exited(0), |exit| agent_end(plan, *exit)),
            stopped: stopped.clone(),
            stderr_tail: &remains.stderr_tail,
            provider: plan.provider.as_str(),
            credential: provider::credentials(plan.provider).first().copied().unwrap_or("one"),
            max_turns: plan.limits.max_turns,
        };
        let mut notes = runtime::end_warnings(plan.runtime, &facts);
        let status = match exit {
            Ok(exit) => explained(runtime::outcome(plan.runtime, &facts), exit, stopped.as_ref()),
            // Somebody wanted it stopped, and it is.
            Err(_) if stopped == Some(StopReason::Cancelled) => RunStatus::Cancelled,
            // What the agent said of itself cannot make up for a sandbox that failed.
            Err(failure) => RunStatus::Failed(failure),
        };
        notes.extend(seal.findings);
        let (usage, reconciled) = settle(plan, &recorder, folder, &mut notes);
        Self { status, recorder, usage, reconciled, notes, remains, exit_code }
    }
}

/// Says of a crash by a signal that the signal was not ours.
fn explained(status: RunStatus, exit: Exit, stopped: Option<&StopReason>) -> RunStatus {
    match (status, exit.signal()) {
        (RunStatus::Failed(RunFailure::AgentCrashed { detail }), Some(9 | 15))
            if stopped.is_none() =>
        {
            let detail = format!(
                "{detail} (not sent by runbookd: the agent did it itself, somebody killed it, or its \
                 engine was stopped)"
            );
            RunStatus::Failed(RunFailure::AgentCrashed { detail })
        }
        (status, _) => status,
    }
}

fn agent_end(plan: &RunPlan, exit: Exit) -> AgentEnd {
    match exit.signal() {
        _ if exit.oom_killed && exit.code != 0 => {
            AgentEnd::OutOfMemory { limit_bytes: plan.limits.memory_bytes }
        }
        Some(signal) => AgentEnd::Signaled(signal),
        None => AgentEnd::Exited(exit.code),
    }
}

/// The open record of a run.
pub(super) struct Record {
    folder: RunFolder,
    created: Timestamp,
    /// When this process began with it.
    opened: Timestamp,
    /// When the agent started, once it has.
    started: OnceLock<Timestamp>,
    init_params: Map<String, Value>,
    /// What the sandbox starts from, once that is settled.
    settled: OnceLock<Settled>,
}

/// What was settled before the sandbox was made.
struct Settled {
    started_from: StartedFrom,
    notes: Vec<String>,
}

impl Record {
    /// Makes the run's folder and writes what is known before anything is started. The folder must
    /// not be there: the name was drawn for this run alone.
    pub(super) fn open(parts: &Parts, plan: &RunPlan) -> Result<Self, StoreError> {
        let now = (parts.clock)();
        Self::begin(parts.store.create(&plan.name)?, plan, (now, now))
    }

    /// Opens the record of a run that a queue knows since `created`. Its name is its own.
    pub(super) fn of_job(
        parts: &Parts,
        plan: &RunPlan,
        created: Timestamp,
    ) -> Result<Self, StoreError> {
        Self::begin(parts.store.run(&plan.name)?, plan, (created, (parts.clock)()))
    }

    /// Opens the record of a run whose agent was started in an earlier process.
    pub(super) fn of_started(
        parts: &Parts,
        plan: &RunPlan,
        created: Timestamp,
        started: Option<Timestamp>,
    ) -> Result<Self, StoreError> {
        let record = Self {
            folder: parts.store.run(&plan.name)?,
            created,
            opened: (parts.clock)(),
            settled: OnceLock::new(),
            started: OnceLock::new(),
            init_params: plan.init_params.clone(),
        };
        if let Some(at) = started {
            record.started.get_or_init(|| at);
        }
        let written = record.folder.read(Document::Trajectory).ok();
        if let Some(started_from) = written.as_deref().and_then(read_started_from) {
            record.starts_from(started_from, Vec::new());
        }
        Ok(record)
    }

    fn begin(
        folder: RunFolder,
        plan: &RunPlan,
        (created, opened): (Timestamp, Timestamp),
    ) -> Result<Self, StoreError> {
        folder.write(Document::Runbook, &plan.runbook)?;
        folder.write(Document::Instruction, plan.instruction.as_bytes())?;
        for asset in &plan.assets {
            folder.keep_asset(&asset.name, &asset.host_path)?;
        }
        let record = Self {
            folder,
            created,
            opened,
            started: OnceLock::new(),
            init_params: plan.init_params.clone(),
            settled: OnceLock::new(),
        };
        record.write(
            plan,
            &Ended::without_agent(RunStatus::Pending),
            &Verdict::default(),
            record.created,
        )?;
        Ok(record)
    }

    pub(super) fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// It is known what the sandbox starts from, and what a person should know about it.
    pub(super) fn starts_from(&self, started_from: StartedFrom, notes: Vec<String>) {
        // Settled once a run: a second call would say the same.
        self.settled.get_or_init(|| Settled { started_from, notes });
    }

    /// The agent has started.
    pub(super) fn is_running(&self, plan: &RunPlan, now: Timestamp) -> Result<(), StoreError> {
        let ended = Ended::without_agent(RunStatus::Running);
        self.started.get_or_init(|| now);
        self.write(plan, &ended, &Verdict::default(), now)
    }

    /// Closes the record: judges what was achieved and writes everything.
    pub(super) fn close(
        &self,
        plan: &RunPlan,
        ended: &Ended,
        now: Timestamp,
    ) -> Result<RunReport, StoreError> {
        let verdict = self.verdict(plan, ended);
        self.write(plan, ended, &verdict, now)?;
        let atif = AtifDocument::new(&AtifFacts {
            trajectory_id: plan.name.id.as_str(),
            instruction: &plan.instruction,
            agent: plan.runtime.as_str(),
            model: &plan.model,
            recorder: &ended.recorder,
            usage: &ended.usage,
        });
        self.folder.write(Document::Atif, &json(&atif))?;
        // The time in the queue is not the run's.
        let begun = self.started.get().map_or(self.opened, |started| self.opened.min(*started));
        let took = Duration::try_from(now.duration_since(begun)).unwrap_or_default();
        let result = ended.recorder.summary().last_result.as_ref();
        Ok(RunReport {
            name: plan.name.clone(),
            folder: self.folder.path().to_owned(),
            answer: result.filter(|result| !result.is_error).map(|result| result.text.clone()),
            n_steps: ended.recorder.n_steps(),
            warnings: self.warnings(ended),
            status: ended.status.clone(),
            verdict,
            usage: ended.usage.clone(),
            took,
        })
    }

    /// What looked wrong, beside what the verdict says.
    fn warnings(&self, ended: &Ended) -> Vec<String> {
        ended.recorder.warnings().into_iter().chain(self.notes(ended)).collect()
    }

    fn notes(&self, ended: &Ended) -> Vec<String> {
        let settled = self.settled.get().map(|settled| settled.notes.as_slice());
        settled.unwrap_or_default().iter().chain(&ended.notes).cloned().collect()
    }

    fn verdict(&self, plan: &RunPlan, ended: &Ended) -> Verdict {
        let n_results = ended.remains.results.len();
        let mut verdict = Verdict {
            primary_outputs: self.folder.check_outputs(&plan.primary_outputs),
            validation: self.folder.validation_report(),
            n_results,
            warnings: ended.remains.warnings.clone(),
        };
        let former = plan.former.as_ref();
        if former.is_some_and(|former| self.folder.has_report_of(&former.results)) {
            // It judged other work than this run's.
            verdict.validation = ValidationReport::Absent;
            verdict.warnings.push(
                "validation_report.json is the former run's, unchanged, and does not count."
                    .to_owned(),
            );
        }
        let missing: Vec<&str> = verdict
            .primary_outputs
            .iter()
            .filter(|output| !output.exists)
            .map(|output| output.path.as_str())
            .collect();
        if n_results == 0 {
            verdict.warnings.push("The run left no files in /app/results.".to_owned());
        } else if !missing.is_empty() {
            verdict.warnings.push(format!("Declared outputs are missing: {}.", missing.join(", ")));
        }
        verdict
    }

    /// Keeps what the scripted provider answered, one JSON object a line.
    pub(super) fn keep_ledger(&self, ledger: &[LedgerEntry]) -> Result<(), StoreError> {
        if ledger.is_empty() {
            return Ok(());
        }
        let mut log = self.folder.provider_log()?;
        for entry in ledger {
            let mut line = json(entry);
            line.push(b'\n');
            log.append(&line)?;
        }
        log.sync()
    }

    fn write(
        &self,
        plan: &RunPlan,
        ended: &Ended,
        verdict: &Verdict,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let results: Vec<ResultFile> =
            ended.remains.results.iter().map(|file| result_file(&plan.name, file)).collect();
        let built = self.folder.path().join(SNAPSHOT_LOG).exists().then_some(SNAPSHOT_LOG);
        let logs = ended.remains.logs.iter().map(String::as_str).chain(built);
        let logs: Vec<String> = logs.map(|path| storage_path(&plan.name, path)).collect();
        let notes = self.notes(ended);
        let document = TrajectoryDocument::new(&DocumentFacts {
            plan,
            started_from: self.settled.get().map(|settled| &settled.started_from),
            init_params: &self.init_params,
            status: &ended.status,
            times: RunTimes {
                created: self.created,
                started: self.started.get().copied(),
                ended: ended.status.is_terminal().then_some(now),
                updated: now,
            },
            recorder: &ended.recorder,
            usage: &ended.usage,
            reconciled: &ended.reconciled,
            verdict,
            notes: &notes,
            results: &results,
            other_files: &logs,
        });
        self.folder.write(Document::Trajectory, &json(&document))
    }
}

/// A collected file under the path by which clients ask for it.
fn result_file(name: &RunName, file: &CollectedFile) -> ResultFile {
    ResultFile {
        path: storage_path(name, &format!("{}/{}", Area::Results.path(), file.path)),
        declared_path: file.path.clone(),
        n_bytes: file.bytes,
    }
}

/// The path of a run's file in the results directory.
fn storage_path(name: &RunName, path: &str) -> String {
    format!("{}/{}/{}/{path}", name.collection, name.task, name.id)
}

/// JSON for a file of ours.
fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("our own types have string keys and cannot fail")
}
