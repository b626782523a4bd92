//! What a run tried to reach through its proxy, summed up.

use serde::{Deserialize, Serialize};

/// Most hosts that are named. The ledger has the others.
pub const MAX_NAMED_HOSTS: usize = 50;

/// What a run tried to reach through its proxy. Part of `trajectory.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressAccount {
    /// Attempts that were let through.
    pub allowed: u64,
    /// Attempts that the policy denied.
    pub denied: u64,
    /// Attempts that were let through and reached nobody.
    pub failed: u64,
    /// Bytes that left.
    pub bytes_up: u64,
    /// Bytes that came.
    pub bytes_down: u64,
    /// What was denied, the most frequent first, at most [`MAX_NAMED_HOSTS`].
    pub denied_hosts: Vec<DeniedHost>,
    /// How many more hosts were denied.
    pub n_more_denied_hosts: u64,
}

/// A host that was denied. Part of `trajectory.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedHost {
    /// The host as it was asked for.
    pub host: String,
    /// The port; 0 where there was none.
    pub port: u16,
    /// The rule that denied it.
    pub rule: String,
    /// How often.
    pub n: u64,
}

impl EgressAccount {
    /// The sum of two steps of a run.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        self.allowed += other.allowed;
        self.denied += other.denied;
        self.failed += other.failed;
        self.bytes_up = self.bytes_up.saturating_add(other.bytes_up);
        self.bytes_down = self.bytes_down.saturating_add(other.bytes_down);
        for host in &other.denied_hosts {
            let is_same = |own: &&mut DeniedHost| {
                (&own.host, own.port, &own.rule) == (&host.host, host.port, &host.rule)
            };
            match self.denied_hosts.iter_mut().find(is_same) {
                Some(own) => own.n += host.n,
                None => self.denied_hosts.push(host.clone()),
            }
        }
        self.denied_hosts.sort_by_key(|host| std::cmp::Reverse(host.n));
        let n_more = self.denied_hosts.len().saturating_sub(MAX_NAMED_HOSTS) as u64;
        self.denied_hosts.truncate(MAX_NAMED_HOSTS);
        self.n_more_denied_hosts += other.n_more_denied_hosts + n_more;
        self
    }

    /// What a person should know of it, as a whole sentence.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        /// Hosts that a sentence bears.
        const IN_WORDS: usize = 5;
        if self.denied == 0 {
            return None;
        }
        let named = self.denied_hosts.iter().take(IN_WORDS);
        let named: Vec<String> = named
            .map(|DeniedHost { host, port, rule, .. }| format!("{host}:{port} ({rule})"))
            .collect();
        let n_others = self.denied_hosts.len().saturating_sub(IN_WORDS) as u64;
        let others = match n_others.saturating_add(self.n_more_denied_hosts) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let attempts = if self.denied == 1 { "attempt" } else { "attempts" };
        Some(format!(
            "The network policy denied {} {attempts} of the run: {}{others}; logs/egress.jsonl has \
             them all.",
            self.denied,
            named.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_of_a_run_add_up() {
        let host = |host: &str, n| DeniedHost {
            host: host.to_owned(),
            port: 443,
            rule: "port".to_owned(),
            n,
        };
        let one = EgressAccount {
            allowed: 1,
            denied: 2,
            denied_hosts: vec![host("a", 2)],
            ..Default::default()
        };
        let two = EgressAccount {
            denied: 4,
            bytes_up: 5,
            denied_hosts: vec![host("b", 3), host("a", 1)],
            n_more_denied_hosts: 1,
            ..Default::default()
        };
        let sum = EgressAccount {
            allowed: 1,
            denied: 6,
            bytes_up: 5,
            denied_hosts: vec![host("a", 3), host("b", 3)],
            n_more_denied_hosts: 1,
            ..Default::default()
        };
        assert_eq!(one.plus(&two), sum);
    }

    #[test]
    fn a_person_is_told_of_denials_in_one_sentence() {
        assert_eq!(EgressAccount::default().warning(), None);
        let host = |n| DeniedHost {
            host: format!("h{n}.example"),
            port: 443,
            rule: "not-in-allowlist".to_owned(),
            n: 1,
        };
        let one = EgressAccount { denied: 1, denied_hosts: vec![host(1)], ..Default::default() };
        assert_eq!(
            one.warning().unwrap(),
            "The network policy denied 1 attempt of the run: h1.example:443 (not-in-allowlist); \
             logs/egress.jsonl has them all."
        );
        let denied_hosts = (0..7).map(host).collect();
        let many = EgressAccount {
            denied: 70,
            denied_hosts,
            n_more_denied_hosts: 3,
            ..Default::default()
        };
        assert!(many.warning().unwrap().contains("h4.example:443 (not-in-allowlist) and 5 more;"));
    }
}
