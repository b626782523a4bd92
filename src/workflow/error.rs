//! What can be wrong with a workflow, and with what a request gives to it.

use serde_json::Value;

/// Longest text that an error repeats, in characters: enough to recognise it.
const MAX_SHOWN_CHARS: usize = 60;

/// A workflow that cannot be run, with everything that is wrong with it at once.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct WorkflowError {
    /// What is wrong, at least one thing, in the workflow's order.
    pub problems: Vec<WorkflowProblem>,
}

/// One thing that is wrong with a workflow or with the parameters of a request.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WorkflowProblem {
    /// A value of the wrong type.
    #[error("`{at}` must be {expected}; it is {found}")]
    Unfit {
        /// The value's path.
        at: String,
        /// What it must be.
        expected: &'static str,
        /// What it is, without its content.
        found: String,
    },
    /// There is nothing to run.
    #[error(
        "`steps` names no step: write the names of steps from `step_configs`, such as `[\"run\"]`"
    )]
    NoSteps,
    /// More steps than one run may have.
    #[error("`steps` has {n_steps} steps: write at most {most}")]
    TooManySteps {
        /// How many there are.
        n_steps: usize,
        /// How many there may be.
        most: usize,
    },
    /// A step's name that cannot name a folder.
    #[error(
        "the step name {name:?} is not usable: use letters, digits, `-`, `_`, `.` and spaces inside"
    )]
    StepName {
        /// The name.
        name: String,
    },
    /// A step that stands in `steps` twice. The record keeps steps by name.
    #[error("`steps` names `{step}` twice: give each step a name of its own")]
    RepeatedStep {
        /// The step.
        step: String,
    },
    /// A step without settings.
    #[error("the step `{step}` has no entry in `step_configs`{}", listed(.configured))]
    UnconfiguredStep {
        /// The step.
        step: String,
        /// The steps that have one.
        configured: Vec<String>,
    },
    /// An activity that cannot be carried out here.
    #[error("the activity `{activity}` of the step `{step}` is not supported: {}", advice(.activity))]
    UnknownActivity {
        /// The step.
        step: String,
        /// What it asks for.
        activity: String,
    },
    /// A path expression that cannot be read.
    #[error("`{at}` holds the path `{path}`, which cannot be read: {reason}")]
    UnreadablePath {
        /// Where the path stands.
        at: String,
        /// The path.
        path: String,
        /// Why, and what to write.
        reason: &'static str,
    },
    /// A step that has nothing to do.
    #[error(
        "the step `{step}` has no instruction: give the runbook's text as `init_params.instruction`"
    )]
    MissingInstruction {
        /// The step.
        step: String,
    },
    /// A step that has nothing to do, because an earlier one did not leave what it was to leave.
    #[error("the step `{step}` has no instruction: nothing stands at `{path}`")]
    NothingLeft {
        /// The step.
        step: String,
        /// Where its instruction was looked for.
        path: String,
    },
    /// The request's parameters are wrong as a whole.
    #[error(transparent)]
    InitParams(#[from] InitParamsError),
}

/// What is wrong with a text that should be the parameters of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InitParamsError {
    /// It is not JSON.
    #[error(
        "`init_params` is not valid JSON at line {line}, column {column}: send one JSON object, such as `{{\"name\": \"value\"}}`"
    )]
    NotJson {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// Something follows the object.
    #[error(
        "`init_params` goes on after its JSON value ends, at line {line}, column {column}: send one JSON object and nothing after it"
    )]
    Trailing {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// It is JSON, but no object.
    #[error(
        "`init_params` must be a JSON object, such as `{{\"name\": \"value\"}}`; it is {found}"
    )]
    NotObject {
        /// What it is.
        found: String,
    },
    /// The object holds only another `init_params`, so every value would be missed.
    #[error(
        "`init_params` is wrapped twice, as `{{\"init_params\": {{…}}}}`: send the inner object alone"
    )]
    DoubleWrapped,
}

/// What a value is, without its content: parameters may hold what is not for error messages.
pub(super) fn in_words(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => format!("`{flag}`"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.trim().is_empty() => "an empty text".to_owned(),
        Value::String(_) => "a text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// A text that is safe to repeat, not longer than a line.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_SHOWN_CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

fn listed(configured: &[String]) -> String {
    if configured.is_empty() {
        return ", which is empty".to_owned();
    }
    let names: Vec<String> = configured.iter().map(|name| format!("`{name}`")).collect();
    format!(": configured are {}", names.join(", "))
}

fn advice(activity: &str) -> &'static str {
    match activity {
        "completion" | "passthrough" => {
            "such a task records chat requests and cannot be run. To run a runbook, write \
             `\"activity\": \"runbook\"` with `\"instruction_path\": \"init_params.instruction\"`"
        }
        _ => "supported is `runbook`",
    }
}
