//! Ranges of private addresses that the operator lets sandboxes reach: a company's mirrors.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::run::port_number;

/// A range of addresses, and a port where only one is meant: `10.1.0.0/16`, `10.1.2.3:8080`,
/// `[fd00::/8]:443`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PrivateRange {
    base: IpAddr,
    n_bits: u8,
    port: Option<u16>,
}

/// A text that is no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "write ranges such as `10.1.0.0/16`, `10.1.2.3:8080` or `[fd00::/8]:443`, with commas between them"
)]
pub struct BadRange;

impl PrivateRange {
    /// Whether an address is in it and the port is meant.
    #[must_use]
    pub fn covers(&self, address: IpAddr, port: u16) -> bool {
        self.port.is_none_or(|own| own == port) && self.holds(address)
    }

    /// The port, where only one is meant.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    fn holds(&self, address: IpAddr) -> bool {
        let shift = |width: u32| width - u32::from(self.n_bits);
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let differ = base.to_bits() ^ address.to_bits();
                differ.checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let differ = base.to_bits() ^ address.to_bits();
                differ.checked_shr(shift(128)).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for PrivateRange {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        let text = text.trim();
        let (range, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((range, "")) => (range, None),
            Some((range, rest)) => (range, Some(rest.strip_prefix(':').ok_or(BadRange)?)),
            None if text.matches(':').count() > 1 => (text, None),
            None => text.split_once(':').map_or((text, None), |(range, port)| (range, Some(port))),
        };
        let port = port.map(|port| port_number(port).ok_or(BadRange)).transpose()?;
        let (base, n_bits) = match range.split_once('/') {
            Some((base, bits)) => (base, Some(bits.parse::<u8>().map_err(|_| BadRange)?)),
            None => (range, None),
        };
        let base: IpAddr = base.parse().map_err(|_| BadRange)?;
        let width = if base.is_ipv4() { 32 } else { 128 };
        let n_bits = n_bits.unwrap_or(width);
        if n_bits > width { Err(BadRange) } else { Ok(Self { base, n_bits, port }) }
    }
}

impl fmt::Display for PrivateRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { base, n_bits, port } = self;
        match (base, port) {
            (_, None) => write!(f, "{base}/{n_bits}"),
            (IpAddr::V4(_), Some(port)) => write!(f, "{base}/{n_bits}:{port}"),
            (IpAddr::V6(_), Some(port)) => write!(f, "[{base}/{n_bits}]:{port}"),
        }
    }
}

impl TryFrom<String> for PrivateRange {
    type Error = BadRange;

    fn try_from(text: String) -> Result<Self, BadRange> {
        text.parse()
    }
}

impl From<PrivateRange> for String {
    fn from(range: PrivateRange) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_holds_what_begins_like_it_at_its_port() {
        for (range, address, port, expected) in [
            ("10.1.0.0/16", "10.1.255.255", 1, true),
            ("10.1.0.0/16", "10.2.0.0", 1, false),
            ("10.1.2.3", "10.1.2.3", 80, true),
            ("10.1.2.3", "10.1.2.4", 80, false),
            ("10.1.2.3:8080", "10.1.2.3", 8080, true),
            ("10.1.2.3:8080", "10.1.2.3", 80, false),
            ("10.0.0.0/8:80", "10.9.9.9", 80, true),
            ("0.0.0.0/0", "169.254.169.254", 80, true),
            ("0.0.0.0/0", "::1", 80, false),
            ("fd00::/8", "fdff::1", 443, true),
            ("[fd00::/8]:443", "fd00::1", 443, true),
            ("[fd00::/8]:443", "fd00::1", 80, false),
            ("::/0", "fe80::1", 80, true),
            ("10.0.0.0/8", "::ffff:10.0.0.1", 80, false),
        ] {
            let range: PrivateRange = range.parse().unwrap();
            assert_eq!(range.covers(address.parse().unwrap(), port), expected, "{range} {address}");
            assert_eq!(range.to_string().parse(), Ok(range));
        }
        for wrong in ["", "10.1/16", "10.0.0.0/33", "::/129", "localhost", "10.0.0.1:0", "[::1]80"]
        {
            assert_eq!(wrong.parse::<PrivateRange>(), Err(BadRange), "{wrong}");
        }
    }

    proptest! {
        /// A range holds its own base, and the whole width holds nothing else.
        #[test]
        fn a_range_holds_its_base(bits in any::<u32>(), n_bits in 0_u8..=32, other in any::<u32>()) {
            let base = IpAddr::V4(bits.into());
            let range: PrivateRange = format!("{base}/{n_bits}").parse().unwrap();
            prop_assert!(range.covers(base, 1));
            let mask = u32::MAX.checked_shl(32 - u32::from(n_bits)).unwrap_or(0);
            let is_in = bits & mask == other & mask;
            prop_assert_eq!(range.covers(IpAddr::V4(other.into()), 1), is_in);
        }
    }
}
