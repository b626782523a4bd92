//! Reads one step's parameters: from its settings, by path, or from `init_params` directly.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::error::{WorkflowProblem, in_words, shown};
use super::parameter::StepParameter;
use super::path::{Others, Path, StepOutputs};
use crate::run::{McpServers, Network, read_network};
use crate::runbook::{is_name, is_server_name, parse_size};

/// Reads the parameters of one step; what is wrong with them collects in it.
pub(super) struct StepReader<'a> {
    step: &'a str,
    config: &'a Map<String, Value>,
    from: Given<'a>,
    /// What refuses the step.
    pub(super) problems: Vec<WorkflowProblem>,
    /// What a person should know, as whole sentences.
    pub(super) notes: Vec<String>,
    /// The keys of `init_params` that were looked at.
    pub(super) read: BTreeSet<String>,
    /// The parameters that only an earlier step will tell.
    pub(super) left_open: BTreeSet<&'static str>,
    /// The parameters that an earlier step has told.
    pub(super) left: BTreeSet<&'static str>,
    /// The paths into earlier steps that led to nothing, with their parameters.
    pub(super) missed: BTreeMap<&'static str, String>,
}

/// What a step's parameters are read from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<'a> {
    /// The parameters of the request, over those of the task.
    pub(super) params: &'a Map<String, Value>,
    /// The steps around it.
    pub(super) others: Others<'a>,
    /// What those before it have left; `None` while nothing has run.
    pub(super) outputs: Option<&'a StepOutputs>,
}

/// A value and its path, for an error.
struct Found {
    at: String,
    value: Value,
}

impl<'a> StepReader<'a> {
    pub(super) fn new(step: &'a str, config: &'a Map<String, Value>, from: Given<'a>) -> Self {
        Self {
            step,
            config,
            from,
            problems: vec![],
            notes: vec![],
            read: BTreeSet::new(),
            left_open: BTreeSet::new(),
            left: BTreeSet::new(),
            missed: BTreeMap::new(),
        }
    }

    /// A text as it was written.
    pub(super) fn verbatim(&mut self, parameter: &StepParameter) -> Option<String> {
        self.typed(parameter, |value| value.as_str().map(str::to_owned))
    }

    /// A text without the blanks around it.
    pub(super) fn text(&mut self, parameter: &StepParameter) -> Option<String> {
        self.typed(parameter, |value| value.as_str().map(|text| text.trim().to_owned()))
    }

    pub(super) fn flag(&mut self, parameter: &StepParameter) -> Option<bool> {
        self.typed(parameter, Value::as_bool)
    }

    /// A whole number from 1 that fits `T`.
    pub(super) fn count<T: TryFrom<u64>>(&mut self, parameter: &StepParameter) -> Option<T> {
        self.typed(parameter, |value| T::try_from(value.as_u64().filter(|&n| n > 0)?).ok())
    }

    /// A number above 0.
    pub(super) fn share(&mut self, parameter: &StepParameter) -> Option<f64> {
        self.typed(parameter, |value| value.as_f64().filter(|&share| share > 0.0))
    }

    /// A size in bytes.
    pub(super) fn size(&mut self, parameter: &StepParameter) -> Option<u64> {
        self.typed(parameter, |value| match value.as_str() {
            Some(text) => parse_size(text.trim()),
            None => value.as_u64().filter(|&bytes| bytes > 0),
        })
    }

    /// A list of texts that are not blank; one text is a list of one.
    pub(super) fn texts(&mut self, parameter: &StepParameter) -> Vec<String> {
        self.typed(parameter, list).unwrap_or_default()
    }

    /// The same from `init_params` directly, whatever the step says.
    pub(super) fn given_texts(&mut self, parameter: &StepParameter) -> Vec<String> {
        let found = self.given(parameter);
        self.checked(found, parameter, list).unwrap_or_default()
    }

    /// Names and values as texts. What is neither text nor number nor flag keeps its JSON, and a
    /// null is no value.
    pub(super) fn variables(&mut self, parameter: &StepParameter) -> BTreeMap<String, String> {
        let variables = |value: &Value| {
            let pairs = value.as_object()?.iter().filter(|(_, value)| !value.is_null());
            Some(pairs.map(|(name, value)| (name.clone(), as_text(value))).collect())
        };
        self.typed(parameter, variables).unwrap_or_default()
    }

    /// Environment variables: legal names, simple values.
    pub(super) fn environment(&mut self, parameter: &StepParameter) -> BTreeMap<String, String> {
        let variable = |(name, value): (&String, &Value)| {
            let fits = is_name(name) && is_simple(value);
            let text = as_text(value);
            (fits && !text.contains('\0')).then(|| (name.clone(), text))
        };
        let variables = |value: &Value| {
            let pairs = value.as_object()?.iter().filter(|(_, value)| !value.is_null());
            pairs.map(variable).collect::<Option<BTreeMap<_, _>>>()
        };
        self.typed(parameter, variables).unwrap_or_default()
    }

    pub(super) fn network(&mut self, parameter: &StepParameter) -> Option<Network> {
        self.typed(parameter, read_network)
    }

