//! A workflow as a task has it: checked when it is written, so that no run finds out later.

use serde_json::{Map, Value, json};

use super::error::{WorkflowError, WorkflowProblem, in_words, shown};
use super::init_params::refuse_double_wrapping;
use super::parameter::{NOT_CARRIED_OUT, PARAMETERS};
use crate::run::Slug;

/// The activity of a step that runs a runbook.
pub const RUNBOOK_ACTIVITY: &str = "runbook";

/// The activity of a step that records a chat with a model. Nothing carries it out.
const COMPLETION_ACTIVITY: &str = "completion";

/// Steps of one workflow. Each is a sandbox and an agent of its own, one after the other.
const MAX_STEPS: usize = 32;

/// The keys of a workflow.
const KEYS: [&str; 3] = ["init_params", "step_configs", "steps"];

/// A workflow that can be run as far as one can know without a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Workflow {
    document: Value,
    init_params: Map<String, Value>,
    steps: Vec<(String, Map<String, Value>)>,
    warnings: Vec<String>,
}

impl Workflow {
    /// Checks a workflow: every step is configured and supported, every parameter that is known
    /// by now has the right type, every path can be read.
    ///
    /// # Errors
    /// [`WorkflowError`] with everything that is wrong.
    pub fn parse(document: &Value) -> Result<Self, WorkflowError> {
        let mut problems = Vec::new();
        let steps = steps(document, &mut problems);
        let init_params = init_params(document, &mut problems);
        let mut workflow =
            Self { document: document.clone(), init_params, steps, warnings: Vec::new() };
        let attempt = workflow.attempt(&workflow.init_params);
        problems.extend(attempt.problems);
        if !problems.is_empty() {
            return Err(WorkflowError { problems });
        }
        workflow.warnings = workflow.oddities();
        // A runbook that only a request brings may have a place for any of them.
        if attempt.steps.iter().all(|step| !step.instruction.is_empty()) {
            let unread = workflow.unread(&workflow.init_params, &attempt.read);
            workflow.warnings.extend(unread);
        }
        Ok(workflow)
    }

    /// The workflow of a task that a chat request makes: one step, and the request gives it
    /// everything.
    #[must_use]
    pub fn of_chat_task() -> Self {
        let document = json!({
            "init_params": {},
            "step_configs": {"run": {
                "activity": RUNBOOK_ACTIVITY,
                "agent_path": "init_params.agent",
                "model_path": "init_params.model",
                "instruction_path": "init_params.instruction",
                "template_variables_path": "init_params.vars",
                "files_path": "init_params.file_paths",
                "snapshot": "python312-uv",
                "cpus": 4,
                "memory": "8G",
                "timeout_sec": 1200,
                "network_enabled": true,
            }},
            "steps": ["run"],
        });
        Self::parse(&document).expect("our own workflow is legal")
    }

    /// The workflow of a task that records chats with a model. It cannot be run, and says so.
    #[must_use]
    pub fn of_passthrough_task() -> Self {
        let step = Map::from_iter([("activity".to_owned(), COMPLETION_ACTIVITY.into())]);
        let document = json!({
            "init_params": {},
            "step_configs": { COMPLETION_ACTIVITY: step },
            "steps": [COMPLETION_ACTIVITY],
        });
        let steps = vec![(COMPLETION_ACTIVITY.to_owned(), step)];
        Self { document, init_params: Map::new(), steps, warnings: Vec::new() }
    }

    /// The workflow as it was written.
    #[must_use]
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// The parameters that a request's are laid over.
    #[must_use]
    pub fn init_params(&self) -> &Map<String, Value> {
        &self.init_params
    }

    /// What a person should know about it, as whole sentences.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The names of the steps, in their order.
    pub fn step_names(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|(name, _)| name.as_str())
    }

    /// The keys of `overrides` that the workflow's own `init_params` do not have. A schedule
    /// refuses them: nobody would see the note that a run leaves.
    #[must_use]
    pub fn undeclared(&self, overrides: &Map<String, Value>) -> Vec<String> {
        overrides.keys().filter(|key| !self.init_params.contains_key(*key)).cloned().collect()
    }

    /// Each step's name and settings, in their order.
    pub(super) fn steps(&self) -> impl Iterator<Item = (&str, &Map<String, Value>)> {
        self.steps.iter().map(|(name, config)| (name.as_str(), config))
    }

    /// What is legal and does nothing.
    fn oddities(&self) -> Vec<String> {
        let mut found = Vec::new();
        let keys = self.document.as_object().into_iter().flat_map(Map::keys);
        for key in keys.filter(|key| !KEYS.contains(&key.as_str())) {
            found.push(format!("the workflow's key `{key}` is not known and does nothing"));
        }
        let configured = self.document.get("step_configs").and_then(Value::as_object);
        for name in configured.into_iter().flat_map(Map::keys) {
            if !self.step_names().any(|step| step == name) {
                found.push(format!(
                    "the step `{name}` is configured, but `steps` does not name it: it is not run"
                ));
            }
        }
        for (name, config) in self.steps() {
            found.extend(config.iter().filter_map(|(key, value)| oddity(name, key, value)));
        }
        found
    }
}

