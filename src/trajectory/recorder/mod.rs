//! The recorder: a pure fold from an agent's events to steps, usage and a summary.

mod calls;
mod replies;
mod tasks;
mod turns;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use jiff::Timestamp;

use super::clip::one_line;
use super::event::AgentEvent;
use super::step::{Step, StepKind, StepUpdate};
use super::step_log::StepLog;
use super::summary::Summary;
use super::usage::{ReplyLedger, UsageReport, UsageSource};
use super::warnings::Warnings;

/// Most sessions, models, open tasks and open calls of forgotten steps that are told apart. More come
/// only from a broken agent.
const MAX_NAMES: usize = 1_000;

/// Folds an agent's events into a record. The same events always give the same record, so a record
/// that was lost is had again by reading the stored log.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    steps: StepLog,
    ledger: ReplyLedger,
    summary: Summary,
    warnings: Warnings,
    /// Tool calls that have no result yet, with their steps.
    open_calls: HashMap<String, u64>,
    /// The step of the reply that is being written, by the tool call of its sub-agent.
    open_replies: HashMap<Option<String>, (String, u64)>,
    /// The steps that carry the reports of tasks. Ended ones stay, because the end of a task can be
    /// told twice, the second time with its usage.
    tasks: HashMap<String, u64>,
    activity: Option<String>,
}

/// Where a run is right now, for a progress display.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    /// Steps so far.
    pub n_steps: u64,
    /// Tool calls so far.
    pub n_tool_calls: u64,
    /// Usage so far. See [`UsageSource::Live`] for what its output count is worth.
    pub usage: UsageReport,
    /// What the agent is busy with, as one line.
    pub activity: Option<String>,
}

/// Where and when an event was read.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    line: u64,
    at: Timestamp,
}

impl Recorder {
    /// Begins an empty record.
    #[must_use]
    pub fn new() -> Self {
        Self { ledger: ReplyLedger::of_stream(), ..Self::default() }
    }

    /// Takes the event of the log's line number `line`, which arrived at `at`, and says what a live
    /// view should show for it.
    pub fn record(&mut self, line: u64, at: Timestamp, event: AgentEvent) -> Vec<StepUpdate> {
        let arrival = Arrival { line, at };
        self.summary.n_lines += 1;
        let mut updates = Vec::new();
        match event {
            AgentEvent::Init(init) => self.record_init(init, &mut updates),
            AgentEvent::Message(message) => self.record_message(arrival, message, &mut updates),
            AgentEvent::ToolResults(results) => self.record_results(arrival, results, &mut updates),
            AgentEvent::UserText(text) => self.record_user_text(arrival, text),
            AgentEvent::Retry(retry) => self.record_retry(arrival, retry, &mut updates),
            AgentEvent::Compacted(compacted) => {
                self.record_compaction(arrival, compacted, &mut updates);
            }
            AgentEvent::Task(task) => self.record_task(arrival, task),
            AgentEvent::RateLimit(limit) => self.record_rate_limit(arrival, limit, &mut updates),
            AgentEvent::Result(result) => self.record_result(arrival, *result, &mut updates),
            AgentEvent::Status(status) => self.activity = status,
            AgentEvent::Hook(hook) => {
                if let Some(code) = hook.exit_code.filter(|&code| code != 0) {
                    let name = one_line(&hook.name);
                    self.warn(format!("The hook `{name}` ended with code {code}."), &mut updates);
                }
            }
            AgentEvent::Notice(text) => {
                self.warn(format!("The agent notes: {}.", one_line(&text)), &mut updates);
            }
            AgentEvent::Partial => {}
            AgentEvent::Unknown { kind } => {
                self.summary.n_unknown += 1;
                self.warnings.count_unknown(kind);
            }
            AgentEvent::Unparsed { reason } => {
                self.summary.n_unparsed += 1;
                self.warnings.count_unparsed(line, reason);
            }
        }
        updates
    }

    /// The steps that are kept, in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter()
    }

    /// How many steps there were, kept or not.
    #[must_use]
    pub fn n_steps(&self) -> u64 {
        self.steps.n_steps()
    }

    /// How many steps, between the first and the last, were left out of memory.
    #[must_use]
    pub fn n_steps_left_out(&self) -> u64 {
        self.steps.n_left_out()
    }

    /// What else the events add up to.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Whether a tool was called that has given no result.
    #[must_use]
    pub fn has_open_call(&self) -> bool {
        !self.open_calls.is_empty()
    }

    /// What looked wrong so far, as sentences.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.to_sentences()
    }

    /// The replies seen, for a comparison with another account of them.
    #[must_use]
    pub fn replies(&self) -> &ReplyLedger {
        &self.ledger
    }

    /// The best account of usage that the events give: the agent's totals if its last word still
    /// stands and has any. Otherwise, for each model, the larger of its totals so far and the
    /// replies' sum: an agent counts a reply that broke off nowhere, but it was seen.
    #[must_use]
    pub fn usage(&self) -> UsageReport {
        let replies = self.ledger.by_model();
        let result = self.summary.last_result.as_ref();
        let totals = result.map(|result| result.usage.explained_by(replies)).unwrap_or_default();
        let stands = result.is_some() && !self.summary.went_on_after_result;
        if stands && (replies.is_empty() || !totals.is_empty()) {
            return UsageReport { source: UsageSource::AgentResult, by_model: totals };
        }
        let by_model = totals.or_larger(replies);
        let source = if by_model.is_empty() { UsageSource::None } else { UsageSource::Live };
        UsageReport { source, by_model }
    }

    /// Where the run is right now.
    #[must_use]
    pub fn live(&self) -> Live {
        Live {
            n_steps: self.n_steps(),
            n_tool_calls: self.summary.n_tool_calls,
            usage: self.usage(),
            activity: self.activity.clone(),
        }
    }

    fn warn(&mut self, sentence: String, updates: &mut Vec<StepUpdate>) {
        if self.warnings.add(sentence.clone()) {
            updates.push(StepUpdate::Note(sentence));
        }
    }

    /// Adds a step that is over at once unless its kind says otherwise, and returns its number.
    fn push(&mut self, arrival: Arrival, parent: Option<String>, kind: StepKind) -> u64 {
        let lasts = matches!(kind, StepKind::ToolCall(_) | StepKind::Task(_));
        let number = self.steps.next_number();
        let step = Step {
            number,
            line: arrival.line,
            started: arrival.at,
            ended: (!lasts).then_some(arrival.at),
            parent_tool_call: parent,
            kind,
        };
        for gone in self.steps.push(step) {
            // The result of a call whose step is gone may still come and must not look unasked for.
            if self.open_calls.len() > MAX_NAMES
                && let StepKind::ToolCall(call) = &gone.kind
                && self.open_calls.get(&call.call_id) == Some(&gone.number)
            {
                self.open_calls.remove(&call.call_id);
            }
        }
        number
    }
}
