//! From a workflow, the parameters of a request and what earlier steps left to steps in which
//! everything is decided.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::definition::Workflow;
use super::error::{WorkflowError, WorkflowProblem};
use super::init_params::{merge, refuse_double_wrapping};
use super::parameter as p;
use super::path::{Others, StepOutputs};
use super::reader::{Given, StepReader};
use super::step::RunbookStep;
use crate::runbook::referenced_variables;

/// What begins the id of a stored file, where a path has its collection.
const FILE_ID_PREFIX: &str = "file-";

/// What a request makes of a workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The steps in their order, at least one.
    pub steps: Vec<RunbookStep>,
    /// The task's parameters with the request's over them, as the record keeps them.
    pub init_params: Map<String, Value>,
    /// What a person should know and what does not stop the run, as whole sentences.
    pub notes: Vec<String>,
}

/// What earlier steps make of a later one.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedStep {
    /// The step. Nothing of it is left open any more.
    pub step: RunbookStep,
    /// What a person should know, as whole sentences.
    pub notes: Vec<String>,
}

/// Steps as far as they can be read, and everything that was noticed.
pub(super) struct Attempt {
    pub(super) steps: Vec<RunbookStep>,
    pub(super) problems: Vec<WorkflowProblem>,
    pub(super) notes: Vec<String>,
    pub(super) read: BTreeSet<String>,
}

impl Workflow {
    /// Decides every parameter of every step, but for those that an earlier step will tell. A key of
    /// `request` replaces the task's own.
    ///
    /// # Errors
    /// [`WorkflowError`] with everything that is wrong: values of a wrong type with their path, a
    /// step without an instruction, parameters wrapped twice.
    pub fn resolve(&self, request: &Map<String, Value>) -> Result<Resolved, WorkflowError> {
        refuse_double_wrapping(request)
            .map_err(|e| WorkflowError { problems: vec![WorkflowProblem::InitParams(e)] })?;
        let init_params = merge(self.init_params(), request);
        let Attempt { steps, mut problems, mut notes, read } = self.attempt(&init_params);
        let blank = steps.iter().filter(|step| {
            step.instruction.trim().is_empty() && !step.left_open.contains(p::INSTRUCTION.name)
        });
        // A wrong type is said already; "none" would be a second, wrong word for it.
        if problems.is_empty() {
            problems = blank
                .map(|step| WorkflowProblem::MissingInstruction { step: step.name.clone() })
                .collect();
        }
        if !problems.is_empty() {
            return Err(WorkflowError { problems });
        }
        notes.extend(self.unread(request, &read));
        Ok(Resolved { steps, init_params, notes })
    }

    /// Decides every parameter of one step, now that the steps before it have ended. `init_params`
    /// are those that [`Workflow::resolve`] gave. `None` where there is no such step.
    ///
    /// # Errors
    /// [`WorkflowError`] with everything that is wrong.
    pub fn resolve_step(
        &self,
        name: &str,
        init_params: &Map<String, Value>,
        outputs: &StepOutputs,
    ) -> Option<Result<ResolvedStep, WorkflowError>> {
        let names: Vec<&str> = self.step_names().collect();
        let place = names.iter().position(|other| *other == name)?;
        let (_, config) = self.steps().nth(place)?;
        let others = Others { earlier: &names[..place], all: &names };
        let given = Given { params: init_params, others, outputs: Some(outputs) };
        let mut reader = StepReader::new(name, config, given);
        let step = runbook_step(name, &mut reader);
        let mut problems = reader.problems;
        if problems.is_empty() && step.instruction.trim().is_empty() {
            let step = step.name.clone();
            problems.push(match reader.missed.remove(p::INSTRUCTION.name) {
                Some(path) => WorkflowProblem::NothingLeft { step, path },
                None => WorkflowProblem::MissingInstruction { step },
            });
        }
        if !problems.is_empty() {
            return Some(Err(WorkflowError { problems }));
        }
        Some(Ok(ResolvedStep { step, notes: reader.notes }))
    }

