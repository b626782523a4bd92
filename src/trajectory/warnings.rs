//! What looked wrong in a run's lines though no line is an error, as sentences without repetition.

use std::collections::BTreeMap;

/// Most different warnings that are kept. A person reads a dozen.
const MAX_WARNINGS: usize = 100;

/// Most kinds of unknown lines that are told apart.
const MAX_UNKNOWN_KINDS: usize = 20;

/// A bounded list of warnings.
#[derive(Debug, Clone, Default)]
pub(super) struct Warnings {
    sentences: Vec<String>,
    n_left_out: u64,
    unknown_kinds: BTreeMap<String, u64>,
    n_unknown: u64,
    n_unparsed: u64,
    /// The first broken line and what is wrong with it.
    first_unparsed: Option<(u64, String)>,
}

impl Warnings {
    /// Adds a sentence and says whether it is new.
    pub(super) fn add(&mut self, sentence: String) -> bool {
        if self.sentences.contains(&sentence) {
            return false;
        }
        if self.sentences.len() == MAX_WARNINGS {
            self.n_left_out += 1;
            return false;
        }
        self.sentences.push(sentence);
        true
    }

    pub(super) fn count_unknown(&mut self, kind: String) {
        self.n_unknown += 1;
        if self.unknown_kinds.len() < MAX_UNKNOWN_KINDS || self.unknown_kinds.contains_key(&kind) {
            *self.unknown_kinds.entry(kind).or_default() += 1;
        }
    }

    pub(super) fn count_unparsed(&mut self, line: u64, reason: String) {
        self.n_unparsed += 1;
        self.first_unparsed.get_or_insert((line, reason));
    }

    /// All sentences, the counts at the end.
    pub(super) fn to_sentences(&self) -> Vec<String> {
        let mut all = self.sentences.clone();
        if self.n_left_out > 0 {
            all.push(format!("{} further warnings were left out.", self.n_left_out));
        }
        if self.n_unknown > 0 {
            let kinds: Vec<String> =
                self.unknown_kinds.iter().map(|(kind, n)| format!("`{kind}` ({n})")).collect();
            all.push(format!(
                "The agent wrote {} lines or blocks of kinds that runbookd does not know; the log \
                 has them: {}.",
                self.n_unknown,
                kinds.join(", ")
            ));
        }
        if let Some((line, reason)) = &self.first_unparsed {
            all.push(format!(
                "{} of the agent's output could not be read; the log has them. The first is line \
                 {line}: {reason}.",
                lines(self.n_unparsed)
            ));
        }
        all
    }
}

fn lines(n: u64) -> String {
    if n == 1 { "1 line".to_owned() } else { format!("{n} lines") }
}
