//! `atif.json`: a run in the Agent Trajectory Interchange Format, version 1.7, as Harbor reads it.
//!
//! The format forbids unknown fields, so what it has no word for stands under `extra`. Sub-agents'
//! steps stand among the others with `extra.is_sidechain`, as Harbor's own converter writes them.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::clip::Clipped;
use super::recorder::Recorder;
use super::step::{MessageStep, Step, StepKind, ToolCallStep};
use super::usage::{Usage, UsageReport};

/// The version of the format that Harbor's own converters write.
const SCHEMA_VERSION: &str = "ATIF-v1.7";

/// Everything that goes into `atif.json`.
#[derive(Debug, Clone, Copy)]
pub struct AtifFacts<'a> {
    /// The run's id.
    pub trajectory_id: &'a str,
    /// The text that the agent was given.
    pub instruction: &'a str,
    /// The agent CLI's name.
    pub agent: &'a str,
    /// The model that was asked for.
    pub model: &'a str,
    /// What the agent did.
    pub recorder: &'a Recorder,
    /// The settled usage.
    pub usage: &'a UsageReport,
}

/// `atif.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AtifDocument {
    schema_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    trajectory_id: String,
    agent: Agent,
    steps: Vec<AtifStep>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notes: Option<String>,
    final_metrics: FinalMetrics,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Agent {
    name: String,
    version: String,
    model_name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    System,
    User,
    Agent,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct AtifStep {
    step_id: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    source: Source,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<Vec<ToolCall>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    observation: Option<Observation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<Metrics>,
    #[serde(skip_serializing_if = "Option::is_none")]
    llm_call_count: Option<u8>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    extra: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct ToolCall {
    tool_call_id: String,
    function_name: String,
    arguments: Map<String, Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    extra: Map<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Observation {
    results: Vec<ObservationResult>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct ObservationResult {
    source_call_id: String,
    content: String,
    #[serde(skip_serializing_if = "Map::is_empty")]
    extra: Map<String, Value>,
}

/// A reply's usage. Its output is left out: while the agent writes, it is a placeholder.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Metrics {
    prompt_tokens: u64,
    cached_tokens: u64,
    extra: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct FinalMetrics {
    #[serde(skip_serializing_if = "Option::is_none")]
    total_prompt_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_completion_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_cached_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_cost_usd: Option<f64>,
    total_steps: usize,
    extra: Map<String, Value>,
}

impl AtifDocument {
    /// Brings the facts into the format.
    #[must_use]
    pub fn new(facts: &AtifFacts<'_>) -> Self {
        let mut steps = Steps::default();
        steps.add(Source::User, None, facts.instruction.to_owned());
        facts.recorder.steps().for_each(|step| steps.add_step(step));
        let summary = facts.recorder.summary();
        let n_left_out = facts.recorder.n_steps_left_out();
        Self {
            schema_version: SCHEMA_VERSION,
            session_id: summary.session_ids.first().cloned(),
            trajectory_id: facts.trajectory_id.to_owned(),
            agent: Agent {
                name: facts.agent.to_owned(),
                version: summary.agent_version.clone().unwrap_or_else(|| "unknown".to_owned()),
                model_name: facts.model.to_owned(),
            },
            final_metrics: final_metrics(facts.usage, steps.list.len()),
            steps: steps.list,
            notes: (n_left_out > 0).then(|| {
                format!("{n_left_out} steps in the middle were left out; the agent's log has them.")
            }),
        }
    }
}

/// The steps so far, and where each reply stands among them, so that its calls find it.
#[derive(Default)]
struct Steps {
    list: Vec<AtifStep>,
    by_message: HashMap<String, usize>,
}

impl Steps {
    fn add(&mut self, source: Source, timestamp: Option<Timestamp>, message: String) -> usize {
        let index = self.list.len();
        self.list.push(AtifStep {
            step_id: index + 1,
            timestamp,
            source,
            message,
            model_name: None,
            reasoning_content: None,
            tool_calls: None,
            observation: None,
            metrics: None,
            llm_call_count: None,
            extra: Map::new(),
        });
        index
    }

    fn add_step(&mut self, step: &Step) {
        let at = Some(step.started);
        let index = match &step.kind {
            StepKind::Message(reply) => self.add_reply(step, reply),
            StepKind::ToolCall(call) => return self.add_call(step, call),
            StepKind::UserText { text, synthetic } => {
                let index = self.add(Source::User, at, text.text.clone());
                self.note_cut(index, text);
                if *synthetic {
                    self.extra(index, "synthetic", true.into());
                }
                index
            }
            StepKind::Retry { attempt, max_retries, status, error } => {
                let status = status.map_or("no answer".to_owned(), |code| format!("HTTP {code}"));
                let message = format!("Retry {attempt} of {max_retries} after {status}: {error}");
                self.add(Source::System, at, message)
            }
            StepKind::Compaction { trigger, tokens_before, tokens_after } => {
                let index = self.add(Source::System, at, format!("Compaction ({trigger})"));
                self.extra(index, "tokens_before", json!(tokens_before));
                self.extra(index, "tokens_after", json!(tokens_after));
                index
            }
            StepKind::Task(task) => {
                let message = format!("Task {}: {}", task.status, task.description);
                self.add(Source::System, at, message)
            }
            StepKind::RateLimit { status, allowance, .. } => {
                self.add(Source::System, at, format!("Rate limit {allowance}: {status}"))
            }
            // A success repeats the last reply, and a failure of the API the agent's own message.
            StepKind::Result { subtype, text, .. } if subtype != "success" => {
                self.add(Source::System, at, format!("Ended with {subtype}: {}", text.text))
            }
            StepKind::Result { .. } => return,
        };
        self.note_sub_agent(index, step);
    }

    fn add_reply(&mut self, step: &Step, reply: &MessageStep) -> usize {
        let index = self.add(Source::Agent, Some(step.started), reply.text.text.clone());
        self.by_message.insert(reply.message_id.clone(), index);
        self.note_cut(index, &reply.text);
        let atif = &mut self.list[index];
        // A message of the agent's own making asked no model.
        atif.llm_call_count = Some(u8::from(!reply.synthetic));
        if !reply.synthetic {
            atif.model_name = Some(reply.model.clone());
            let thinking = &reply.thinking.text;
            atif.reasoning_content = (!thinking.is_empty()).then(|| thinking.clone());
            atif.metrics = Some(metrics(&reply.usage_at_start));
        }
        if let Some(error) = &reply.error {
            self.extra(index, "error", error.as_str().into());
        }
        index
    }

    fn add_call(&mut self, step: &Step, call: &ToolCallStep) {
        let index = match self.by_message.get(&call.message_id) {
            Some(index) => *index,
            // Its reply is among the steps that were left out.
            None => {
                let index = self.add(Source::Agent, Some(step.started), String::new());
                self.by_message.insert(call.message_id.clone(), index);
                self.note_sub_agent(index, step);
                index
            }
        };
        let atif = &mut self.list[index];
        atif.tool_calls.get_or_insert_default().push(tool_call(call));
        let Some(result) = &call.result else { return };
        let mut extra = Map::new();
        extra.insert("is_error".to_owned(), result.is_error.into());
        if let Some(took) = step.took() {
            extra.insert("duration_seconds".to_owned(), took.as_secs_f64().into());
        }
        if result.content.n_truncated_bytes > 0 {
            extra.insert("n_truncated_bytes".to_owned(), result.content.n_truncated_bytes.into());
        }
        atif.observation.get_or_insert_default().results.push(ObservationResult {
            source_call_id: call.call_id.clone(),
            content: result.content.text.clone(),
            extra,
        });
    }

    fn extra(&mut self, index: usize, key: &str, value: Value) {
        self.list[index].extra.insert(key.to_owned(), value);
    }

    fn note_cut(&mut self, index: usize, text: &Clipped) {
        if text.n_truncated_bytes > 0 {
            self.extra(index, "n_truncated_bytes", text.n_truncated_bytes.into());
        }
    }

    fn note_sub_agent(&mut self, index: usize, step: &Step) {
        if let Some(parent) = &step.parent_tool_call {
            self.extra(index, "is_sidechain", true.into());
            self.extra(index, "parent_tool_call_id", parent.as_str().into());
        }
    }
}

fn tool_call(call: &ToolCallStep) -> ToolCall {
    let arguments = match &call.input.value {
        Value::Object(fields) => fields.clone(),
        other @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)) => Map::from_iter([("input".to_owned(), other.clone())]),
    };
    let mut extra = Map::new();
    if call.input.n_truncated_bytes > 0 {
        extra.insert("n_truncated_bytes".to_owned(), call.input.n_truncated_bytes.into());
    }
    if let Some(task) = &call.task {
        extra.insert("task".to_owned(), json!(task));
    }
    ToolCall {
        tool_call_id: call.call_id.clone(),
        function_name: call.name.clone(),
        arguments,
        extra,
    }
}

fn metrics(usage: &Usage) -> Metrics {
    Metrics {
        prompt_tokens: usage.total_input(),
        cached_tokens: usage.cache_read,
        extra: cache_writes(usage),
    }
}

fn cache_writes(usage: &Usage) -> Map<String, Value> {
    Map::from_iter([
        ("cache_creation_input_tokens".to_owned(), usage.cache_write().into()),
        ("cache_creation_5m_input_tokens".to_owned(), usage.cache_write_5m.into()),
        ("cache_creation_1h_input_tokens".to_owned(), usage.cache_write_1h.into()),
    ])
}

/// The run's totals. Where nothing is known they are left out, which is not the same as zero.
fn final_metrics(usage: &UsageReport, total_steps: usize) -> FinalMetrics {
    let total = usage.by_model.total();
    let known = !usage.by_model.is_empty();
    let mut extra = cache_writes(&total);
    extra.insert("usage_source".to_owned(), json!(usage.source));
    extra.insert("usage_by_model".to_owned(), json!(usage.by_model));
    FinalMetrics {
        total_prompt_tokens: known.then(|| total.total_input()),
        total_completion_tokens: known.then_some(total.output),
        total_cached_tokens: known.then_some(total.cache_read),
        total_cost_usd: total.cost_usd,
        total_steps,
        extra,
    }
}
