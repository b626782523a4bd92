//! What the agent's own words tell of whether its run goes on.

use crate::trajectory::AgentEvent;

/// What was heard so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// Words that say that something went on.
    pub(super) n_words: u64,
    /// How often it was said that the rate is limited.
    n_limits: u64,
    /// Whether that was the last word.
    is_limited: bool,
}

impl Heard {
    /// Takes an event.
    pub(super) fn take(&mut self, event: &AgentEvent) {
        match event {
            AgentEvent::Retry(retry) => {
                if retry.status.is_some_and(limits_the_rate) {
                    self.n_limits += 1;
                    self.is_limited = true;
                }
            }
            // The agent says them while it waits, too.
            AgentEvent::Status(_) | AgentEvent::RateLimit(_) => {}
            AgentEvent::Init(_)
            | AgentEvent::Message(_)
            | AgentEvent::ToolResults(_)
            | AgentEvent::UserText(_)
            | AgentEvent::Compacted(_)
            | AgentEvent::Task(_)
            | AgentEvent::Result(_)
            | AgentEvent::Hook(_)
            | AgentEvent::Notice(_)
            | AgentEvent::Partial
            | AgentEvent::Unknown { .. }
            | AgentEvent::Unparsed { .. } => {
                self.n_words += 1;
                self.is_limited = false;
            }
        }
    }

    /// The number of the last word that the rate is limited, unless something went on since.
    pub(super) fn rate_limit(&self) -> Option<u64> {
        self.is_limited.then_some(self.n_limits)
    }
}

/// Whether a service says with this status that it could answer, and will not yet: too many requests,
/// or overloaded.
pub(super) fn limits_the_rate(status: u16) -> bool {
    matches!(status, 429 | 529)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trajectory::{Message, Retry};

    fn retry(status: Option<u16>) -> AgentEvent {
        let error = "made up".to_owned();
        AgentEvent::Retry(Retry { attempt: 1, max_retries: 2, delay_ms: 500, status, error })
    }

    #[test]
    fn the_rate_is_limited_until_something_goes_on() {
        let mut heard = Heard::default();
        let mut after = |event: AgentEvent| {
            heard.take(&event);
            (heard.n_words, heard.rate_limit())
        };
        assert_eq!(after(retry(Some(500))), (0, None));
        assert_eq!(after(retry(Some(429))), (0, Some(1)));
        assert_eq!(after(retry(Some(529))), (0, Some(2)));
        assert_eq!(after(AgentEvent::Status(Some("requesting".to_owned()))), (0, Some(2)));
        assert_eq!(after(AgentEvent::Message(Message::default())), (1, None));
        assert_eq!(after(retry(None)), (1, None));
    }
}
