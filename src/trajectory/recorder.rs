//! The recorder: a pure fold from an agent's events to steps, usage and a summary.

use std::collections::HashMap;

use jiff::Timestamp;

use super::clip::{Arguments, Clipped, one_line};
use super::event::{
    AgentEvent, AgentResult, Block, Compacted, Init, Message, RateLimit, Retry, Task, TaskStage,
    ToolResult, ToolResults, UserText,
};
use super::model_name::same_model;
use super::step::{MessageStep, Step, StepKind, StepUpdate, TaskReport, ToolCallStep, ToolOutcome};
use super::step_log::StepLog;
use super::summary::Summary;
use super::usage::{ReplyLedger, UsageReport, UsageSource};
use super::warnings::Warnings;

/// Most sessions, models and open tasks that are told apart. More come only from a broken agent.
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
    /// The steps that carry the report of a task which has not ended.
    open_tasks: HashMap<String, u64>,
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
        Self::default()
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
    /// stands, else the sum of the replies.
    #[must_use]
    pub fn usage(&self) -> UsageReport {
        let replies = self.ledger.by_model();
        match &self.summary.last_result {
            Some(result) if !self.summary.went_on_after_result => UsageReport {
                source: UsageSource::AgentResult,
                by_model: result.usage.explained_by(replies),
            },
            Some(_) | None if replies.is_empty() => UsageReport::default(),
            Some(_) | None => UsageReport { source: UsageSource::Live, by_model: replies.clone() },
        }
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
            if let StepKind::ToolCall(call) = &gone.kind
                && self.open_calls.get(&call.call_id) == Some(&gone.number)
            {
                self.open_calls.remove(&call.call_id);
            }
        }
        number
    }

    fn record_init(&mut self, init: Init, updates: &mut Vec<StepUpdate>) {
        let summary = &mut self.summary;
        summary.n_inits += 1;
        let first = summary.n_inits == 1;
        if !first && summary.n_results > 0 {
            summary.went_on_after_result = true;
        }
        if !summary.session_ids.contains(&init.session_id) && summary.session_ids.len() < MAX_NAMES
        {
            summary.session_ids.push(init.session_id);
        }
        if first {
            summary.agent_version = Some(init.agent_version);
            summary.model = Some(init.model);
            summary.mcp_servers.clone_from(&init.mcp_servers);
        } else {
            let cause = "a background task or a hook woke it";
            self.warn(
                format!("The agent began a further turn after its first ({cause})."),
                updates,
            );
        }
        for server in init.mcp_servers.iter().filter(|server| server.status != "connected") {
            let (name, status) = (one_line(&server.name), one_line(&server.status));
            self.warn(
                format!(
                    "The MCP server `{name}` was `{status}` when a turn began: its tools were \
                     missing, at least at first."
                ),
                updates,
            );
        }
    }

    fn record_message(
        &mut self,
        arrival: Arrival,
        mut message: Message,
        updates: &mut Vec<StepUpdate>,
    ) {
        // A provider that does not name the model was asked for the one that the turn began with.
        if message.model.is_empty()
            && let Some(model) = &self.summary.model
        {
            message.model.clone_from(model);
        }
        if message.parent_tool_call.is_none() {
            if self.summary.n_results > 0 {
                self.summary.went_on_after_result = true;
            }
            self.summary.last_error.clone_from(&message.error);
            self.activity = None;
        }
        if !message.synthetic {
            self.count_reply(&message, updates);
        }
        let number = self.reply_step(arrival, &message);
        let parent = message.parent_tool_call;
        let in_sub_agent = parent.is_some();
        for block in message.blocks {
            match block {
                Block::Text(text) => {
                    let line = one_line(&text);
                    if !line.is_empty() {
                        updates.push(StepUpdate::Said { number, text: line, in_sub_agent });
                    }
                    self.extend_reply(number, arrival, |reply| reply.text.append(&text));
                }
                Block::Thinking(text) => {
                    self.extend_reply(number, arrival, |reply| reply.thinking.append(&text));
                }
                Block::ToolCall { id, name, input } => {
                    let input = Arguments::new(&input);
                    let title = input.title(&name);
                    let call = ToolCallStep {
                        message_id: message.message_id.clone(),
                        call_id: id,
                        name,
                        input,
                        result: None,
                        task: None,
                    };
                    let number = self.begin_call(arrival, parent.clone(), call);
                    self.activity = Some(title.clone());
                    updates.push(StepUpdate::Started { number, title, in_sub_agent });
                }
                Block::Other { kind } => self.warnings.count_unknown(format!("block/{kind}")),
            }
        }
    }

    /// Counts a model's reply, and notes a model that nobody asked for.
    fn count_reply(&mut self, message: &Message, updates: &mut Vec<StepUpdate>) {
        let new = self.ledger.note(&message.message_id, &message.model, &message.usage);
        if new {
            self.summary.n_replies += 1;
        }
        if self.summary.models_seen.len() < MAX_NAMES {
            self.summary.models_seen.insert(message.model.clone());
        }
        if let Some(model) = &self.summary.model
            && message.parent_tool_call.is_none()
            && !same_model(model, &message.model)
        {
            let (asked, answered) = (one_line(model), one_line(&message.model));
            self.warn(
                format!(
                    "The main loop was answered by `{answered}` instead of `{asked}`: the agent \
                     fell back to another model, or the provider renamed it."
                ),
                updates,
            );
        }
    }

    /// The step of the reply that `message` is a part of.
    fn reply_step(&mut self, arrival: Arrival, message: &Message) -> u64 {
        let open = self.open_replies.get(&message.parent_tool_call);
        if let Some((_, number)) = open.filter(|(id, _)| *id == message.message_id) {
            return *number;
        }
        let kind = StepKind::Message(MessageStep {
            message_id: message.message_id.clone(),
            model: message.model.clone(),
            text: Clipped::default(),
            thinking: Clipped::default(),
            usage: message.usage,
            error: message.error.clone(),
            synthetic: message.synthetic,
        });
        let number = self.push(arrival, message.parent_tool_call.clone(), kind);
        if self.open_replies.len() < MAX_NAMES {
            let open = (message.message_id.clone(), number);
            self.open_replies.insert(message.parent_tool_call.clone(), open);
        }
        number
    }

    fn extend_reply(
        &mut self,
        number: u64,
        arrival: Arrival,
        extend: impl FnOnce(&mut MessageStep),
    ) {
        self.steps.update(number, |step| {
            step.ended = Some(arrival.at);
            if let StepKind::Message(reply) = &mut step.kind {
                extend(reply);
            }
        });
    }

    fn begin_call(&mut self, arrival: Arrival, parent: Option<String>, call: ToolCallStep) -> u64 {
        self.summary.n_tool_calls += 1;
        let call_id = call.call_id.clone();
        let number = self.push(arrival, parent, StepKind::ToolCall(call));
        self.open_calls.insert(call_id, number);
        number
    }

    fn record_results(
        &mut self,
        arrival: Arrival,
        results: ToolResults,
        updates: &mut Vec<StepUpdate>,
    ) {
        for result in results.results {
            if result.is_error {
                self.summary.n_tool_errors += 1;
            }
            // A sub-agent is over when the call that started it has its result.
            self.open_replies.remove(&Some(result.call_id.clone()));
            match self.open_calls.remove(&result.call_id) {
                Some(number) => self.end_call(arrival, number, result, updates),
                None => {
                    self.warnings.add(
                        "A tool gave a result that no call asked for, or a second one.".to_owned(),
                    );
                }
            }
        }
        if self.open_calls.is_empty() {
            self.activity = None;
        }
    }

    fn end_call(
        &mut self,
        arrival: Arrival,
        number: u64,
        result: ToolResult,
        updates: &mut Vec<StepUpdate>,
    ) {
        let ToolResult { content, is_error, .. } = result;
        let finished = self.steps.update(number, |step| {
            step.ended = Some(arrival.at);
            let took = step.took().unwrap_or_default();
            let in_sub_agent = step.parent_tool_call.is_some();
            let StepKind::ToolCall(call) = &mut step.kind else { return None };
            call.result = Some(ToolOutcome { content: Clipped::new(content), is_error });
            let title = call.input.title(&call.name);
            Some(StepUpdate::Finished { number, title, took, is_error, in_sub_agent })
        });
        updates.extend(finished.flatten());
    }

    fn record_user_text(&mut self, arrival: Arrival, text: UserText) {
        let UserText { parent_tool_call, text, synthetic } = text;
        let kind = StepKind::UserText { text: Clipped::new(text), synthetic };
        self.push(arrival, parent_tool_call, kind);
    }

    fn record_retry(&mut self, arrival: Arrival, retry: Retry, updates: &mut Vec<StepUpdate>) {
        self.summary.n_retries += 1;
        let Retry { attempt, max_retries, delay_ms, status, error } = retry;
        let status_text = status.map_or("no answer".to_owned(), |status| format!("HTTP {status}"));
        let error = one_line(&error);
        let note = format!(
            "The provider failed ({status_text}, {error}); retry {attempt} of {max_retries} in \
             {delay_ms} ms."
        );
        self.activity = Some("waiting to ask the provider again".to_owned());
        updates.push(StepUpdate::Note(note));
        self.push(arrival, None, StepKind::Retry { attempt, max_retries, status, error });
    }

    fn record_compaction(
        &mut self,
        arrival: Arrival,
        compacted: Compacted,
        updates: &mut Vec<StepUpdate>,
    ) {
        self.summary.n_compactions += 1;
        let what = if self.summary.n_replies == 0 {
            "The prompt was too long and was replaced by a summary before the first reply: the \
             agent never saw the runbook's own words. Shorten the runbook."
        } else {
            "The conversation was too long and was replaced by a summary of itself."
        };
        self.warn(what.to_owned(), updates);
        let Compacted { trigger, tokens_before, tokens_after } = compacted;
        let trigger = one_line(&trigger);
        self.push(arrival, None, StepKind::Compaction { trigger, tokens_before, tokens_after });
    }

    fn record_task(&mut self, arrival: Arrival, task: Task) {
        let description = one_line(&task.description);
        let status = match &task.stage {
            TaskStage::Ended { status } => Some(one_line(status)),
            TaskStage::Started { .. } | TaskStage::Progress { .. } | TaskStage::Updated => None,
        };
        let known = self.open_tasks.get(&task.task_id).copied();
        let number = match (known, &task.stage) {
            (Some(number), _) => number,
            (None, TaskStage::Started { kind }) => {
                let report = TaskReport {
                    task_id: task.task_id.clone(),
                    kind: one_line(kind),
                    status: "running".to_owned(),
                    description: description.clone(),
                    usage: None,
                };
                self.begin_task(arrival, task.tool_call.as_deref(), report)
            }
            // The end was told before, or the beginning never was: there is no report to complete.
            (None, TaskStage::Progress { .. } | TaskStage::Ended { .. } | TaskStage::Updated) => {
                return;
            }
        };
        self.steps.update(number, |step| {
            let report = match &mut step.kind {
                StepKind::ToolCall(call) => call.task.as_mut(),
                StepKind::Task(report) => {
                    step.ended = status.as_ref().map(|_| arrival.at);
                    Some(report)
                }
                StepKind::Message(_)
                | StepKind::UserText { .. }
                | StepKind::Retry { .. }
                | StepKind::Compaction { .. }
                | StepKind::RateLimit { .. }
                | StepKind::Result { .. } => None,
            };
            if let Some(report) = report {
                report.usage = task.usage.or(report.usage);
                if let Some(status) = &status {
                    report.status.clone_from(status);
                }
            }
        });
        if status.is_some() {
            self.open_tasks.remove(&task.task_id);
            self.summary.open_tasks.remove(&task.task_id);
        }
    }

    /// Puts a task's report on the call that started it, or on a step of its own.
    fn begin_task(&mut self, arrival: Arrival, call: Option<&str>, report: TaskReport) -> u64 {
        let (id, description) = (report.task_id.clone(), report.description.clone());
        let number = match call.and_then(|call| self.open_calls.get(call)).copied() {
            Some(number) => {
                self.steps.update(number, |step| {
                    if let StepKind::ToolCall(call) = &mut step.kind {
                        call.task = Some(report);
                    }
                });
                number
            }
            None => self.push(arrival, None, StepKind::Task(report)),
        };
        if self.open_tasks.len() < MAX_NAMES {
            self.open_tasks.insert(id.clone(), number);
            self.summary.open_tasks.insert(id, description);
        }
        number
    }

    fn record_rate_limit(
        &mut self,
        arrival: Arrival,
        limit: RateLimit,
        updates: &mut Vec<StepUpdate>,
    ) {
        let (status, allowance) = (one_line(&limit.status), one_line(&limit.kind));
        if status != "allowed" {
            self.warn(
                format!("The provider says `{status}` of the account's `{allowance}` allowance."),
                updates,
            );
        }
        let utilization = limit.utilization;
        self.push(arrival, None, StepKind::RateLimit { status, allowance, utilization });
    }

    fn record_result(
        &mut self,
        arrival: Arrival,
        mut result: AgentResult,
        updates: &mut Vec<StepUpdate>,
    ) {
        self.summary.n_results += 1;
        self.summary.went_on_after_result = false;
        self.activity = None;
        let errors = std::mem::take(&mut result.errors).join("; ");
        let text = std::mem::take(&mut result.text);
        let text = Clipped::new(if text.is_empty() { errors } else { text });
        result.text.clone_from(&text.text);
        result.permission_denials.truncate(MAX_NAMES);
        if !result.permission_denials.is_empty() {
            let mut tools = result.permission_denials.clone();
            tools.sort();
            tools.dedup();
            self.warn(
                format!(
                    "The agent was not allowed to use {}: {} refused.",
                    one_line(&tools.join(", ")),
                    calls(result.permission_denials.len())
                ),
                updates,
            );
        }
        let subtype = one_line(&result.subtype);
        let is_error = result.is_error;
        self.push(arrival, None, StepKind::Result { subtype, is_error, text });
        self.summary.last_result = Some(result);
    }
}

fn calls(n: usize) -> String {
    if n == 1 { "1 call was".to_owned() } else { format!("{n} calls were") }
}
