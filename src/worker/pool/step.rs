//! What a leased run is to do now: its only step, or the one of several that it is at.

use serde_json::Map;
use uuid::Uuid;

use super::job::{internal, secrets};
use super::workers::Shared;
use crate::host::blocking;
use crate::inputs::{self, FilesError, Named, StepInputs};
use crate::job::{JobSecrets, JobSpec, LaterStep};
use crate::plan::{Setting, plan};
use crate::queue::{Leased, Stage, Status};
use crate::records::{RecordError, Records};
use crate::run::{ImageRules, Networks, RunFailure, RunName, RunPlan, RunStatus, error_chain};
use crate::store::{Store, StoreError};
use crate::trajectory::{StepDocument, unbegun_step};
use crate::worker::news::News;
use crate::worker::part::{Part, PartError};
use crate::worker::parts::Parts;
use crate::worker::report::RunReport;
use crate::worker::watch::RunUpdate;
use crate::workflow::{RunbookStep, StepOutputs, Workflow};

/// What a run, or a step of it, begins with.
pub(super) struct Prepared {
    pub(super) plan: RunPlan,
    /// The parts, with the keys that it may use.
    pub(super) parts: Parts,
    /// The step among those of its run; `None` where it is the only one.
    pub(super) part: Option<Part>,
}

/// What a step is to do, as a job of one step says it.
struct StepJob {
    spec: JobSpec,
    secrets: JobSecrets,
    part: Option<Part>,
    notes: Vec<String>,
}

/// Prepares a run. It was planned before it was taken into the queue, so a failure here is about
/// something that has changed since, or about what earlier steps left.
pub(super) async fn prepared(shared: &Shared, leased: &Leased) -> Result<Prepared, RunFailure> {
    let name = leased.grant.name.clone();
    let spec = JobSpec::thaw(&leased.spec).map_err(|e| internal(&e))?;
    let secrets = secrets(shared, &name, leased.sealed.as_deref())?;
    let session = leased.session_id.as_deref().unwrap_or_default();
    let session = Uuid::parse_str(session).map_err(|e| internal(&e))?;
    let job = if spec.later.is_empty() {
        StepJob { spec, secrets, part: None, notes: Vec::new() }
    } else {
        let (store, leased, name) = (shared.parts.store.clone(), leased.clone(), name.clone());
        let min_free = shared.floors.disk_bytes;
        let read = move || {
            let part = part_of(&store, &spec, &leased).map_err(|e| unreadable(&e))?;
            step_job((&store, min_free), &name, (spec, secrets), part)
        };
        // It reads records and links files.
        blocking(read).await.map_err(|e| internal(&e))??
    };
    let keyring = job.secrets.keyring(shared.shared_keys.as_ref());
    let place = (shared.parts.store.root(), shared.parts.ceilings);
    let mut request = job.spec.request(&name, &job.secrets, place);
    request.overrides.granted_tools = shared.parts.gateway.provider_tools.clone();
    let draw = JobSpec::draw(&name, session_of(session, leased.step));
    let (all, every_image) = (Networks::all(), ImageRules::all());
    let (networks, images) = match leased.stage {
        Stage::Fresh => (&shared.parts.egress.networks, &shared.parts.images),
        // What has begun goes on as it began.
        Stage::Started { .. } | Stage::Finishing { .. } => (&all, &every_image),
    };
    let setting = Setting { snapshots: &shared.parts.snapshots, networks, images };
    let plan = plan(&request, &keyring, setting, draw).accepted()?;
    let notes = job.notes.into_iter().chain(plan.notes).collect();
    let plan = shared.parts.bounded(RunPlan { notes, ..plan });
    Ok(Prepared { plan, parts: Parts { keyring, ..shared.parts.clone() }, part: job.part })
}

/// The agent's session of a step: each has its own, and the first one is the run's. What names the
/// sandbox stays.
fn session_of(session: Uuid, step: u64) -> Uuid {
    Uuid::from_u128(session.as_u128() ^ u128::from(step))
}

fn part_of(store: &Store, spec: &JobSpec, leased: &Leased) -> Result<Part, PartError> {
    let steps = spec.step_names().into_iter().map(str::to_owned).collect();
    let index = usize::try_from(leased.step).unwrap_or(usize::MAX);
    Part::open(store, &leased.grant.name, steps, (index, leased.took))
}

/// What the step is to do that a run is at. Blocks.
fn step_job(
    (store, min_free): (&Store, u64),
    name: &RunName,
    (spec, secrets): (JobSpec, JobSecrets),
    part: Part,
) -> Result<StepJob, RunFailure> {
    let Some(later) = part.index().checked_sub(1).and_then(|index| spec.later.get(index)) else {
        return Ok(StepJob { spec, secrets, part: Some(part), notes: Vec::new() });
    };
    let earlier = part.earlier().map_err(|e| unreadable(&e))?;
    let (step, notes) = decided(&secrets, later, (&spec, &earlier))?;
    let mut files = later.files.clone();
    files.extend(left_files((store, min_free), name, (later, &part), &step)?);
    let (own, agent_env) = JobSpec::of_step(step);
    let JobSpec { init_params, webhook_url, .. } = spec;
    let spec = JobSpec { init_params, webhook_url, files, ..own };
    let secrets = JobSecrets { agent_env, ..secrets };
    Ok(StepJob { spec, secrets, part: Some(part), notes })
}

