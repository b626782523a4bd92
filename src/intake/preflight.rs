//! What a request makes of a task, and everything that speaks against it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::files::{self, FilesError, Input};
use super::target::Target;
use super::{IntakeSettings, Lead, Submission};
use crate::job::{JobSecrets, JobSpec};
use crate::plan::{Overrides, plan};
use crate::reach::parse_target;
use crate::run::{Network, RunName, Slug};
use crate::secret::Secret;
use crate::store::Store;
use crate::workflow::{Resolved, RunbookStep, Workflow, WorkflowError};

/// The parameter that names stored files. Files that come with a request are added to it.
const FILE_PATHS: &str = "file_paths";

/// The parameter that holds the runbook of a request.
pub(super) const INSTRUCTION: &str = "instruction";

/// What stands for a parameter that the collection hides.
const HIDDEN: &str = "[redacted]";

/// A request that can be run as far as one can know.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) spec: JobSpec,
    pub(super) secrets: JobSecrets,
    pub(super) inputs: Vec<Input>,
    pub(super) notes: Vec<String>,
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
        let resolved = match self.resolve(wish.lead, &init_params) {
            Ok(resolved) => resolved,
            Err(e) => {
                problems.extend(e.problems.iter().map(|problem| format!("{problem}.")));
                return Ok(Err(problems));
            }
        };
        let mut notes = resolved.notes;
        let mut steps = resolved.steps.into_iter();
        let (Some(step), None) = (steps.next(), steps.next()) else {
            problems.push(
                "The task has several steps, and this server runs tasks of one runbook step: make \
                 a task of each step."
                    .to_owned(),
            );
            return Ok(Err(problems));
        };
        let inputs =
            files::find(self.store, self.collection, &step.file_paths, &step.files, &mut problems)?;
        let mut agent_env = sealed(&step.agent_env);
        agent_env.extend(wish.agent_env.clone());
        let secrets = JobSecrets {
            environment: self.environment.clone(),
            params: wish.secret_params.clone(),
            agent_env,
            webhook_secret: wish.webhook_secret.clone(),
        };
        let spec = JobSpec {
            init_params: hide(resolved.init_params, self.hidden),
            files: files::as_stored(&inputs),
            webhook_url: wish.webhook_url.clone(),
            ..spec_of(step)
        };
        self.plan(&spec, &secrets, (&mut problems, &mut notes));
        if !problems.is_empty() {
            return Ok(Err(problems));
        }
        Ok(Ok(Ready { spec, secrets, inputs, notes }))
    }

    /// What the request makes of the task's workflow.
    fn resolve(
        &self,
        lead: Lead,
        init_params: &Map<String, Value>,
    ) -> Result<Resolved, WorkflowError> {
        let workflow = Workflow::parse(&self.task.workflow)?;
        let workflow = match lead {
            Lead::Task => workflow,
            Lead::Request => workflow.led_by(init_params)?,
            Lead::OwnRunbook => {
                let runbook = init_params.get(INSTRUCTION).and_then(Value::as_str);
                workflow.leaving_to(runbook.unwrap_or_default())?.led_by(init_params)?
            }
        };
        workflow.resolve(init_params)
    }

    /// Plans the run as the worker will, for what it finds.
    fn plan(
        &self,
        spec: &JobSpec,
        secrets: &JobSecrets,
        (problems, notes): (&mut Problems, &mut Vec<String>),
    ) {
        let name = RunName {
            collection: self.collection.clone(),
            task: self.task.name.clone(),
            id: crate::run::RunId::from_uuid(Uuid::nil()),
        };
        let request = spec.request(&name, secrets, self.store.root());
        let keyring = secrets.keyring(self.settings.shared_keys.as_ref());
        let planned =
            plan(&request, &keyring, &self.settings.snapshots, JobSpec::draw(&name, Uuid::nil()));
        for finding in &planned.findings {
            let to = if finding.is_error() { &mut *problems } else { &mut *notes };
            to.push(finding.sentence());
        }
    }
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

fn sealed(values: &BTreeMap<String, String>) -> BTreeMap<String, Secret> {
    values.iter().map(|(name, value)| (name.clone(), Secret::new(value.clone()))).collect()
}

fn hide(mut params: Map<String, Value>, hidden: &[String]) -> Map<String, Value> {
    for (key, value) in &mut params {
        if hidden.contains(key) {
            *value = HIDDEN.into();
        }
    }
    params
}

/// What is frozen of a step.
fn spec_of(step: RunbookStep) -> JobSpec {
    JobSpec {
        step: step.name,
        runbook: step.instruction,
        variables: step.template_variables,
        script: step.script,
        overrides: Overrides {
            agent: step.agent,
            model: step.model,
            model_provider: step.model_provider,
            image: step.image,
            snapshot: step.snapshot,
            apt_packages: Some(step.apt_packages).filter(|packages| !packages.is_empty()),
            network: step.network_enabled.map(|on| if on { Network::Open } else { Network::None }),
            wall: step.timeout_sec.map(Duration::from_secs),
            max_turns: step.max_turns,
            memory_bytes: step.memory_bytes,
            n_cpus: step.cpus,
            mcp_servers: step.mcp_servers,
            prompt: step.prompt,
            ..Overrides::default()
        },
        ..JobSpec::default()
    }
}
