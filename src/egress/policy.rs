//! What may be reached, and the rule that says so or says not.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::private::PrivateRange;
use super::resolver::Resolver;
use super::services::{is_service, is_service_address};
use super::target::Target;
use crate::reach::Reach;
use crate::run::{HostRule, Network, Networks, WEB_PORTS};

/// What the operator says of every run's way out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EgressSettings {
    /// What runs may use.
    pub networks: Networks,
    /// Private addresses that may be reached.
    pub private: Vec<PrivateRange>,
    /// Hosts that are never reached.
    pub deny: Vec<HostRule>,
    /// How names are resolved.
    pub resolver: Resolver,
}

/// What a run may reach of the public internet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Every host on the ports of the web.
    Public,
    /// These hosts.
    Allowlist(Vec<HostRule>),
}

impl Scope {
    /// The scope of a network; `None` where no proxy belongs to it.
    #[must_use]
    pub fn of(network: &Network) -> Option<Self> {
        match network {
            Network::Public => Some(Self::Public),
            Network::Allowlist(hosts) => Some(Self::Allowlist(hosts.clone())),
            Network::None | Network::Open => None,
        }
    }
}

/// What one run may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What its runbook or its request says.
    pub scope: Scope,
    /// Private addresses that the operator lets it reach.
    pub private: Vec<PrivateRange>,
    /// Hosts that the operator does not let it reach.
    pub deny: Vec<HostRule>,
    /// The hosts of the run's model service, which only its gateway asks.
    pub gateway_asks: Vec<String>,
    /// The hosts of the run's model service, where the agent has the credential and asks itself.
    pub agent_asks: Vec<String>,
}

/// Why something may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Grant {
    /// It is a public host.
    Public,
    /// This entry of the allowlist.
    Listed(HostRule),
    /// It is the run's own model service, for which the agent has the credential.
    OwnService,
}

/// What stands in the ledger for [`Grant::Public`].
const PUBLIC: &str = "public";
/// What stands before the entry of [`Grant::Listed`].
const ALLOWLIST: &str = "allowlist";
/// What stands for [`Grant::OwnService`].
const OWN_SERVICE: &str = "own-model-service";

impl Grant {
    /// The rule as the ledger has it.
    pub(super) fn rule(&self) -> String {
        match self {
            Self::Public => PUBLIC.to_owned(),
            Self::Listed(entry) => format!("{ALLOWLIST} {entry}"),
            Self::OwnService => OWN_SERVICE.to_owned(),
        }
    }
}

/// The kind of a rule of the ledger: a word out of a few, without the entry of an allowlist. `none`
/// where nothing was decided, `other` where another version decided it.
pub(super) fn rule_kind(rule: &str) -> &'static str {
    let word = rule.split(' ').next().unwrap_or_default();
    let denials = Denial::ALL.into_iter().map(Denial::rule);
    let kinds = [PUBLIC, ALLOWLIST, OWN_SERVICE].into_iter().chain(denials);
    let none = if word.is_empty() { "none" } else { "other" };
    kinds.into_iter().find(|kind| *kind == word).unwrap_or(none)
}

/// Why something may not be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denial {
    /// The operator denies the host.
    OperatorDeny,
    /// The host is a model service's.
    ModelService,
    /// The allowlist does not have it.
    NotInAllowlist,
    /// The port is none of the web's.
    Port,
    /// An address is private.
    PrivateAddress,
    /// The address is this machine's own.
    OwnMachine,
    /// TLS to an address: nobody can tell which service answers.
    TlsToAddress,
    /// The `Host` header names another host.
    HostMismatch,
    /// The TLS greeting names another host, or none.
    SniMismatch,
    /// What comes is not TLS.
    NotTls,
    /// What comes is neither TLS nor HTTP.
    NotWeb,
    /// It is no request to a proxy.
    NotForProxy,
    /// There were too many attempts.
    TooMany,
}

impl Denial {
    /// Every one of them.
    const ALL: [Self; 13] = [
        Self::OperatorDeny,
        Self::ModelService,
        Self::NotInAllowlist,
        Self::Port,
        Self::PrivateAddress,
        Self::OwnMachine,
        Self::TlsToAddress,
        Self::HostMismatch,
        Self::SniMismatch,
        Self::NotTls,
        Self::NotWeb,
        Self::NotForProxy,
        Self::TooMany,
    ];

