//! What the ledger of a run's gateway tells of whether the run goes on. The file is followed while it
//! grows; whoever writes it may be another process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;

use super::heard::limits_the_rate;
use super::lines::{Ending, Lines};
use crate::gateway::Outcome;
use crate::run::{Asking, error_chain};
use crate::store::RunFolder;

/// Longest line, in bytes. What is longer was not written by a gateway.
const MAX_LINE_BYTES: usize = 64 << 10;

/// How much is read at once, in bytes: a few hundred requests.
const READ_BYTES: usize = 128 << 10;

/// How much of the file one look reads, in pieces. A look comes every few seconds.
const MAX_PIECES: usize = 64;

/// Which requests were those of gateways that are gone: nobody writes down that they have ended.
/// Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Bygone(Arc<AtomicU64>);

impl Bygone {
    /// Every request up to this one was.
    pub(super) fn up_to(&self, seq: u64) {
        self.0.fetch_max(seq, Ordering::Relaxed);
    }
}

/// Requests for no answer of a model.
const ASIDE: [&str; 2] = ["liveness", "models"];

/// What a line tells. It has more fields.
#[derive(Debug, Clone, Deserialize)]
struct Line {
    seq: u64,
    outcome: Outcome,
    status: Option<u16>,
    endpoint: Option<String>,
    #[serde(default)]
    n_answer_bytes: u64,
}

/// What the lines so far add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct WireSigns {
    /// How often bytes of an answer were seen to have come.
    pub(super) n_signs: u64,
    n_limits: u64,
    is_limited: bool,
    /// The requests that wait before they may go, for a budget or for their collection's rate.
    waiting: BTreeSet<u64>,
    /// The requests on their way, with the bytes of their answers so far.
    in_flight: BTreeMap<u64, u64>,
}

impl WireSigns {
    fn take(&mut self, line: &Line) {
        if line.endpoint.as_deref().is_some_and(|endpoint| ASIDE.contains(&endpoint)) {
            return;
        }
        if line.outcome == Outcome::Waiting {
            self.waiting.insert(line.seq);
            self.n_limits += 1;
            return;
        }
        self.waiting.remove(&line.seq);
        let before = match line.outcome {
            Outcome::InFlight => self.in_flight.insert(line.seq, line.n_answer_bytes),
            Outcome::Complete
            | Outcome::Failed
            | Outcome::Broken
            | Outcome::Abandoned
            | Outcome::Refused
            | Outcome::Unreachable
            | Outcome::Waiting => self.in_flight.remove(&line.seq),
        };
        let has_grown = line.n_answer_bytes > before.unwrap_or(0);
        let goes_on = match line.outcome {
            Outcome::Complete => true,
            Outcome::InFlight | Outcome::Broken | Outcome::Abandoned => has_grown,
            // The bytes of an error are no answer.
            Outcome::Failed | Outcome::Refused | Outcome::Unreachable | Outcome::Waiting => false,
        };
        if goes_on {
            self.n_signs += 1;
            self.is_limited = false;
        }
        // The service's word, or the gateway's own for a collection that asks faster than it may.
        let is_answer = matches!(line.outcome, Outcome::Failed | Outcome::Refused);
        if is_answer && line.status.is_some_and(limits_the_rate) {
            self.n_limits += 1;
            self.is_limited = true;
        }
    }

    /// Forgets a request that may have ended unseen.
    fn forget(&mut self, seq: u64) {
        self.in_flight.remove(&seq);
        self.waiting.remove(&seq);
    }

    /// Forgets the requests up to this one.
    fn forget_up_to(&mut self, seq: u64) {
        self.in_flight.retain(|kept, _| *kept > seq);
        self.waiting.retain(|kept| *kept > seq);
    }

    /// Whether a request is on its way.
    pub(super) fn asking(&self) -> Asking {
        if self.in_flight.is_empty() { Asking::Nothing } else { Asking::InFlight }
    }

    /// The number of the last word that the rate is limited, unless something went on since and
    /// nothing waits for it.
    pub(super) fn rate_limit(&self) -> Option<u64> {
        (self.is_limited || !self.waiting.is_empty()).then_some(self.n_limits)
    }
}

/// Follows the ledger.
pub(super) struct WireTail {
    folder: RunFolder,
    /// `None` until there is one.
    file: Option<File>,
    lines: Lines,
    signs: WireSigns,
    /// Requests of gateways that this process saw go.
    bygone: Bygone,
    /// Requests from before this process. Their gateway may have gone before, and then nobody writes
    /// down that they have ended.
    inherited: BTreeSet<u64>,
    /// Whether there may be such requests that were not read yet.
    inherits: bool,
    /// Whether it could not be read: told once.
    is_broken: bool,
}