/// A later step with every parameter decided, and what a person should know.
fn decided(
    secrets: &JobSecrets,
    later: &LaterStep,
    (spec, earlier): (&JobSpec, &[StepDocument]),
) -> Result<(RunbookStep, Vec<String>), RunFailure> {
    let lost = || RunFailure::Internal {
        detail: format!("the job does not say what its step `{}` is to do", later.step),
    };
    let frozen = secrets.workflow.as_ref().ok_or_else(lost)?;
    let names = spec.step_names().into_iter().map(str::to_owned);
    let outputs: StepOutputs =
        names.zip(earlier).map(|(name, step)| (name, step.outputs())).collect::<Map<_, _>>();
    let workflow = Workflow::parse(&frozen.document).map_err(|e| internal(&e))?;
    let resolved = workflow.resolve_step(&later.step, &frozen.init_params, &outputs);
    let resolved = resolved.ok_or_else(lost)?.map_err(|e| RunFailure::StepInputs {
        problems: e.problems.iter().map(ToString::to_string).collect(),
    })?;
    Ok((resolved.step, resolved.notes))
}

/// The files of a step that earlier ones left, put into its folder beside those that it was given
/// when the run was submitted.
fn left_files(
    (store, min_free): (&Store, u64),
    name: &RunName,
    (later, part): (&LaterStep, &Part),
    step: &RunbookStep,
) -> Result<Vec<crate::job::JobFile>, RunFailure> {
    let is_new = |entry: &&String| !later.named.contains(*entry);
    let file_paths: Vec<String> = step.file_paths.iter().filter(is_new).cloned().collect();
    let ids: Vec<String> = step.files.iter().filter(is_new).cloned().collect();
    let taken: Vec<String> = later.files.iter().map(|file| file.name.clone()).collect();
    let named = Named { file_paths: &file_paths, ids: &ids, taken: &taken };
    let mut problems = Vec::new();
    let inputs = inputs::find(store, &name.collection, named, &mut problems)
        .map_err(|e| files_failed(&e))?;
    if !problems.is_empty() {
        return Err(RunFailure::StepInputs { problems });
    }
    let inputs = StepInputs { step: part.slug(), inputs };
    inputs::stage_step(store, name, &inputs, min_free).map_err(|e| files_failed(&e))
}

fn files_failed(error: &FilesError) -> RunFailure {
    match error {
        FilesError::Store(_) => RunFailure::StoreFailed { detail: error_chain(error) },
        full if full.is_no_room() => RunFailure::StoreFailed { detail: error_chain(error) },
        FilesError::Gone { .. } | FilesError::Unpack { .. } => {
            RunFailure::StepInputs { problems: vec![error_chain(error)] }
        }
    }
}

fn unreadable(error: &PartError) -> RunFailure {
    RunFailure::StoreFailed { detail: error_chain(error) }
}

/// Closes the record of a run that there is no plan for, and gives the name of the step that it is
/// at, where it has several. Its news get their last line.
pub(super) async fn close_unplanned(
    shared: &Shared,
    leased: &Leased,
    status: &RunStatus,
) -> Result<Option<String>, RecordError> {
    let several = JobSpec::thaw(&leased.spec).ok().filter(|spec| !spec.later.is_empty());
    let Some(spec) = several else {
        return record_unplanned(shared, &leased.grant.name, status).await.map(|()| None);
    };
    let index = usize::try_from(leased.step).unwrap_or(usize::MAX);
    let step = spec.step_names().get(index).map(|name| (*name).to_owned());
    if index == 0 {
        return record_unplanned(shared, &leased.grant.name, status).await.map(|()| step);
    }
    let parts = shared.parts.clone();
    let (leased, status) = (leased.clone(), status.clone());
    let closed = blocking(move || {
        let part = part_of(&parts.store, &spec, &leased)?;
        close(&parts, &part, &status)
    });
    closed.await?.map_err(StoreError::from)?;
    Ok(step)
}

/// Brings the document of a run up to its end, as the queue would tell it.
async fn record_unplanned(
    shared: &Shared,
    name: &RunName,
    status: &RunStatus,
) -> Result<(), RecordError> {
    let Some(mut job) = shared.queue.get(name).await? else { return Ok(()) };
    (job.status, job.reason) = match status {
        RunStatus::Failed(failure) => (Status::Failed, Some(failure.to_string())),
        RunStatus::Cancelled => (Status::Cancelled, None),
        RunStatus::Pending | RunStatus::Running | RunStatus::Completed => return Ok(()),
    };
    let folder = Records::new(shared.queue.clone(), shared.parts.store.clone()).settle(job).await?;
    let (events, mut nobody) = (shared.parts.store.event_log(name)?, |_| {});
    let mut news = News::new(events, shared.parts.clock, &mut nobody);
    news.tell(RunUpdate::Opened { name: name.clone(), folder: folder.clone() });
    Ok(news.finish(&RunReport::without_agent(name, folder, status))?)
}

/// Writes the record of a run whose later step is not gone on with, and tells its end. Blocks.
fn close(parts: &Parts, part: &Part, status: &RunStatus) -> Result<(), PartError> {
    match status {
        RunStatus::Failed(failure) => {
            let own = match (part.own()?, part.earlier()?.last()) {
                (Some(own), _) => own,
                (None, Some(last)) => unbegun_step(part.step(), last),
                (None, None) => return Ok(()),
            };
            part.write_whole(Some(own.failed(failure)), status)?;
        }
        RunStatus::Pending | RunStatus::Running | RunStatus::Completed | RunStatus::Cancelled => {
            part.write_whole(part.own()?, status)?
        }
    }
    let events = parts.store.event_log(part.run())?;
    let mut ignored = |_| {};
    let mut news = News::new(events, parts.clock, &mut ignored);
    if matches!(status, RunStatus::Failed(_)) {
        news.begin(part)?;
    }
    Ok(news.finish(&RunReport::unbegun(part, status))?)
}
