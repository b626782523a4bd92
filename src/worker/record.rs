//! The record of a run on disk, from its opening to its closing.

use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::ended::Ended;
use super::part::{Part, PartError};
use super::parts::Parts;
use super::report::RunReport;
use super::way_out::egress_account;
use crate::provider;
use crate::provider::scripted::LedgerEntry;
use crate::run::{RunPlan, RunStatus, ValidationReport, Verdict};
use crate::sandbox::CollectedFile;
use crate::secret::Redactor;
use crate::store::{Area, Document, EGRESS_LOG, MaskedFiles, RunFolder, SNAPSHOT_LOG, StoreError};
use crate::trajectory::{
    AtifDocument, AtifFacts, DocumentFacts, ResultFile, RunTimes, StartedFrom, StepDocument,
    TrajectoryDocument, read_started_from,
};

/// The open record of a run, or of one of its steps where it has several.
pub(super) struct Record {
    folder: RunFolder,
    /// Where its files lie, as clients ask for them.
    place: String,
    /// The step that it is of.
    part: Option<Part>,
    created: Timestamp,
    /// When this process began with it.
    opened: Timestamp,
    /// When the agent started, once it has.
    started: OnceLock<Timestamp>,
    init_params: Map<String, Value>,
    /// What the sandbox starts from, once that is settled.
    settled: OnceLock<Settled>,
    /// Masks what nobody may read in it.
    redactor: Redactor,
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
        let place = Place::new(parts, plan, (parts.store.create(&plan.name)?, None));
        Self::begin(place, plan, (now, now))
    }

    /// Opens the record of a run that a queue knows since `created`. Its name is its own.
    pub(super) fn of_job(
        parts: &Parts,
        plan: &RunPlan,
        part: Option<Part>,
        created: Timestamp,
    ) -> Result<Self, StoreError> {
        let place = Place::of(parts, plan, part)?;
        Self::begin(place, plan, (created, (parts.clock)()))
    }

    /// Opens the record of a run whose agent was started in an earlier process.
    pub(super) fn of_started(
        parts: &Parts,
        plan: &RunPlan,
        part: Option<Part>,
        (created, started): (Timestamp, Option<Timestamp>),
    ) -> Result<Self, StoreError> {
        let Place { folder, part, redactor } = Place::of(parts, plan, part)?;
        let record = Self {
            folder,
            place: storage_place(plan, part.as_ref()),
            part,
            created,
            opened: (parts.clock)(),
            settled: OnceLock::new(),
            started: OnceLock::new(),
            init_params: plan.init_params.clone(),
            redactor,
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
        Place { folder, part, redactor }: Place,
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
            place: storage_place(plan, part.as_ref()),
            part,
            created,
            opened,
            started: OnceLock::new(),
            init_params: plan.init_params.clone(),
            settled: OnceLock::new(),
            redactor,
        };
        // A later step begins in the middle of its run.
        let is_later = record.part.as_ref().is_some_and(|part| part.index() > 0);
        let at = if is_later { record.opened } else { record.created };
        record.write(plan, &Ended::without_agent(RunStatus::Pending), &Verdict::default(), at)?;
        Ok(record)
    }

    /// Masks the run's secrets: those that it was given.
    pub(super) fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    pub(super) fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// The step that it is of, where the run has several.
    pub(super) fn part(&self) -> Option<&Part> {
        self.part.as_ref()
    }

    /// Whether a step ended so that the next one is to begin.
    pub(super) fn goes_on(&self, ended: &Ended) -> bool {
        let has_next = self.part.as_ref().is_some_and(Part::has_next);
        has_next && matches!(ended.status, RunStatus::Completed)
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

    /// Closes the record: judges what was achieved and writes everything. `status` is where the run
    /// stands then, which is where its step stands unless another one follows.
    pub(super) fn close(
        &self,
        plan: &RunPlan,
        ended: &Ended,
        status: &RunStatus,
        now: Timestamp,
    ) -> Result<RunReport, StoreError> {
        let verdict = self.verdict(plan, ended);
        self.write_as(plan, (ended, status), &verdict, now)?;
        let atif = AtifDocument::new(&AtifFacts {
            trajectory_id: plan.name.id.as_str(),
            instruction: &plan.instruction,
            agent: plan.runtime.as_str(),
            model: &plan.model,
            recorder: &ended.recorder,
            usage: &ended.usage,
        });
        self.folder.write(Document::Atif, &self.redactor.redact_json(&json(&atif)))?;
        // The time in the queue is not the run's.
        let begun = self.started.get().map_or(self.opened, |started| self.opened.min(*started));
        let took = Duration::try_from(now.duration_since(begun)).unwrap_or_default();
        let result = ended.recorder.summary().last_result.as_ref();
        let report = RunReport {
            name: plan.name.clone(),
            folder: self.folder.path().to_owned(),
            answer: result.filter(|result| !result.is_error).map(|result| result.text.clone()),
            n_steps: ended.recorder.n_steps(),
            warnings: self.warnings(ended),
            status: status.clone(),
            step: None,
            passed: verdict.passed(),
            verdict,
            usage: ended.usage.clone(),
            took,
        };
        Ok(match &self.part {
            Some(part) => report.after(part),
            None => report,
        })
    }

    /// What looked wrong, beside what the verdict says.
    fn warnings(&self, ended: &Ended) -> Vec<String> {
        ended.recorder.warnings().into_iter().chain(self.notes(ended)).collect()
    }

    fn notes(&self, ended: &Ended) -> Vec<String> {
        let settled = self.settled.get().map(|settled| settled.notes.as_slice());
        let denied = egress_account(&self.folder).and_then(|account| account.warning());
        let masked = ended.remains.masked.as_ref().map(masked_note);
        let settled = settled.unwrap_or_default().iter().chain(&ended.notes).cloned();
        settled.chain(masked).chain(denied).collect()
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
            let mut line = self.redactor.redact_json(&json(entry)).into_owned();
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
        // What comes before the end of a later step is in the middle of the run.
        let is_later = self.part.as_ref().is_some_and(|part| part.index() > 0);
        let status = if is_later { &RunStatus::Running } else { &ended.status };
        self.write_as(plan, (ended, status), verdict, now)
    }

    /// Writes the record of a step, and that of the run where it is another one.
    fn write_as(
        &self,
        plan: &RunPlan,
        (ended, status): (&Ended, &RunStatus),
        verdict: &Verdict,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let place = &self.place;
        let results: Vec<ResultFile> =
            ended.remains.results.iter().map(|file| result_file(place, file)).collect();
        let own = [SNAPSHOT_LOG, EGRESS_LOG];
        let own = own.into_iter().filter(|log| self.folder.path().join(log).exists());
        let logs = ended.remains.logs.iter().map(String::as_str).chain(own);
        let logs: Vec<String> = logs.map(|path| format!("{place}/{path}")).collect();
        let notes = self.notes(ended);
        let egress = egress_account(&self.folder);
        let document = TrajectoryDocument::new(&DocumentFacts {
            plan,
            storage_path: place,
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
            egress: egress.as_ref(),
            verdict,
            notes: &notes,
            results: &results,
            other_files: &logs,
        });
        let document = self.redactor.redact_json(&json(&document)).into_owned();
        self.folder.write(Document::Trajectory, &document)?;
        let Some(part) = &self.part else { return Ok(()) };
        let unreadable = |source| PartError::Document { step: part.step().to_owned(), source };
        let own = StepDocument::read(&document).map_err(unreadable)?;
        Ok(part.write_whole(Some(own), status)?)
    }
}