    /// The rule's name. It is stable: programs search for it.
    pub(super) fn rule(self) -> &'static str {
        match self {
            Self::OperatorDeny => "operator-deny",
            Self::ModelService => "model-service",
            Self::NotInAllowlist => "not-in-allowlist",
            Self::Port => "port",
            Self::PrivateAddress => "private-address",
            Self::OwnMachine => "own-machine",
            Self::TlsToAddress => "tls-to-address",
            Self::HostMismatch => "host-mismatch",
            Self::SniMismatch => "sni-mismatch",
            Self::NotTls => "not-tls",
            Self::NotWeb => "not-web",
            Self::NotForProxy => "not-for-proxy",
            Self::TooMany => "too-many",
        }
    }

    /// What the rule says, and whom to ask for what.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::OperatorDeny => "the server's operator denies this host (RUNBOOKD_EGRESS_DENY)",
            Self::ModelService => {
                "a sandbox reaches model services through its run's gateway alone, whatever the \
                 network policy"
            }
            Self::NotInAllowlist => {
                "the host is not in the run's allowlist: ask for it in the runbook's `network.allow`, \
                 or with `--allow`"
            }
            Self::Port => {
                "`network: public` reaches ports 80 and 443: ask for this one with `network: \
                 {mode: allowlist, allow: [\"HOST:PORT\"]}`"
            }
            Self::PrivateAddress => {
                "the host leads to a private address: the server's operator can allow that \
                 (RUNBOOKD_EGRESS_PRIVATE)"
            }
            Self::OwnMachine => {
                "the host leads to the machine that runs the sandbox: the server's operator can \
                 allow that (RUNBOOKD_EGRESS_PRIVATE)"
            }
            Self::TlsToAddress => {
                "TLS to an address does not say which service is meant: call the host by its name"
            }
            Self::HostMismatch => "the `Host` header must name the host of the request",
            Self::SniMismatch => "the TLS greeting must name the host of the CONNECT, and name one",
            Self::NotTls => "only TLS passes on port 443",
            Self::NotWeb => "only HTTP and TLS pass on port 80",
            Self::NotForProxy => {
                "this is a proxy: write CONNECT HOST:PORT, or GET http://HOST/PATH"
            }
            Self::TooMany => "this run has made too many connections",
        }
    }
}

impl Policy {
    /// The policy of a run, as far as the operator and its network decide it.
    #[must_use]
    pub fn new(scope: Scope, settings: &EgressSettings) -> Self {
        let (private, deny) = (settings.private.clone(), settings.deny.clone());
        Self { scope, private, deny, gateway_asks: Vec::new(), agent_asks: Vec::new() }
    }

    /// Whether a host and port may be reached, before anything is resolved.
    pub(super) fn admit(&self, target: &Target) -> Result<Grant, Denial> {
        let (host, port) = (target.host(), target.port());
        if self.deny.iter().any(|rule| rule.names(host)) {
            return Err(Denial::OperatorDeny);
        }
        let is_one_of = |hosts: &[String]| hosts.iter().any(|own| own == host);
        if is_one_of(&self.agent_asks) {
            return Ok(Grant::OwnService);
        }
        if is_service(host) || is_one_of(&self.gateway_asks) {
            return Err(Denial::ModelService);
        }
        match &self.scope {
            Scope::Allowlist(allowed) => {
                let entry = allowed.iter().find(|entry| entry.covers(host, port));
                entry.cloned().map(Grant::Listed).ok_or(Denial::NotInAllowlist)
            }
            Scope::Public if WEB_PORTS.contains(&port) || self.grants_port(port) => {
                Ok(Grant::Public)
            }
            Scope::Public => Err(Denial::Port),
        }
    }

    /// Whether one address of a host that is admitted may be connected to.
    pub(super) fn admit_address(
        &self,
        grant: &Grant,
        address: IpAddr,
        port: u16,
    ) -> Result<(), Denial> {
        if self.is_granted(address, port) {
            return Ok(());
        }
        if !Reach::Public.permits(address) {
            return Err(Denial::PrivateAddress);
        }
        match grant {
            Grant::OwnService => Ok(()),
            Grant::Public | Grant::Listed(_) if is_service_address(address) => {
                Err(Denial::ModelService)
            }
            // The port was granted for private addresses alone.
            Grant::Public if !WEB_PORTS.contains(&port) => Err(Denial::Port),
            Grant::Public | Grant::Listed(_) => Ok(()),
        }
    }

    /// Whether the operator lets sandboxes reach this very address.
    pub(super) fn is_granted(&self, address: IpAddr, port: u16) -> bool {
        self.private.iter().any(|range| range.covers(address, port))
    }

    /// Whether TLS may go to an address, which cannot say which service is meant: where somebody
    /// named this very address.
    pub(super) fn admits_tls_to(&self, grant: &Grant, address: IpAddr, port: u16) -> bool {
        match grant {
            Grant::Listed(_) | Grant::OwnService => true,
            Grant::Public => self.is_granted(address, port),
        }
    }

