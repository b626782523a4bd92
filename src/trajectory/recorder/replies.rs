//! What models said, and text in the user's name.

use super::{Arrival, MAX_NAMES, Recorder};
use crate::trajectory::clip::{Arguments, Clipped, one_line};
use crate::trajectory::event::{Block, Message, UserText};
use crate::trajectory::model_name::same_model;
use crate::trajectory::step::{MessageStep, StepKind, StepUpdate, ToolCallStep};
use crate::trajectory::usage::Usage;

/// The longest text that is told while it is said, in bytes: more than a model writes in one reply.
const SAID_BYTES: usize = 256 * 1024;

impl Recorder {
    pub(super) fn record_message(
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
                    updates.extend(said(number, &text, in_sub_agent));
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
            usage_at_start: Usage { requests_seen: u64::from(!message.synthetic), ..message.usage },
            error: message.error.clone(),
            synthetic: message.synthetic,
        });
        let number = self.push(arrival, message.parent_tool_call.clone(), kind);
        let known = self.open_replies.contains_key(&message.parent_tool_call);
        if known || self.open_replies.len() < MAX_NAMES {
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

    pub(super) fn record_user_text(&mut self, arrival: Arrival, text: UserText) {
        let UserText { parent_tool_call, text, synthetic, .. } = text;
        let kind = StepKind::UserText { text: Clipped::new(text), synthetic };
        self.push(arrival, parent_tool_call, kind);
    }
}

/// The news that a model said something, unless that was nothing.
fn said(number: u64, text: &str, in_sub_agent: bool) -> Option<StepUpdate> {
    let line = one_line(text);
    let end = text.floor_char_boundary(SAID_BYTES);
    (!line.is_empty()).then(|| StepUpdate::Said {
        number,
        text: line,
        content: text[..end].to_owned(),
        n_truncated_bytes: (text.len() - end) as u64,
        in_sub_agent,
    })
}
