//! What a request makes of a task, and everything that speaks against it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use uuid::Uuid;

use super::hide::hide_params;
use super::target::Target;
use super::{IntakeSettings, Lead, Submission};
use crate::budget::Amounts;
use crate::gateway::{Inadmissible, admit};
use crate::inputs::{self, FilesError, Input, Named, StepInputs};
use crate::job::{FrozenWorkflow, JobSecrets, JobSpec, LaterStep};
use crate::plan::{GUARD_NEEDS_GATEWAY, Planned, Setting, first_request, plan};
use crate::provider;
use crate::reach::parse_target;
use crate::run::{Allowance, Credentials, RunName, RunPlan, Slug};
use crate::runbook::referenced_variables;
use crate::secret::{Keyring, Secret};
use crate::store::Store;
use crate::workflow::{Resolved, RunbookStep, Workflow, WorkflowError};

/// The parameter that names stored files. Files that come with a request are added to it.
const FILE_PATHS: &str = "file_paths";

/// The parameter that holds the runbook of a request.
pub(super) const INSTRUCTION: &str = "instruction";

/// Most secrets that a note names.
const MAX_TOLD_NAMES: usize = 20;

/// Parameters without which nothing can be said of a step: its planner would guess, and find what is
/// not there.
const DECISIVE: [&str; 11] = [
    "instruction",
    "agent",
    "model",
    "model_provider",
    "snapshot",
    "image",
    "script",
    "agent_env",
    "mcp_servers",
    "network",
    "network_enabled",
];

/// What stands for a template variable that an earlier step will tell.
const AWAITED: &str = "(awaited)";

/// A request that can be run as far as one can know.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) spec: JobSpec,
    pub(super) secrets: JobSecrets,
    /// The files of each step.
    pub(super) inputs: Vec<StepInputs>,
    pub(super) notes: Vec<String>,
    /// What its first request to a model takes, where that has a limit.
    pub(super) need: Option<Need>,
}

/// What a run needs to begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    pub(super) allowance: Allowance,
    pub(super) amounts: Amounts,
}

/// What the request is judged by.
pub(super) struct Bench<'a> {
    pub(super) store: &'a Store,
    pub(super) settings: &'a IntakeSettings,
    pub(super) collection: &'a Slug,
    pub(super) task: &'a Target,
    /// The collection's environment.
    pub(super) environment: BTreeMap<String, Secret>,
    /// Keys whose values the record hides.
    pub(super) hidden: &'a [String],
}

/// A bench with the request before it.
struct Judging<'a> {
    bench: &'a Bench<'a>,
    wish: &'a Submission,
}

/// One step as far as it can be judged.
struct JudgedStep {
    spec: JobSpec,
    secrets: JobSecrets,
    /// The entries behind the inputs.
    named: Vec<String>,
    inputs: Vec<Input>,
    /// Secrets of the request that nothing in it reads.
    unread: BTreeSet<String>,
    need: Option<Need>,
}

impl Judging<'_> {
    /// Looks at one step. What only an earlier step will tell is looked at when it begins.
    fn step(
        &self,
        step: RunbookStep,
        (problems, notes): (&mut Problems, &mut Vec<String>),
    ) -> Result<JudgedStep, FilesError> {
        let Bench { store, collection, environment, .. } = self.bench;
        let named = Named { file_paths: &step.file_paths, ids: &step.files, taken: &[] };
        let mut found = Vec::new();
        let inputs = inputs::find(store, collection, named, &mut found)?;
        let named = step.file_paths.iter().chain(&step.files).cloned().collect();
        let left_open = step.left_open.clone();
        let (spec, mut agent_env) = JobSpec::of_step(step);
        agent_env.extend(self.wish.agent_env.clone());
        let secrets = JobSecrets {
            environment: environment.clone(),
            params: self.wish.secret_params.clone(),
            agent_env,
            webhook_secret: self.wish.webhook_secret.clone(),
            workflow: None,
        };
        let mut spec = JobSpec { files: inputs::as_stored(&inputs), ..spec };
        if left_open.contains("template_variables") {
            let open = referenced_variables(&spec.runbook).into_iter().map(str::to_owned);
            let open: Vec<String> = open.collect();
            for name in open {
                spec.variables.entry(name).or_insert_with(|| AWAITED.to_owned());
            }
        }
        let (mut unread, mut need) = (BTreeSet::new(), None);
        if !left_open.iter().any(|name| DECISIVE.contains(name)) {
            (unread, need) = self.bench.plan(&spec, &secrets, (&mut found, notes));
        }
        // What speaks against every step is said once.
        for problem in found {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        Ok(JudgedStep { spec, secrets, named, inputs, unread, need })
    }
}

