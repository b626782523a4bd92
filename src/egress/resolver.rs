//! From a name to its addresses: those that the operator pinned, else what this machine's resolver
//! says.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::run::one_spelling;

/// How long a name may take. Resolvers give up after about as long.
const RESOLVE_LIMIT: Duration = Duration::from_secs(10);

/// Most addresses of a name that are looked at. The others are not connected to either.
const MAX_ADDRESSES: usize = 32;

/// Finds the addresses of names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    /// Names that this machine's resolver is not asked for.
    pinned: BTreeMap<String, Vec<IpAddr>>,
}

/// A text that pins no names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "write names and their addresses such as `mirror.example=10.1.2.3`, with commas between them"
)]
pub struct BadPin;

impl FromStr for Resolver {
    type Err = BadPin;

    /// `NAME=ADDRESS`, with commas between several; a name can come more than once.
    fn from_str(text: &str) -> Result<Self, BadPin> {
        let mut pinned: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for pin in text.split(',') {
            let (name, address) = pin.trim().split_once('=').ok_or(BadPin)?;
            let name = one_spelling(name.trim()).ok_or(BadPin)?;
            let address = address.trim().parse().map_err(|_| BadPin)?;
            pinned.entry(name).or_default().push(address);
        }
        Ok(Self { pinned })
    }
}

impl Resolver {
    /// The addresses of a name, each once.
    pub(super) async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        if let Some(pinned) = self.pinned.get(name) {
            return Ok(pinned.clone());
        }
        let found = timeout(RESOLVE_LIMIT, tokio::net::lookup_host((name, 0))).await;
        let found = found.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let mut seen = BTreeSet::new();
        let addresses = found.map(|address| address.ip()).filter(|ip| seen.insert(*ip));
        Ok(addresses.take(MAX_ADDRESSES).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pinned_name_is_not_looked_up() {
        let resolver: Resolver = "Mirror.example=10.1.2.3, mirror.example=::1".parse().unwrap();
        let expected: Vec<IpAddr> = vec!["10.1.2.3".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(resolver.resolve("mirror.example").await.unwrap(), expected);
        assert!(resolver.resolve("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
        for wrong in ["", "a", "a=", "a=b", "=1.2.3.4", "a=1.2.3.4,,"] {
            assert_eq!(wrong.parse::<Resolver>(), Err(BadPin), "{wrong:?}");
        }
    }
}
