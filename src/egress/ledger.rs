//! What was tried through a proxy, a line for each attempt.
//!
//! An attempt that is let through has a line when it goes and another one when it has ended; the
//! later one counts. So what was on its way when the proxy was killed is known.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read as _};
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::policy::rule_kind;
use crate::trajectory::{DeniedHost, EgressAccount, MAX_NAMED_HOSTS};

/// Most attempts of one run. A loop that nothing else stops ends here, before the log fills a disk.
pub const MAX_RECORDS: u64 = 100_000;

/// Longest line of a ledger, in bytes. Every text in a line is clipped, so what is longer was not
/// written by this program.
pub const MAX_LINE_BYTES: usize = 64 << 10;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is on its way, or the proxy was killed meanwhile.
    InFlight,
    /// It was let through, and ended.
    Passed,
    /// The policy denied it.
    Denied,
    /// It was let through and reached nobody, or broke off; `problem` says why.
    Failed,
}

/// One attempt. A line of `logs/egress.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressRecord {
    /// Its number among those of the run, from 1.
    pub seq: u64,
    /// When it came.
    pub at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// The method: `CONNECT`, or that of a plain request.
    pub method: String,
    /// The host in its one spelling; as it was asked for, clipped, where it is none.
    pub host: String,
    /// The port; 0 where there was none.
    pub port: u16,
    /// The addresses of the host, once they are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// The rule that let it through or denied it.
    pub rule: String,
    /// The status that the agent got, of a plain request or of a CONNECT.
    pub status: Option<u16>,
    /// Bytes that left, without the heads of plain requests.
    pub bytes_up: u64,
    /// Bytes that came, without the heads of plain answers.
    pub bytes_down: u64,
    /// From its coming to its end, in milliseconds.
    pub duration_ms: Option<u64>,
    /// What went wrong.
    pub problem: Option<String>,
}

/// What of an attempt is kept to sum a run's attempts up.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) outcome: Outcome,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) rule: String,
    /// What went wrong.
    pub(super) problem: Option<String>,
    bytes_up: u64,
    bytes_down: u64,
}

impl From<EgressRecord> for Entry {
    fn from(record: EgressRecord) -> Self {
        let EgressRecord { outcome, host, port, rule, problem, bytes_up, bytes_down, .. } = record;
        // A denial's words stand for its rule.
        let problem = problem.filter(|_| outcome == Outcome::Failed);
        Self { outcome, host, port, rule, problem, bytes_up, bytes_down }
    }
}

/// The sum of a run's attempts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EgressLedger {
    /// The newest line of each attempt.
    entries: BTreeMap<u64, Entry>,
}

/// Reads the lines of a ledger, one in memory at a time. What is too long for one is passed over.
///
/// # Errors
/// When they cannot be read to their end.
pub fn each_line(mut from: impl BufRead, mut line: impl FnMut(&[u8])) -> io::Result<()> {
    let mut piece = Vec::new();
    // Whether the piece begins a line.
    let mut is_first = true;
    loop {
        piece.clear();
        if (&mut from).take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut piece)? == 0 {
            return Ok(());
        }
        let has_end = piece.ends_with(b"\n");
        if is_first && (has_end || piece.len() < MAX_LINE_BYTES) {
            line(&piece);
        }
        is_first = has_end;
    }
}

impl EgressLedger {
    /// Reads the lines of a ledger. A torn one tells nothing; its attempt has an earlier one.
    ///
    /// # Errors
    /// When they cannot be read to their end.
    pub fn read(lines: impl BufRead) -> io::Result<Self> {
        let mut ledger = Self::default();
        each_line(lines, |line| {
            serde_json::from_slice(line).into_iter().for_each(|record| ledger.add(record));
        })?;
        Ok(ledger)
    }

    /// Takes a line. A later one of the same attempt replaces it.
    pub fn add(&mut self, record: EgressRecord) {
        if self.entries.contains_key(&record.seq) || (self.entries.len() as u64) < MAX_RECORDS {
            self.entries.insert(record.seq, record.into());
        }
    }