/// Everything that speaks against a request, as sentences.
pub(super) type Problems = Vec<String>;

impl Bench<'_> {
    /// Looks at a request from every side. Blocks.
    pub(super) fn judge(self, wish: Submission) -> Result<Result<Ready, Problems>, FilesError> {
        let mut problems = Vec::new();
        if let Some(Err(bad)) =
            wish.webhook_url.as_deref().map(|url| parse_target(url, self.settings.webhook_reach))
        {
            problems.push(format!("`webhook_url`: the webhook's URL {bad}."));
        }
        let init_params = with_uploads(&wish, &mut problems);
        let (workflow, resolved) = match self.resolve(wish.lead, &init_params) {
            Ok(resolved) => resolved,
            Err(e) => {
                problems.extend(e.problems.iter().map(|problem| format!("{problem}.")));
                return Ok(Err(problems));
            }
        };
        let mut notes = resolved.notes;
        let bench = Judging { bench: &self, wish: &wish };
        let (mut steps, mut inputs) = (Vec::new(), Vec::new());
        let has_several = resolved.steps.len() > 1;
        let mut unread: Option<BTreeSet<String>> = None;
        let mut needs = Vec::new();
        for step in resolved.steps {
            let slug = has_several.then(|| Slug::new(&step.name).ok()).flatten();
            let judged = bench.step(step, (&mut problems, &mut notes))?;
            inputs.push(StepInputs { step: slug, inputs: judged.inputs });
            // What one step reads is not unread.
            unread = Some(match unread {
                None => judged.unread,
                Some(others) => others.intersection(&judged.unread).cloned().collect(),
            });
            needs.push(judged.need);
            steps.push((judged.spec, judged.secrets, judged.named));
        }
        notes.extend(unread_note(&unread.unwrap_or_default()));
        if !problems.is_empty() {
            return Ok(Err(problems));
        }
        let mut steps = steps.into_iter();
        let (first, mut secrets, _) = steps.next().expect("a workflow has a step");
        let later: Vec<LaterStep> = steps
            .map(|(spec, _, named)| LaterStep { step: spec.step, named, files: Vec::new() })
            .collect();
        if has_several {
            // As this request has it.
            let document = workflow.document().clone();
            let init_params = resolved.init_params.clone();
            secrets.workflow = Some(FrozenWorkflow { document, init_params });
        }
        let mut shown = resolved.init_params;
        hide_params(&mut shown, self.hidden);
        let spec =
            JobSpec { init_params: shown, webhook_url: wish.webhook_url.clone(), later, ..first };
        let need = needs.into_iter().next().flatten();
        Ok(Ok(Ready { spec, secrets, inputs, notes, need }))
    }

    /// What the request makes of the task's workflow.
    fn resolve(
        &self,
        lead: Lead,
        init_params: &Map<String, Value>,
    ) -> Result<(Workflow, Resolved), WorkflowError> {
        let workflow = Workflow::parse(&self.task.workflow)?;
        let workflow = match lead {
            Lead::Task => workflow,
            Lead::Request => workflow.led_by(init_params)?,
            Lead::OwnRunbook => {
                let runbook = init_params.get(INSTRUCTION).and_then(Value::as_str);
                workflow.leaving_to(runbook.unwrap_or_default())?.led_by(init_params)?
            }
        };
        let resolved = workflow.resolve(init_params)?;
        Ok((workflow, resolved))
    }

    /// Plans the run as the worker will, for what it finds.
    fn plan(
        &self,
        spec: &JobSpec,
        secrets: &JobSecrets,
        (problems, notes): (&mut Problems, &mut Vec<String>),
    ) -> (BTreeSet<String>, Option<Need>) {
        let name = RunName {
            collection: self.collection.clone(),
            task: self.task.name.clone(),
            id: crate::run::RunId::from_uuid(Uuid::nil()),
        };
        let ceilings = self.settings.allowance;
        let mut request = spec.request(&name, secrets, (self.store.root(), ceilings));
        request.overrides.granted_tools = self.settings.provider_tools.clone();
        let keyring = secrets.keyring(self.settings.shared_keys.as_ref());
        let IntakeSettings { snapshots, networks, images, .. } = self.settings;
        let setting = Setting { snapshots, networks, images };
        let planned = plan(&request, &keyring, setting, JobSpec::draw(&name, Uuid::nil()));
        for finding in &planned.findings {
            let to = if finding.is_error() { &mut *problems } else { &mut *notes };
            // Several steps may be told the same.
            if !to.contains(&finding.sentence()) {
                to.push(finding.sentence());
            }
        }
        if let Some(Err(bad)) = planned.plan.as_ref().and_then(|plan| self.admit(plan, &keyring)) {
            problems.push(format!("{bad}."));
        }
        if planned.plan.as_ref().is_some_and(|plan| self.escapes_guard(plan)) {
            problems.push(format!("{GUARD_NEEDS_GATEWAY}."));
        }
        (unread(&planned, secrets, &keyring), planned.plan.as_ref().and_then(need))
    }
}

