//! What the CLI's own session files tell: the usage of each reply, final where the stream has only a
//! placeholder. They are all there is after a kill.

use std::collections::HashSet;

use uuid::Uuid;

use super::parse::SYNTHETIC_MODEL;
use super::wire::{Head, MessageLine, word};
use crate::trajectory::{ReplyLedger, UsageReport, UsageSource};

/// The folder with all conversations, below that of the CLI's configuration.
pub const CONVERSATIONS: &str = "projects";

/// The main file of a conversation. The CLI finds it only where the folder's name is that of the
/// folder in which it is started, its slashes replaced.
#[must_use]
pub fn session_file(session_id: Uuid) -> String {
    format!("{CONVERSATIONS}/-app/{session_id}.jsonl")
}

/// The lines of a former run, by the ids that the CLI gives them. A CLI that goes on with a
/// conversation appends to its file, so they stand in the later run's files too.
#[derive(Debug, Clone, Default)]
pub struct KnownLines(HashSet<Uuid>);

/// Notes the lines of a former run's session files.
pub fn known_lines<L: AsRef<[u8]>>(lines: impl IntoIterator<Item = L>) -> KnownLines {
    let id = |line: L| {
        let line = std::str::from_utf8(line.as_ref().trim_ascii()).ok()?;
        line_id(&serde_json::from_str::<MessageLine<'_>>(line).ok()?)
    };
    KnownLines(lines.into_iter().filter_map(id).collect())
}

fn line_id(line: &MessageLine<'_>) -> Option<Uuid> {
    Uuid::try_parse(line.uuid.as_ref()?.as_str()).ok()
}

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
    /// How many replies only the stream showed.
    pub n_missing: usize,
    /// Lines that could not be read. A kill cuts the last one.
    pub n_unreadable: u64,
}

/// Adds up the lines of a run's session files (the main one and its sub-agents'), in any order, but
/// for those of a former run, and completes them with the replies of the stream.
pub fn session_usage<L: AsRef<[u8]>>(
    lines: impl IntoIterator<Item = L>,
    stream: &ReplyLedger,
    former: &KnownLines,
) -> SessionAccount {
    let mut account = SessionAccount::default();
    for line in lines {
        let line = line.as_ref().trim_ascii();
        if !line.is_empty() && account.note(line, former).is_none() {
            account.n_unreadable += 1;
        }
    }
    account.n_in_session = account.replies.n_replies();
    if account.n_in_session == 0 {
        // Lost as a whole: the stream's own sums are all there is.
        account.replies = stream.clone();
        account.missing = stream.replies().map(|(id, _, _)| id.to_owned()).collect();
        account.missing.sort();
        account.n_missing = stream.n_replies();
        return account;
    }
    // A kill costs the last replies, and those the stream keeps apart.
    for (id, model, usage) in stream.replies() {
        if !account.replies.contains(id) {
            account.missing.push(id.to_owned());
        }
        account.replies.note(id, model, usage);
    }
    account.missing.sort();
    account.n_missing = account.missing.len();
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
    fn note(&mut self, line: &[u8], former: &KnownLines) -> Option<()> {
        let line = std::str::from_utf8(line).ok()?;
        let head: Head<'_> = serde_json::from_str(line).ok()?;
        if head.kind?.as_str() != "assistant" {
            return Some(());
        }
        let line = serde_json::from_str::<MessageLine<'_>>(line).ok()?;
        if line_id(&line).is_some_and(|id| former.0.contains(&id)) {
            return Some(());
        }
        let message = line.message?;
        let (id, model) = (word(message.id), word(message.model));
        if model != SYNTHETIC_MODEL {
            self.replies.note(&id, &model, &message.usage.unwrap_or_default().into_usage());
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trajectory::{Usage, UsageByModel};

    fn reply(id: &str, input: u64, output: u64) -> String {
        format!(
            r#"{{"type":"assistant","requestId":"r","message":{{"id":"{id}","model":"m","usage":{{"input_tokens":{input},"output_tokens":{output}}}}}}}"#
        )
    }

    fn usage(input: u64, output: u64, requests_seen: u64) -> UsageByModel {
        let mut by_model = UsageByModel::default();
        by_model.add("m", &Usage { input, output, requests_seen, ..Usage::default() });
        by_model
    }

    #[test]
    fn session_files_give_final_counts_and_the_stream_the_replies_that_they_lack() {
        let mut stream = ReplyLedger::default();
        stream.note("msg_1", "m", &Usage { input: 100, output: 1, ..Usage::default() });
        stream.note("msg_3", "m", &Usage { input: 300, output: 1, ..Usage::default() });
        let synthetic = r#"{"type":"assistant","message":{"id":"s","model":"<synthetic>"}}"#;
        let lines = [
            r#"{"type":"queue-operation","content":"the prompt"}"#.to_owned(),
            reply("msg_1", 100, 17),
            reply("msg_1", 100, 17),
            synthetic.to_owned(),
            String::new(),
            // A sub-agent's last reply, which the stream does not show.
            reply("msg_2", 200, 20),
            r#"{"type":"assistant","message":{"id":"msg_4","#.to_owned(),
        ];
        let account = session_usage(&lines, &stream, &KnownLines::default());
        let UsageReport { source, by_model } = account.usage();
        assert_eq!((source, by_model), (UsageSource::SessionFiles, usage(600, 38, 3)));
        assert_eq!((account.n_in_session, account.n_unreadable), (2, 1));
        assert_eq!(account.missing, ["msg_3"]);
    }

    #[test]
    fn without_session_files_the_stream_is_all_there_is() {
        let mut stream = ReplyLedger::default();
        assert_eq!(
            session_usage([""; 0], &stream, &KnownLines::default()).usage(),
            UsageReport::default()
        );
        stream.note("msg_1", "m", &Usage { input: 100, output: 1, ..Usage::default() });
        let UsageReport { source, by_model } =
            session_usage([""; 0], &stream, &KnownLines::default()).usage();
        assert_eq!((source, by_model), (UsageSource::Live, usage(100, 1, 1)));
    }

    #[test]
    fn what_a_former_run_wrote_is_not_counted_again() {
        let line = |n: u64, input: u64| {
            let id = Uuid::from_u128(n.into());
            reply(&format!("msg_{n}"), input, 10).replacen('{', &format!(r#"{{"uuid":"{id}","#), 1)
        };
        let former = known_lines([line(1, 100), line(2, 200), "{".to_owned()]);
        let stream = ReplyLedger::default();
        let lines = [line(1, 100), line(2, 200), line(3, 400), reply("msg_4", 800, 10)];
        let account = session_usage(&lines, &stream, &former);
        assert_eq!(account.usage().by_model, usage(1_200, 20, 2));
        assert_eq!(session_usage(&lines[..2], &stream, &former).usage(), UsageReport::default());
    }
}
