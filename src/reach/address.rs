//! Where a client's URL may lead: to public hosts, unless the operator says otherwise.
//!
//! The URL comes from a client, and the request from inside our network. A name is resolved once,
//! every address is looked at, and the connection goes to one of these.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Longest URL that is taken, in bytes.
const MAX_URL_BYTES: usize = 2048;

/// Why a URL is refused, as a sentence for the client without its beginning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadTarget(String);

/// Which addresses may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Those of the public internet alone.
    Public,
    /// Private, loopback and link-local ones too: the operator trusts whoever has a token.
    Private,
}

impl Reach {
    /// Whether an address may be called.
    #[must_use]
    pub fn permits(self, address: IpAddr) -> bool {
        match self {
            Self::Private => true,
            Self::Public => is_public(address),
        }
    }
}

/// Reads a client's URL. A host that is a name is looked at again when it is called.
///
/// # Errors
/// [`BadTarget`] says what to write instead.
pub fn parse_target(text: &str, reach: Reach) -> Result<Url, BadTarget> {
    let bad = |why: &str| BadTarget(why.to_owned());
    if text.len() > MAX_URL_BYTES {
        return Err(BadTarget(format!("is longer than {MAX_URL_BYTES} bytes")));
    }
    let url = Url::parse(text).map_err(|e| BadTarget(format!("cannot be read: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("must start with `https://` or `http://`"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("must not have a user or password in it"));
    }
    let address = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        Some(Host::Domain(_)) => None,
        None => return Err(bad("has no host")),
    };
    match address {
        Some(address) if !reach.permits(address) => Err(bad(
            "leads to a private address: the server's operator can allow that (RUNBOOKD_WEBHOOK_PRIVATE=1)",
        )),
        Some(_) | None => Ok(url),
    }
}

/// Resolves names with the system's resolver and refuses those that lead where none may.
#[derive(Debug)]
pub struct GuardedResolver {
    /// Which addresses may be called.
    pub reach: Reach,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.reach;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Vec<SocketAddr> = found.collect();
            // One private address among public ones is how a guard is led astray.
            if addresses.iter().any(|address| !reach.permits(address.ip())) {
                let why = "the name leads to a private address";
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, why).into());
            }
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}

/// Whether an address belongs to the public internet. When in doubt it does not.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match carried_v4(address) {
            Some(carried) => is_public_v4(carried),
            None => is_public_v6(address),
        },
    }
}

/// Where every machine in Microsoft's cloud finds that cloud's own services.
const AZURE_INSIDE: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_multicast()
        || address.is_documentation()
        // "This network", carrier-grade NAT, protocol assignments, benchmarks, reserved.
        || a == 0
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        // Relays of 6to4, and the inner side of one cloud under a public address.
        || (a == 192 && b == 88 && c == 99)
        || address == AZURE_INSIDE
        || (a == 198 && (b == 18 || b == 19))
        || a >= 240;
    !special
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, NAT64 and 6to4.
fn carried_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => Some(v4(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    // Only 2000::/3 is given out; in it are Teredo, benchmarks and other protocols' own, and
    // documentation.
    let given_out = first & 0xe000 == 0x2000;
    given_out && !(first == 0x2001 && (second < 0x200 || second == 0xdb8)) && first != 0x3fff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_in_any_spelling_are_refused() {
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://017700000001/",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
            "http://10.1.2.3/",
            "http://172.16.0.1/",
            "http://192.168.1.1",
            "http://169.254.169.254/latest/meta-data",
            "http://100.64.0.1/",
            "http://0.0.0.0/",
            "http://[fe80::1]/",
            "http://[fc00::1]/",
            "http://255.255.255.255/",
            "http://224.0.0.1/",
            "http://198.18.0.1/",
            "http://[::]/",
            "http://[ff02::1]/",
            "http://240.0.0.1/",
        ] {
            let refused = parse_target(url, Reach::Public).unwrap_err().to_string();
            assert!(refused.contains("private address"), "{url}: {refused}");
            assert!(parse_target(url, Reach::Private).is_ok(), "{url}");
        }
        for url in
            ["https://1.1.1.1/x", "http://[2606:4700::1111]/", "https://example.org/hook?a=1"]
        {
            assert!(parse_target(url, Reach::Public).is_ok(), "{url}");
        }
    }

    #[test]
    fn only_web_addresses_without_credentials_are_taken() {
        let long = format!("https://example.org/{}", "x".repeat(MAX_URL_BYTES));
        for url in
            ["", "x", "file:///etc/passwd", "ftp://example.org", "https://u:p@example.org", &long]
        {
            assert!(parse_target(url, Reach::Private).is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_a_private_address_is_not_called() {
        let resolve = |reach| GuardedResolver { reach }.resolve("localhost".parse().unwrap());
        assert!(resolve(Reach::Public).await.is_err());
        assert!(resolve(Reach::Private).await.is_ok());
    }
}