    fn grants_port(&self, port: u16) -> bool {
        self.private.iter().any(|range| range.port() == Some(port))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(scope: Scope) -> Policy {
        let settings = EgressSettings {
            private: vec!["10.7.0.0/16".parse().unwrap(), "127.0.0.1:9000".parse().unwrap()],
            deny: vec!["*.denied.example".parse().unwrap()],
            ..EgressSettings::default()
        };
        Policy { gateway_asks: vec!["gw.example".to_owned()], ..Policy::new(scope, &settings) }
    }

    fn listed(hosts: &[&str]) -> Scope {
        Scope::Allowlist(hosts.iter().map(|host| host.parse().unwrap()).collect())
    }

    /// The rule for a host and its only address.
    fn rule(policy: &Policy, authority: &str, address: &str) -> String {
        let target = Target::parse(authority, None).unwrap();
        let judged = policy.admit(&target).and_then(|grant| {
            let address = address.parse().unwrap();
            policy.admit_address(&grant, address, target.port()).map(|()| grant)
        });
        match judged {
            Ok(grant) => grant.rule(),
            Err(denial) => denial.rule().to_owned(),
        }
    }

    const PUBLIC: &str = "93.184.216.34";

    #[test]
    fn public_is_every_public_host_on_the_ports_of_the_web() {
        let policy = policy(Scope::Public);
        for (authority, address, expected) in [
            ("example.org:443", PUBLIC, "public"),
            ("example.org:80", PUBLIC, "public"),
            ("example.org:22", PUBLIC, "port"),
            ("example.org:443", "10.0.0.1", "private-address"),
            ("example.org:443", "10.7.1.1", "public"),
            ("example.org:9000", "127.0.0.1", "public"),
            ("example.org:9000", "127.0.0.2", "private-address"),
            ("example.org:9000", PUBLIC, "port"),
            ("169.254.169.254:80", "169.254.169.254", "private-address"),
            ("168.63.129.16:80", "168.63.129.16", "private-address"),
            ("[fd00:ec2::254]:80", "fd00:ec2::254", "private-address"),
            ("[::ffff:169.254.169.254]:80", "::ffff:169.254.169.254", "private-address"),
            ("example.org:443", "64:ff9b::a00:1", "private-address"),
            ("example.org:443", "2002:a00:1::", "private-address"),
            ("example.org:443", "2001:0:a00:1::", "private-address"),
            ("example.org:443", "2001:2::1", "private-address"),
            ("example.org:443", "192.88.99.1", "private-address"),
            ("a.denied.example:443", PUBLIC, "operator-deny"),
            ("a.denied.example:9000", "127.0.0.1", "operator-deny"),
            ("api.anthropic.com:443", PUBLIC, "model-service"),
            ("api.anthropic.com:9000", "127.0.0.1", "model-service"),
            ("mine.example:443", "160.79.104.10", "model-service"),
            ("gw.example:443", PUBLIC, "model-service"),
        ] {
            assert_eq!(rule(&policy, authority, address), expected, "{authority} {address}");
        }
    }

    #[test]
    fn an_allowlist_is_what_it_names_and_no_private_address_for_that() {
        let policy = policy(listed(&[
            "pypi.org",
            "*.example.org",
            "git.example.net:22",
            "api.anthropic.com",
            "a.denied.example",
        ]));
        for (authority, address, expected) in [
            ("pypi.org:443", PUBLIC, "allowlist pypi.org"),
            ("pypi.org:8443", PUBLIC, "not-in-allowlist"),
            ("evil.example:443", PUBLIC, "not-in-allowlist"),
            ("evil.example:9000", "127.0.0.1", "not-in-allowlist"),
            ("example.org:443", PUBLIC, "not-in-allowlist"),
            ("a.example.org:80", PUBLIC, "allowlist *.example.org"),
            ("git.example.net:22", PUBLIC, "allowlist git.example.net:22"),
            ("pypi.org:443", "127.0.0.1", "private-address"),
            ("pypi.org:443", "10.7.1.1", "allowlist pypi.org"),
            ("api.anthropic.com:443", PUBLIC, "model-service"),
            ("a.denied.example:443", PUBLIC, "operator-deny"),
            ("93.184.216.34:80", PUBLIC, "not-in-allowlist"),
        ] {
            assert_eq!(rule(&policy, authority, address), expected, "{authority} {address}");
        }
    }

    #[test]
    fn an_agent_with_the_credential_reaches_its_own_service_and_no_other() {
        let policy = Policy {
            agent_asks: vec!["api.anthropic.com".to_owned()],
            ..policy(listed(&["pypi.org"]))
        };
        for (authority, address, expected) in [
            ("api.anthropic.com:443", "160.79.104.10", "own-model-service"),
            ("api.anthropic.com:443", "10.0.0.1", "private-address"),
            ("openrouter.ai:443", PUBLIC, "model-service"),
            ("pypi.org:443", "160.79.104.10", "model-service"),
        ] {
            assert_eq!(rule(&policy, authority, address), expected, "{authority} {address}");
        }
    }

    proptest! {
        /// Whatever is asked for, no private address is reached that the operator did not name.
        #[test]
        fn no_private_address_is_reached(second in any::<u8>(), rest in any::<u16>(), port in 1_u16..) {
            let [third, fourth] = rest.to_be_bytes();
            let address = IpAddr::from([10, second, third, fourth]);
            let policy = policy(listed(&[&format!("any.example:{port}")]));
            let found = rule(&policy, &format!("any.example:{port}"), &address.to_string());
            prop_assert_eq!(found == "private-address", second != 7);
        }
    }
}