impl WireTail {
    /// A ledger that may come later, or never.
    pub(super) fn new(folder: RunFolder, is_adopted: bool, bygone: Bygone) -> Self {
        Self {
            folder,
            file: None,
            lines: Lines::new(MAX_LINE_BYTES),
            signs: WireSigns::default(),
            bygone,
            inherited: BTreeSet::new(),
            inherits: is_adopted,
            is_broken: false,
        }
    }

    /// Reads what is new. `has_spoken` is whether the agent said something since this process has the
    /// run: then it does not wait for what it asked before. Nothing where there is no gateway. Blocks.
    pub(super) fn look(&mut self, has_spoken: bool) -> Option<WireSigns> {
        let read = self.read();
        let is_whole = matches!(read, Ok(true));
        match read {
            Ok(_) => self.is_broken = false,
            Err(e) if !std::mem::replace(&mut self.is_broken, true) => {
                tracing::warn!(error = %error_chain(&e), "the ledger of a run cannot be followed");
            }
            Err(_) => {}
        }
        self.file.as_ref()?;
        if is_whole && std::mem::take(&mut self.inherits) {
            let WireSigns { in_flight, waiting, .. } = &self.signs;
            self.inherited = in_flight.keys().chain(waiting).copied().collect();
        }
        if has_spoken {
            std::mem::take(&mut self.inherited).into_iter().for_each(|seq| self.signs.forget(seq));
        }
        self.signs.forget_up_to(self.bygone.0.load(Ordering::Relaxed));
        (!self.is_broken).then(|| self.signs.clone())
    }

