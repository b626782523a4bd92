//! From what a run did to the smallest allowlist that lets it do the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::ledger::{EgressLedger, Outcome};
use super::policy::Denial;
use crate::run::{HostRule, MAX_ALLOWED_HOSTS};

/// What was seen of one host.
#[derive(Default)]
struct Seen {
    n_passed: u64,
    /// How often it was denied, by rule.
    denied: BTreeMap<String, u64>,
    failed: Option<String>,
}

/// The front matter that lets a run, with the ledgers of its steps, reach what it reached, and nothing else. What was denied stands
/// in it as a comment.
#[must_use]
pub fn suggest(ledgers: &[EgressLedger]) -> String {
    let hosts = seen(ledgers);
    let (allowed, others): (Vec<_>, Vec<_>) = hosts.iter().partition(|(_, seen)| seen.n_passed > 0);
    let mut text = if allowed.is_empty() {
        "network: none\n".to_owned()
    } else {
        "network:\n  mode: allowlist\n  allow:\n".to_owned()
    };
    for (n, (host, seen)) in allowed.iter().enumerate() {
        let often = match seen.n_passed {
            1 => "once".to_owned(),
            n => format!("{n} times"),
        };
        // More than a list may hold is better said than cut.
        let over = if n == MAX_ALLOWED_HOSTS { "; from here on the list is too long" } else { "" };
        writes(&mut text, format_args!("    - {:<40} # {often}{over}", quoted(host)));
    }
    for (host, seen) in others {
        let words = match seen.denied.iter().max_by_key(|(_, n)| **n) {
            Some((rule, n))
                if rule == Denial::NotInAllowlist.rule() || rule == Denial::Port.rule() =>
            {
                format!("denied ({rule}, {n}): take it in if the run needs it")
            }
            Some((rule, n)) => format!("denied ({rule}, {n}): no allowlist lets it through"),
            None => {
                let why = seen.failed.as_deref().unwrap_or("nobody was reached");
                format!("not reached: {why}")
            }
        };
        writes(&mut text, format_args!("    # - {:<38} # {words}", quoted(host)));
    }
    text
}

/// A line. What an agent asked for is nobody's control characters.
fn writes(text: &mut String, line: std::fmt::Arguments<'_>) {
    let line: String = line.to_string().chars().filter(|c| !c.is_control()).collect();
    // A text takes whatever is written to it.
    let _ = writeln!(text, "{line}");
}

/// The hosts of ledgers as an allowlist names them.
fn seen(ledgers: &[EgressLedger]) -> BTreeMap<String, Seen> {
    let mut hosts: BTreeMap<String, Seen> = BTreeMap::new();
    for record in ledgers.iter().flat_map(EgressLedger::entries) {
        let name = HostRule::exactly(&record.host, record.port).to_string();
        let seen = hosts.entry(name).or_default();
        match record.outcome {
            Outcome::Passed | Outcome::InFlight => seen.n_passed += 1,
            Outcome::Denied => *seen.denied.entry(record.rule.clone()).or_default() += 1,
            Outcome::Failed => seen.failed = record.problem.clone(),
        }
    }
    hosts
}

/// A host as YAML takes it for a text.
fn quoted(host: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let begins_plainly = host.starts_with(|c: char| c.is_ascii_alphabetic());
    if host.chars().all(is_plain) && begins_plainly {
        return host.to_owned();
    }
    format!("{:?}", host)
}

#[cfg(test)]
mod tests {
    use super::super::ledger::testing::record;
    use super::*;
    use crate::runbook::Runbook;

    #[test]
    fn the_smallest_allowlist_names_what_was_reached_and_marks_the_rest() {
        let mut ledger = EgressLedger::default();
        let passed = |seq, host| record(seq, Outcome::Passed, (host, 443), "public");
        ledger.add(passed(1, "pypi.org"));
        ledger.add(passed(2, "pypi.org"));
        ledger.add(record(3, Outcome::Passed, ("git.example.net", 22), "allowlist"));
        ledger.add(record(4, Outcome::Denied, ("evil.example", 443), "not-in-allowlist"));
        ledger.add(record(5, Outcome::Denied, ("169.254.169.254", 80), "private-address"));
        let text = suggest(&[ledger]);
        expect_test::expect![[r#"
            network:
              mode: allowlist
              allow:
                - "git.example.net:22"                     # once
                - pypi.org                                 # 2 times
                # - "169.254.169.254"                      # denied (private-address, 1): no allowlist lets it through
                # - evil.example                           # denied (not-in-allowlist, 1): take it in if the run needs it
        "#]]
        .assert_eq(&text);
        let runbook = Runbook::parse(format!("---\n{text}---\n# T\n").as_bytes()).unwrap();
        assert_eq!(runbook.front_matter().network.as_ref().unwrap().allowed().len(), 2);
        assert_eq!(suggest(&[EgressLedger::default()]), "network: none\n");
    }
}