    /// The number of the last attempt.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.entries.keys().next_back().copied().unwrap_or(0)
    }

    /// The attempts, in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// How many attempts ended how, by the kind of the rule that decided. Neither word holds a host.
    #[must_use]
    pub fn figures(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let mut figures = BTreeMap::new();
        for record in self.entries() {
            let outcome = match record.outcome {
                // What a killed proxy left on its way had been let through.
                Outcome::InFlight | Outcome::Passed => "allowed",
                Outcome::Denied => "denied",
                Outcome::Failed => "failed",
            };
            *figures.entry((outcome, rule_kind(&record.rule))).or_default() += 1;
        }
        figures
    }

    /// The sum for the trajectory.
    #[must_use]
    pub fn account(&self) -> EgressAccount {
        let mut account = EgressAccount::default();
        let mut hosts: BTreeMap<(&str, u16, &str), u64> = BTreeMap::new();
        for record in self.entries() {
            match record.outcome {
                Outcome::InFlight | Outcome::Passed => account.allowed += 1,
                Outcome::Failed => account.failed += 1,
                Outcome::Denied => {
                    account.denied += 1;
                    *hosts.entry((&record.host, record.port, &record.rule)).or_default() += 1;
                }
            }
            account.bytes_up = account.bytes_up.saturating_add(record.bytes_up);
            account.bytes_down = account.bytes_down.saturating_add(record.bytes_down);
        }
        let mut hosts: Vec<_> = hosts.into_iter().collect();
        hosts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        account.n_more_denied_hosts = hosts.len().saturating_sub(MAX_NAMED_HOSTS) as u64;
        let named = hosts.into_iter().take(MAX_NAMED_HOSTS);
        account.denied_hosts = named
            .map(|((host, port, rule), n)| DeniedHost {
                host: host.to_owned(),
                port,
                rule: rule.to_owned(),
                n,
            })
            .collect();
        account
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! Shared by the room's tests.

    use super::*;

    /// An attempt that ended so.
    pub(in super::super) fn record(
        seq: u64,
        outcome: Outcome,
        (host, port): (&str, u16),
        rule: &str,
    ) -> EgressRecord {
        EgressRecord {
            seq,
            at: Timestamp::UNIX_EPOCH,
            outcome,
            method: "CONNECT".to_owned(),
            host: host.to_owned(),
            port,
            addresses: vec![],
            rule: rule.to_owned(),
            status: Some(200),
            bytes_up: 1,
            bytes_down: 2,
            duration_ms: Some(3),
            problem: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::record;
    use super::*;

    #[test]
    fn the_later_line_of_an_attempt_counts_and_denied_hosts_are_named_by_frequency() {
        let mut ledger = EgressLedger::default();
        ledger.add(record(1, Outcome::InFlight, ("a.example", 443), "public"));
        ledger.add(record(1, Outcome::Passed, ("a.example", 443), "public"));
        ledger.add(record(2, Outcome::Denied, ("10.0.0.1", 80), "private-address"));
        for seq in 3..5 {
            ledger.add(record(seq, Outcome::Denied, ("b.example", 22), "port"));
        }
        ledger.add(record(5, Outcome::Failed, ("c.example", 443), "public"));
        let account = ledger.account();
        let denied = |host: &str, port, rule: &str, n| DeniedHost {
            host: host.to_owned(),
            port,
            rule: rule.to_owned(),
            n,
        };
        assert_eq!(
            account,
            EgressAccount {
                allowed: 1,
                denied: 3,
                failed: 1,
                bytes_up: 5,
                bytes_down: 10,
                denied_hosts: vec![
                    denied("b.example", 22, "port", 2),
                    denied("10.0.0.1", 80, "private-address", 1),
                ],
                n_more_denied_hosts: 0,
            }
        );
        assert_eq!(ledger.last_seq(), 5);
    }

    #[test]
    fn attempts_are_counted_by_the_kind_of_their_rule_and_by_no_host() {
        let mut ledger = EgressLedger::default();
        let lines = [
            (Outcome::Passed, "allowlist pypi.org"),
            (Outcome::Passed, "allowlist *.a.example:8443"),
            (Outcome::InFlight, "public"),
            (Outcome::Denied, "sni-mismatch"),
            (Outcome::Failed, ""),
            (Outcome::Denied, "a word that no version writes"),
        ];
        for (seq, (outcome, rule)) in (1..).zip(lines) {
            ledger.add(record(seq, outcome, ("a.example", 443), rule));
        }
        let expected = [
            (("allowed", "allowlist"), 2),
            (("allowed", "public"), 1),
            (("denied", "other"), 1),
            (("denied", "sni-mismatch"), 1),
            (("failed", "none"), 1),
        ];
        assert_eq!(ledger.figures(), expected.into());
    }
}
