//! Tool calls, each joined with its result.

use super::{Arrival, Recorder};
use crate::trajectory::clip::Clipped;
use crate::trajectory::event::{ToolResult, ToolResults};
use crate::trajectory::step::{StepKind, StepUpdate, ToolCallStep, ToolOutcome};

impl Recorder {
    pub(super) fn begin_call(
        &mut self,
        arrival: Arrival,
        parent: Option<String>,
        call: ToolCallStep,
    ) -> u64 {
        self.summary.n_tool_calls += 1;
        let call_id = call.call_id.clone();
        let number = self.push(arrival, parent, StepKind::ToolCall(call));
        self.open_calls.insert(call_id, number);
        number
    }

    pub(super) fn record_results(
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
        self.activity = self.latest_open_call();
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

    /// The title of the call that began last among those that have no result.
    fn latest_open_call(&mut self) -> Option<String> {
        let number = self.open_calls.values().copied().max()?;
        let title = self.steps.update(number, |step| match &step.kind {
            StepKind::ToolCall(call) => Some(call.input.title(&call.name)),
            StepKind::Message(_)
            | StepKind::UserText { .. }
            | StepKind::Retry { .. }
            | StepKind::Compaction { .. }
            | StepKind::Task(_)
            | StepKind::RateLimit { .. }
            | StepKind::Result { .. } => None,
        });
        title.flatten()
    }
}