    /// Reads every step, whatever is wrong with it.
    pub(super) fn attempt(&self, init_params: &Map<String, Value>) -> Attempt {
        let mut attempt =
            Attempt { steps: vec![], problems: vec![], notes: vec![], read: BTreeSet::new() };
        let names: Vec<&str> = self.step_names().collect();
        for (place, (name, config)) in self.steps().enumerate() {
            let others = Others { earlier: &names[..place], all: &names };
            let given = Given { params: init_params, others, outputs: None };
            let mut reader = StepReader::new(name, config, given);
            attempt.steps.push(runbook_step(name, &mut reader));
            for problem in reader.problems {
                // One value can be read twice, and by two steps.
                if !attempt.problems.contains(&problem) {
                    attempt.problems.push(problem);
                }
            }
            attempt.notes.extend(reader.notes);
            attempt.read.extend(reader.read);
        }
        attempt
    }

    /// A note on each key of `given` that no step reads.
    pub(super) fn unread(
        &self,
        given: &Map<String, Value>,
        read: &BTreeSet<String>,
    ) -> Vec<String> {
        let unread = given.iter().filter(|(key, value)| !value.is_null() && !read.contains(*key));
        unread.map(|(key, _)| self.unread_note(key)).collect()
    }

    fn unread_note(&self, key: &str) -> String {
        let parameter = p::PARAMETERS.iter().find(|parameter| parameter.keys.contains(&key));
        match parameter {
            Some(parameter) => format!(
                "`init_params.{key}` is not used: the workflow sets `{}` itself. To let a request \
                 decide it, write `\"{}_path\": \"init_params.{key}\"`",
                parameter.name, parameter.name
            ),
            None => format!(
                "`init_params.{key}` is not used: no step reads it and no runbook has a place for \
                 `{{{{{key}}}}}`"
            ),
        }
    }
}

fn runbook_step(name: &str, reader: &mut StepReader<'_>) -> RunbookStep {
    let instruction = reader.verbatim(&p::INSTRUCTION).unwrap_or_default();
    let mut template_variables = reader.variables(&p::TEMPLATE_VARIABLES);
    let wanted = referenced_variables(&instruction);
    if reader.left.contains(p::TEMPLATE_VARIABLES.name) {
        // A step leaves more than the next one has a place for.
        template_variables.retain(|name, _| wanted.contains(name.as_str()));
    }
    let wanted =
        wanted.into_iter().filter(|name| !template_variables.contains_key(*name)).collect();
    template_variables.extend(reader.simple_values(&wanted));
    let (files, file_paths) = files(reader);
    RunbookStep {
        name: name.to_owned(),
        agent: reader.text(&p::AGENT),
        model: reader.text(&p::MODEL),
        model_provider: reader.text(&p::MODEL_PROVIDER),
        snapshot: reader.text(&p::SNAPSHOT),
        image: reader.text(&p::IMAGE),
        apt_packages: reader.texts(&p::APT_PACKAGES),
        template_variables,
        file_paths,
        files,
        mcp_servers: reader.servers(&p::MCP_SERVERS),
        cpus: reader.share(&p::CPUS),
        memory_bytes: reader.size(&p::MEMORY),
        disk_bytes: reader.size(&p::DISK),
        timeout_sec: reader.count(&p::TIMEOUT_SEC),
        max_turns: reader.count(&p::MAX_TURNS),
        max_cost_usd: reader.share(&p::MAX_COST_USD),
        max_tokens: reader.count(&p::MAX_TOKENS),
        max_requests: reader.count(&p::MAX_REQUESTS),
        network: reader.network(&p::NETWORK),
        network_enabled: reader.flag(&p::NETWORK_ENABLED),
        agent_env: reader.environment(&p::AGENT_ENV),
        script: reader.verbatim(&p::SCRIPT),
        prompt: reader.verbatim(&p::PROMPT),
        instruction,
        left_open: std::mem::take(&mut reader.left_open),
    }
}

/// The ids and the paths of stored files. Clients mix the two lists up, and an entry shows by
/// itself which it is; uploads are added to `init_params.file_paths` whatever a step reads. So
/// every entry of all of them is taken, each once.
fn files(reader: &mut StepReader<'_>) -> (Vec<String>, Vec<String>) {
    let mut entries = Vec::new();
    for list in [p::FILE_PATHS, p::FILES] {
        entries.extend(reader.texts(&list));
        entries.extend(reader.given_texts(&list));
    }
    let mut seen = BTreeSet::new();
    let entries = entries.into_iter().filter(|entry| seen.insert(entry.clone()));
    entries.partition(|entry| entry.starts_with(FILE_ID_PREFIX) && !entry.contains('/'))
}
