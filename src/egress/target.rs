//! Where an attempt leads: a host in its one spelling, and a port.

use std::fmt;
use std::net::IpAddr;

use url::Host;

use crate::run::{one_spelling, port_number};

/// The port on which only TLS passes.
pub(super) const HTTPS_PORT: u16 = 443;

/// Where an attempt leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    host: String,
    literal: Option<IpAddr>,
    port: u16,
}

impl Target {
    /// Reads `host:port`, where the port may be left out if there is a usual one. Numbers in any
    /// spelling are the address that they stand for.
    pub(super) fn parse(authority: &str, usual_port: Option<u16>) -> Option<Self> {
        let bracket = authority.starts_with('[').then(|| authority.find(']')).flatten();
        let end = match bracket {
            Some(bracket) => bracket + 1,
            None => authority.find(':').unwrap_or(authority.len()),
        };
        let (host, rest) = authority.split_at_checked(end)?;
        let port = match rest.strip_prefix(':') {
            Some(port) => port_number(port)?,
            None if rest.is_empty() => usual_port?,
            None => return None,
        };
        let host = one_spelling(host)?;
        let literal = match Host::parse(&host).ok()? {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
        };
        Some(Self { host, literal, port })
    }

    /// The host in its one spelling.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The address, where the host is one.
    pub(super) fn literal(&self) -> Option<IpAddr> {
        self.literal
    }

    /// The port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_any_spelling_are_the_address_that_they_stand_for() {
        for (authority, expected) in [
            ("Example.ORG.:443", "example.org:443"),
            ("127.1:80", "127.0.0.1:80"),
            ("2130706433:80", "127.0.0.1:80"),
            ("0x7f000001:80", "127.0.0.1:80"),
            ("017700000001:80", "127.0.0.1:80"),
            ("0251.0376.0251.0376:80", "169.254.169.254:80"),
            ("127.0.0.1.:80", "127.0.0.1:80"),
            ("[::FFFF:127.0.0.1]:80", "[::ffff:7f00:1]:80"),
            ("１２７.0.0.1:80", "127.0.0.1:80"),
        ] {
            let target = Target::parse(authority, None).unwrap();
            assert_eq!(target.to_string(), expected, "{authority}");
            let is_name = expected.starts_with("example");
            assert_eq!(target.literal().is_none(), is_name, "{authority}");
        }
        for wrong in [
            "",
            ":80",
            "a.example",
            "a.example:",
            "a.example:x",
            "a b:80",
            "[::1:80",
            "[::1]x:80",
            "::1:80",
            "user@a.example:80",
            "a.example:80:80",
            "1.2.3.4.5:80",
            "%31.2:80",
        ] {
            assert_eq!(Target::parse(wrong, None), None, "{wrong}");
        }
        assert_eq!(Target::parse("a.example", Some(80)).unwrap().port(), 80);
    }
}
