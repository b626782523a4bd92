//! What the CLI's own session files tell: the usage of each reply, final where the stream has only a
//! placeholder. They are all there is after a kill.

use super::parse::SYNTHETIC_MODEL;
use super::wire::{Head, MessageLine, owned};
use crate::trajectory::{ReplyLedger, UsageReport, UsageSource};

/// The replies that session files hold, and those that only the stream showed.
#[derive(Debug, Clone, Default)]
pub struct SessionAccount {
    /// Every reply, the session files' and the stream's. A reply that both have counts once, with
    /// the larger counts.
    replies: ReplyLedger,
    /// Replies that the session files hold.
    pub n_in_session: usize,
    /// Ids of the replies that only the stream showed, sorted. Their output counts are
    /// placeholders.
    pub missing: Vec<String>,
    /// Lines that could not be read. A kill cuts the last one.
    pub n_unreadable: u64,
}

/// Adds up the lines of a run's session files (the main one and its sub-agents'), in any order, and
/// completes them with the replies of the stream.
pub fn session_usage<L: AsRef<[u8]>>(
    lines: impl IntoIterator<Item = L>,
    stream: &ReplyLedger,
) -> SessionAccount {
    let mut account = SessionAccount::default();
    for line in lines {
        let line = line.as_ref().trim_ascii();
        if !line.is_empty() && account.note(line).is_none() {
            account.n_unreadable += 1;
        }
    }
    account.n_in_session = account.replies.n_replies();
    for (id, model, usage) in stream.replies() {
        if !account.replies.contains(id) {
            account.missing.push(id.to_owned());
        }
        account.replies.note(id, model, usage);
    }
    account.missing.sort();
    account
}

impl SessionAccount {
    /// The usage of all replies.
    #[must_use]
    pub fn usage(&self) -> UsageReport {
        let by_model = self.replies.by_model().clone();
        let source = match (self.n_in_session, by_model.is_empty()) {
            (_, true) => UsageSource::None,
            (0, false) => UsageSource::Live,
            (_, false) => UsageSource::SessionFiles,
        };
        UsageReport { source, by_model }
    }

    /// Takes one line; `None` if it cannot be read.
    fn note(&mut self, line: &[u8]) -> Option<()> {
        let line = std::str::from_utf8(line).ok()?;
        let head: Head<'_> = serde_json::from_str(line).ok()?;
        if head.kind?.as_str() != "assistant" {
            return Some(());
        }
        let message = serde_json::from_str::<MessageLine<'_>>(line).ok()?.message?;
        let (id, model) = (owned(message.id), owned(message.model));
        if model != SYNTHETIC_MODEL {
            self.replies.note(&id, &model, &message.usage.unwrap_or_default().into_usage());
        }
        Some(())
    }
}