    /// Whether it was read to its end.
    fn read(&mut self) -> io::Result<bool> {
        if self.file.is_none() {
            self.file = self.folder.gateway_ledger().map_err(io::Error::other)?;
        }
        let Self { file: Some(file), lines, signs, .. } = self else { return Ok(false) };
        let mut piece = vec![0; READ_BYTES];
        for _ in 0..MAX_PIECES {
            let n = file.read(&mut piece)?;
            if n == 0 {
                return Ok(true);
            }
            lines.feed(&piece[..n], |line, ending| match ending {
                // A torn line tells nothing; its request has an earlier one.
                Ending::Newline | Ending::EndOfStream => {
                    serde_json::from_slice(line).into_iter().for_each(|line| signs.take(&line));
                }
                Ending::TooLong => {}
            });
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u64, outcome: Outcome, n_answer_bytes: u64, status: u16) -> Line {
        let endpoint = Some("message".to_owned());
        Line { seq, outcome, status: Some(status), endpoint, n_answer_bytes }
    }

    #[test]
    fn a_request_is_on_its_way_until_its_last_line_and_bytes_of_an_answer_are_signs() {
        use Asking::{InFlight, Nothing};
        use Outcome as O;
        let mut signs = WireSigns::default();
        let steps = [
            (line(1, O::InFlight, 0, 0), (0, None, InFlight)),
            (line(1, O::InFlight, 10, 200), (1, None, InFlight)),
            (line(1, O::InFlight, 10, 200), (1, None, InFlight)),
            (line(1, O::Complete, 20, 200), (2, None, Nothing)),
            (line(2, O::InFlight, 0, 0), (2, None, InFlight)),
            (line(2, O::Failed, 99, 429), (2, Some(1), Nothing)),
            (line(3, O::InFlight, 0, 0), (2, Some(1), InFlight)),
            (line(4, O::InFlight, 0, 0), (2, Some(1), InFlight)),
            (line(3, O::Failed, 99, 529), (2, Some(2), InFlight)),
            (line(4, O::Broken, 5, 200), (3, None, Nothing)),
            (line(5, O::Unreachable, 0, 502), (3, None, Nothing)),
            (line(6, O::Failed, 99, 500), (3, None, Nothing)),
        ];
        for (line, expected) in steps {
            signs.take(&line);
            let found = (signs.n_signs, signs.rate_limit(), signs.asking());
            assert_eq!(found, expected, "{line:?}");
        }
        signs.take(&Line { endpoint: Some("models".to_owned()), ..line(7, O::InFlight, 0, 0) });
        assert_eq!(signs.asking(), Nothing);
    }

    #[test]
    fn a_rate_of_the_collection_is_limited_too_and_what_waits_for_it_is_no_silence() {
        use Asking::{InFlight, Nothing};
        use Outcome as O;
        let mut signs = WireSigns::default();
        let steps = [
            // Told to come again.
            (line(1, O::Refused, 0, 429), (0, Some(1), Nothing)),
            (line(2, O::InFlight, 0, 0), (0, Some(1), InFlight)),
            (line(2, O::Complete, 9, 200), (1, None, Nothing)),
            (line(3, O::Refused, 0, 400), (1, None, Nothing)),
            // Waits, while another one of the run is answered.
            (line(4, O::InFlight, 0, 0), (1, None, InFlight)),
            (line(5, O::Waiting, 0, 0), (1, Some(2), InFlight)),
            (line(4, O::Complete, 9, 200), (2, Some(2), Nothing)),
            (line(5, O::InFlight, 0, 0), (2, None, InFlight)),
            (line(5, O::Complete, 9, 200), (3, None, Nothing)),
            // Waits in vain.
            (line(6, O::Waiting, 0, 0), (3, Some(3), Nothing)),
            (line(6, O::Refused, 0, 429), (3, Some(4), Nothing)),
        ];
        for (line, expected) in steps {
            signs.take(&line);
            let found = (signs.n_signs, signs.rate_limit(), signs.asking());
            assert_eq!(found, expected, "{line:?}");
        }
    }

    /// A run's folder with a ledger in it that holds this.
    fn ledger(root: &std::path::Path, text: &str) -> RunFolder {
        use crate::run::{RunId, RunName, Slug};
        use crate::store::Store;

        let name = RunName {
            collection: Slug::new("team").unwrap(),
            task: Slug::new("hello").unwrap(),
            id: RunId::from_uuid(uuid::Uuid::nil()),
        };
        let folder = Store::open(root).unwrap().run(&name).unwrap();
        std::fs::create_dir_all(folder.path().join("logs")).unwrap();
        if !text.is_empty() {
            write(&folder, text);
        }
        folder
    }

    fn write(folder: &RunFolder, text: &str) {
        use std::io::Write as _;

        let path = folder.path().join("logs/gateway.jsonl");
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn in_flight(seq: u64) -> String {
        format!("{{\"seq\": {seq}, \"outcome\": \"in_flight\", \"endpoint\": \"message\"}}\n")
    }

    #[test]
    fn a_request_that_nobody_ends_counts_until_the_agent_goes_on() {
        let root = tempfile::tempdir().unwrap();
        let folder = ledger(root.path(), "");
        let mut tail = WireTail::new(folder.clone(), true, Bygone::default());
        assert_eq!(tail.look(true), None, "there is no ledger yet");
        write(&folder, &in_flight(1));
        write(&folder, "not a line\n{\"seq\": 2, \"outc");
        assert_eq!(tail.look(false).unwrap().asking(), Asking::InFlight);
        write(&folder, "ome\": \"in_flight\", \"endpoint\": \"message\"}\n");
        assert_eq!(tail.look(true).unwrap().in_flight, BTreeMap::from([(2, 0)]));
        write(&folder, "{\"seq\": 2, \"outcome\": \"complete\", \"endpoint\": \"message\"}\n");
        assert_eq!(tail.look(true).unwrap().asking(), Asking::Nothing);
    }

    #[test]
    fn requests_of_a_gateway_that_is_gone_are_not_on_their_way() {
        let root = tempfile::tempdir().unwrap();
        let waiting = in_flight(3).replace("in_flight", "waiting");
        let text = [in_flight(1), in_flight(2), waiting].concat();
        let folder = ledger(root.path(), &text);
        let bygone = Bygone::default();
        let mut tail = WireTail::new(folder.clone(), false, bygone.clone());
        let signs = tail.look(true).unwrap();
        assert_eq!((signs.asking(), signs.rate_limit()), (Asking::InFlight, Some(1)));
        bygone.up_to(3);
        let signs = tail.look(false).unwrap();
        assert_eq!((signs.asking(), signs.rate_limit()), (Asking::Nothing, None));
        write(&folder, &in_flight(4));
        assert_eq!(tail.look(false).unwrap().in_flight, BTreeMap::from([(4, 0)]));
    }

    #[test]
    fn a_ledger_of_many_looks_is_inherited_whole() {
        let root = tempfile::tempdir().unwrap();
        let padding = format!("{}\n", " ".repeat(MAX_LINE_BYTES / 2));
        let n_paddings = READ_BYTES * MAX_PIECES / padding.len() + 1;
        let text = [padding.repeat(n_paddings), in_flight(1)].concat();
        let folder = ledger(root.path(), &text);
        let mut tail = WireTail::new(folder, true, Bygone::default());
        assert_eq!(tail.look(false).unwrap().asking(), Asking::Nothing);
        assert_eq!(tail.look(false).unwrap().asking(), Asking::InFlight);
        assert_eq!(tail.look(true).unwrap().asking(), Asking::Nothing);
    }
}