    pub(super) fn servers(&mut self, parameter: &StepParameter) -> McpServers {
        let server = |(name, settings): (&String, &Value)| {
            (is_server_name(name) && settings.is_object()).then(|| (name.clone(), settings.clone()))
        };
        let servers = |value: &Value| value.as_object()?.iter().map(server).collect();
        self.typed(parameter, servers).unwrap_or_default()
    }

    /// Simple top-level values of `init_params` by the names in `wanted`.
    pub(super) fn simple_values(&mut self, wanted: &BTreeSet<&str>) -> BTreeMap<String, String> {
        let simple = |(name, value): (&String, &Value)| {
            (wanted.contains(name.as_str()) && is_simple(value) && !value.is_null())
                .then(|| (name.clone(), as_text(value)))
        };
        let found: BTreeMap<String, String> = self.from.params.iter().filter_map(simple).collect();
        self.read.extend(found.keys().cloned());
        found
    }

    fn typed<T>(
        &mut self,
        parameter: &StepParameter,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let found = self.find(parameter);
        self.checked(found, parameter, read)
    }

    fn checked<T>(
        &mut self,
        found: Option<Found>,
        parameter: &StepParameter,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let Found { at, value } = found?;
        let typed = read(&value);
        if typed.is_none() {
            let found = in_words(&value);
            self.problems.push(WorkflowProblem::Unfit { at, expected: parameter.expects, found });
        }
        typed
    }

    /// By path, else the value itself, else from `init_params` directly.
    fn find(&mut self, parameter: &StepParameter) -> Option<Found> {
        let (at, by_path) = match self.path(parameter) {
            Some((_, path)) if path.leads_into_a_step() && self.from.outputs.is_none() => {
                self.left_open.insert(parameter.name);
                // What takes its place if nothing is there is of use all the same.
                self.given(parameter);
                return None;
            }
            Some((at, path)) => {
                let found = path.find(self.from.params, self.from.outputs);
                match (path.leads_into_a_step(), found.as_ref().is_none_or(is_unset)) {
                    (true, true) => {
                        self.missed.insert(parameter.name, at.clone());
                    }
                    (true, false) => {
                        self.left.insert(parameter.name);
                    }
                    (false, _) => {}
                }
                (Some(at), found)
            }
            None => (None, None),
        };
        let points_nowhere = by_path.is_none();
        if let (Some(at), Some(value)) = (&at, by_path.filter(|value| !is_unset(value))) {
            return Some(Found { at: at.clone(), value });
        }
        if let Some(value) = self.config.get(parameter.name).filter(|value| !is_unset(value)) {
            let at = format!("step_configs.{}.{}", self.step, parameter.name);
            return Some(Found { at, value: value.clone() });
        }
        if let Some(given) = self.given(parameter) {
            return Some(given);
        }
        if let Some(at) = at.filter(|_| points_nowhere) {
            self.notes.push(format!(
                "nothing stands at `{at}`, where the step `{}` looks for `{}`: it counts as not \
                 given",
                self.step, parameter.name
            ));
        }
        None
    }

    /// From `init_params` directly.
    fn given(&mut self, parameter: &StepParameter) -> Option<Found> {
        parameter.keys.iter().find_map(|key| {
            let value = self.from.params.get(*key).filter(|value| !is_unset(value))?;
            self.read.insert((*key).to_owned());
            Some(Found { at: format!("init_params.{key}"), value: value.clone() })
        })
    }

    /// The path in `NAME_path`, as it is written and as it was read.
    fn path(&mut self, parameter: &StepParameter) -> Option<(String, Path)> {
        let key = format!("{}_path", parameter.name);
        let value = self.config.get(&key).filter(|value| !is_unset(value))?;
        let at = format!("step_configs.{}.{key}", self.step);
        let Some(text) = value.as_str() else {
            let expected = "a path, such as `init_params.model`";
            let found = in_words(value);
            self.problems.push(WorkflowProblem::Unfit { at, expected, found });
            return None;
        };
        match Path::parse(text.trim(), self.from.others) {
            Ok(path) => {
                match path.first_key() {
                    _ if path.leads_into_a_step() => {}
                    Some(key) => self.read.extend([key.to_owned()]),
                    None => self.read.extend(self.from.params.keys().cloned()),
                }
                Some((text.trim().to_owned(), path))
            }
            Err(reason) => {
                let path = shown(text);
                self.problems.push(WorkflowProblem::UnreadablePath { at, path, reason });
                None
            }
        }
    }
}

/// A list of texts that are not blank; one text is a list of one.
fn list(value: &Value) -> Option<Vec<String>> {
    let word = |value: &Value| {
        value.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    match value {
        Value::Array(items) => items.iter().map(word).collect(),
        Value::String(_) => word(value).map(|text| vec![text]),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// Whether a value counts as not given: clients send empty texts for what a person left open.
fn is_unset(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty())
}

fn is_simple(value: &Value) -> bool {
    !value.is_array() && !value.is_object()
}

fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