impl Bench<'_> {
    /// Whether the server's guardrails could not look through the run's prompts.
    fn escapes_guard(&self, plan: &RunPlan) -> bool {
        let is_direct = plan.credentials == Credentials::Direct && plan.script.is_none();
        is_direct && !self.settings.guard.is_off()
    }

    /// Whether the run's model service may be asked, where a gateway asks it.
    fn admit(&self, plan: &RunPlan, keyring: &Keyring) -> Option<Result<(), Inadmissible>> {
        if plan.credentials == Credentials::Direct || plan.script.is_some() {
            return None;
        }
        let access = provider::access(plan.provider, plan.runtime, keyring).ok()?;
        Some(access.places().try_for_each(|place| admit(place, self.settings.upstream_reach)))
    }
}

/// What a plan needs to begin, where that has a limit and the gateway keeps it.
fn need(plan: &RunPlan) -> Option<Need> {
    let is_kept = plan.credentials == Credentials::Gateway && plan.script.is_none();
    (is_kept && !plan.allowance.is_none()).then(|| Need {
        allowance: plan.allowance,
        amounts: first_request(&plan.model, plan.max_output_tokens),
    })
}

/// The secrets of the request that nothing in a step reads.
fn unread(planned: &Planned, secrets: &JobSecrets, keyring: &Keyring) -> BTreeSet<String> {
    let names = secrets.params.keys();
    names.filter(|name| planned.plan.is_some() && !planned.reads(name, keyring)).cloned().collect()
}

/// Says that nothing reads these secrets. The names alone are told.
fn unread_note(names: &BTreeSet<String>) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let shown: Vec<String> =
        names.iter().take(MAX_TOLD_NAMES).map(|name| format!("`{name}`")).collect();
    let more = if names.len() > shown.len() { " and others" } else { "" };
    Some(format!(
        "`secret_params`: the runbook does not declare {}{more}, so that the agent does not get it: \
         declare it in the front matter under `secrets:`.",
        shown.join(", ")
    ))
}

/// The request's parameters with its uploads among the files.
fn with_uploads(wish: &Submission, problems: &mut Problems) -> Map<String, Value> {
    let mut params = wish.init_params.clone();
    if wish.uploads.is_empty() {
        return params;
    }
    let uploads = wish.uploads.iter().map(|upload| Value::from(upload.path.clone()));
    match params.entry(FILE_PATHS).or_insert(Value::Null) {
        Value::Array(paths) => paths.extend(uploads),
        none @ Value::Null => *none = uploads.collect(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => problems.push(
            "`init_params.file_paths` must be a list of storage paths; files that come with the \
             request are added to it."
                .to_owned(),
        ),
    }
    params
}
