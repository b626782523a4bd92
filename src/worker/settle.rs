//! The usage of a run, from the best account that there is.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;

use super::account::wire_account;
use super::lines::MAX_LINE_BYTES;
use crate::provider::{self, Billed};
use crate::run::RunPlan;
use crate::runtime;
use crate::store::RunFolder;
use crate::trajectory::{Reconciled, Recorder, Usage, UsageReport, UsageSource};

/// The best account of a run's usage, with its costs, and how the agent's compares with the wire's.
pub(super) fn settle(
    plan: &RunPlan,
    recorder: &Recorder,
    folder: &RunFolder,
    notes: &mut Vec<String>,
) -> (UsageReport, Reconciled) {
    let mut doubts = Vec::new();
    let agent = account(plan, recorder, folder, &mut doubts);
    let reconciled = Reconciled::new(&agent, wire_account(folder));
    let metered = reconciled.wire.as_ref().map(|wire| &wire.models);
    let metered = metered.filter(|models| !models.is_empty());
    let UsageReport { source, by_model } = match metered {
        // Where the agent's own totals are missing, those of the wire are whole.
        Some(models) if agent.source != UsageSource::AgentResult => {
            UsageReport { source: UsageSource::Wire, by_model: models.clone() }
        }
        Some(_) | None => {
            notes.append(&mut doubts);
            agent
        }
    };
    (UsageReport { source, by_model: by_model.priced(estimate) }, reconciled)
}

fn estimate(model: &str, usage: &Usage) -> Option<f64> {
    let billed = Billed {
        input: usage.input,
        output: usage.output,
        cache_read: usage.cache_read,
        // The agent asks for five minutes unless it is told otherwise.
        cache_write_5m: usage.cache_write_5m.saturating_add(usage.cache_write_unsplit),
        cache_write_1h: usage.cache_write_1h,
    };
    provider::estimate(model, &billed)
}

/// The agent's own totals where its last word stands; else the session files, which have the final
/// counts of each reply. What is unsure about them goes to `notes`.
fn account(
    plan: &RunPlan,
    recorder: &Recorder,
    folder: &RunFolder,
    notes: &mut Vec<String>,
) -> UsageReport {
    let usage = recorder.usage();
    if usage.source == UsageSource::AgentResult {
        return usage;
    }
    let files = folder.session_files().unwrap_or_else(|e| {
        notes.push(format!("The session files cannot be read: {}.", crate::run::error_chain(&e)));
        Vec::new()
    });
    let mut lines = SessionLines { files, open: None };
    let former = plan.former.iter().flat_map(|former| &former.sessions);
    let files = former.map(|file| file.host_path.clone()).collect();
    let former = runtime::known_lines(plan.runtime, SessionLines { files, open: None });
    let account = runtime::session_usage(plan.runtime, &mut lines, recorder.replies(), &former);
    if account.n_missing > 0 {
        notes.push(format!(
            "The output tokens of {} of the model's replies are a lower bound: the run ended before \
             the agent wrote their final counts.",
            account.n_missing
        ));
    }
    account.usage()
}

/// The lines of several files, one at a time. A file that cannot be read has none: the account says
/// which replies are missing.
struct SessionLines {
    files: Vec<PathBuf>,
    open: Option<BufReader<File>>,
}

impl Iterator for SessionLines {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if self.open.is_none() {
                self.open = File::open(self.files.pop()?).ok().map(BufReader::new);
            }
            let Some(reader) = &mut self.open else { continue };
            let mut line = Vec::new();
            match reader.take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut line) {
                Ok(n) if n > 0 => return Some(line),
                Ok(_) | Err(_) => self.open = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_from_every_file_that_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("a"), "1\n2").unwrap();
        std::fs::write(path("b"), "").unwrap();
        std::fs::write(path("c"), "3\n").unwrap();
        let files = vec![path("a"), path("missing"), path("b"), path("c")];
        let lines: Vec<Vec<u8>> = SessionLines { files, open: None }.collect();
        assert_eq!(lines, [b"3\n".to_vec(), b"1\n".to_vec(), b"2".to_vec()]);
    }
}