/// The folder of a record, and the step that it is of.
struct Place {
    folder: RunFolder,
    part: Option<Part>,
    redactor: Redactor,
}

impl Place {
    fn new(parts: &Parts, plan: &RunPlan, (folder, part): (RunFolder, Option<Part>)) -> Self {
        // Where there is no access the run says why; then there is nothing of it to mask.
        let access = provider::access(plan.provider, plan.runtime, &parts.keyring).ok();
        let known = access.iter().flat_map(|access| &access.secrets);
        let redactor = Redactor::new(known.chain(plan.secret_values()));
        Self { folder, part, redactor }
    }

    /// A run that a queue knows has its name for itself: its folder may be there.
    fn of(parts: &Parts, plan: &RunPlan, part: Option<Part>) -> Result<Self, StoreError> {
        let folder = parts.store.step(&plan.name, part.as_ref().and_then(Part::slug).as_ref())?;
        Ok(Self::new(parts, plan, (folder, part)))
    }
}

fn storage_place(plan: &RunPlan, part: Option<&Part>) -> String {
    crate::store::step_path(&plan.name, part.and_then(Part::slug).as_ref())
}

/// What a person should know of results that are not as the agent left them.
fn masked_note(files: &MaskedFiles) -> String {
    format!(
        "Secrets were masked in {} of the {} texts in results; {} other files, which are no texts, \
         are as the agent left them.",
        files.n_masked, files.n_texts, files.n_binary
    )
}

/// A collected file under the path by which clients ask for it.
fn result_file(place: &str, file: &CollectedFile) -> ResultFile {
    ResultFile {
        path: format!("{place}/{}/{}", Area::Results.path(), file.path),
        declared_path: file.path.clone(),
        n_bytes: file.bytes,
    }
}

/// JSON for a file of ours.
fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("our own types have string keys and cannot fail")
}
