//! The turns of the agent's process: how they begin, what disturbs them, how they end.

use super::{Arrival, MAX_NAMES, Recorder};
use crate::trajectory::clip::{Clipped, one_line};
use crate::trajectory::event::{AgentResult, Compacted, Init, RateLimit, Retry};
use crate::trajectory::step::{StepKind, StepUpdate};

impl Recorder {
    pub(super) fn record_init(&mut self, mut init: Init, updates: &mut Vec<StepUpdate>) {
        init.mcp_servers.truncate(MAX_NAMES);
        let summary = &mut self.summary;
        summary.n_inits += 1;
        let first = summary.n_inits == 1;
        if !first && summary.n_results > 0 {
            summary.went_on_after_result = true;
        }
        let named = !init.session_id.is_empty();
        if named
            && !summary.session_ids.contains(&init.session_id)
            && summary.session_ids.len() < MAX_NAMES
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

    pub(super) fn record_result(
        &mut self,
        arrival: Arrival,
        mut result: AgentResult,
        updates: &mut Vec<StepUpdate>,
    ) {
        self.summary.n_results += 1;
        if self.summary.n_results > self.summary.n_inits.max(1) {
            let what = "The agent gave more results than it began turns; the last one counts.";
            self.warn(what.to_owned(), updates);
        }
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

    pub(super) fn record_retry(
        &mut self,
        arrival: Arrival,
        retry: Retry,
        updates: &mut Vec<StepUpdate>,
    ) {
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

    pub(super) fn record_compaction(
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

    pub(super) fn record_rate_limit(
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
}

fn calls(n: usize) -> String {
    if n == 1 { "1 call was".to_owned() } else { format!("{n} calls were") }
}