/// What is odd about one setting of a step.
fn oddity(step: &str, key: &str, value: &Value) -> Option<String> {
    let name = key.strip_suffix("_path").unwrap_or(key);
    if NOT_CARRIED_OUT.contains(&name) {
        return Some(format!("`{key}` of the step `{step}` is kept, but not carried out here"));
    }
    if key == "activity" {
        return None;
    }
    // `file_paths` and its like do not end in `_path`, so the stripped name is the parameter.
    if !PARAMETERS.iter().any(|parameter| parameter.name == name) {
        return Some(format!("`{key}` of the step `{step}` is not known and does nothing"));
    }
    let looks_like_a_path =
        key == name && value.as_str().is_some_and(|text| text.starts_with("init_params."));
    looks_like_a_path.then(|| {
        format!(
            "`{key}` of the step `{step}` is taken literally: to read it from the request, write \
             `{key}_path`"
        )
    })
}

fn init_params(document: &Value, problems: &mut Vec<WorkflowProblem>) -> Map<String, Value> {
    match document.get("init_params") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(params)) => {
            problems.extend(refuse_double_wrapping(params).err().map(WorkflowProblem::InitParams));
            params.clone()
        }
        Some(other) => {
            problems.push(unfit("init_params", "an object of names and values", other));
            Map::new()
        }
    }
}

fn steps(
    document: &Value,
    problems: &mut Vec<WorkflowProblem>,
) -> Vec<(String, Map<String, Value>)> {
    let empty = Map::new();
    if !document.is_object() {
        let expected = "an object of `init_params`, `step_configs` and `steps`";
        problems.push(unfit("workflow", expected, document));
        return Vec::new();
    }
    let configs = match document.get("step_configs") {
        None | Some(Value::Null) => &empty,
        Some(Value::Object(configs)) => configs,
        Some(other) => {
            problems.push(unfit("step_configs", "an object of steps and their settings", other));
            return Vec::new();
        }
    };
    let names = match document.get("steps") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(names)) => names,
        Some(other) => {
            let expected = "a list of the names of steps, such as `[\"run\"]`";
            problems.push(unfit("steps", expected, other));
            return Vec::new();
        }
    };
    if names.is_empty() {
        problems.push(WorkflowProblem::NoSteps);
    }
    if names.len() > MAX_STEPS {
        problems.push(WorkflowProblem::TooManySteps { n_steps: names.len(), most: MAX_STEPS });
        return Vec::new();
    }
    let mut steps: Vec<(String, Map<String, Value>)> = Vec::new();
    for (index, name) in names.iter().enumerate() {
        match step(index, name, configs) {
            Ok((name, _)) if steps.iter().any(|(other, _)| *other == name) => {
                problems.push(WorkflowProblem::RepeatedStep { step: name });
            }
            Ok(step) => steps.push(step),
            Err(problem) => problems.push(problem),
        }
    }
    steps
}

fn step(
    index: usize,
    name: &Value,
    configs: &Map<String, Value>,
) -> Result<(String, Map<String, Value>), WorkflowProblem> {
    let Some(name) = name.as_str() else {
        return Err(unfit(&format!("steps[{index}]"), "the name of a step", name));
    };
    if Slug::new(name).is_err() {
        return Err(WorkflowProblem::StepName { name: shown(name) });
    }
    let Some(config) = configs.get(name) else {
        let configured = configs.keys().cloned().collect();
        return Err(WorkflowProblem::UnconfiguredStep { step: name.to_owned(), configured });
    };
    let at = format!("step_configs.{name}");
    let Some(config) = config.as_object() else {
        return Err(unfit(&at, "an object with the step's settings", config));
    };
    match config.get("activity") {
        Some(Value::String(activity)) if activity == RUNBOOK_ACTIVITY => {
            Ok((name.to_owned(), config.clone()))
        }
        Some(Value::String(activity)) => Err(WorkflowProblem::UnknownActivity {
            step: name.to_owned(),
            activity: shown(activity),
        }),
        other => {
            let other = other.unwrap_or(&Value::Null);
            Err(unfit(&format!("{at}.activity"), "an activity: write `\"runbook\"`", other))
        }
    }
}

fn unfit(at: &str, expected: &'static str, value: &Value) -> WorkflowProblem {
    WorkflowProblem::Unfit { at: at.to_owned(), expected, found: in_words(value) }
}
