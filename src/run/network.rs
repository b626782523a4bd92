//! What a sandbox can reach: nothing, named hosts, the public internet, or whatever this machine
//! reaches.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Ports of an allowed host for which no port is named, and of public hosts: those of the web.
pub const WEB_PORTS: [u16; 2] = [80, 443];

/// Longest name of a host, in bytes: what DNS takes.
const MAX_HOST_BYTES: usize = 253;

/// Most hosts of one list. More is not a list but the public internet.
pub const MAX_ALLOWED_HOSTS: usize = 200;

/// What a sandbox can reach. Part of a job's frozen text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Nothing but a loopback of its own and the sockets that are mounted.
    None,
    /// These hosts, through the proxy.
    Allowlist(Vec<HostRule>),
    /// Public hosts on the ports of the web, through the proxy.
    #[default]
    Public,
    /// Whatever this machine reaches.
    Open,
}

impl Network {
    /// Which of the four it is.
    #[must_use]
    pub fn mode(&self) -> NetworkMode {
        match self {
            Self::None => NetworkMode::None,
            Self::Allowlist(_) => NetworkMode::Allowlist,
            Self::Public => NetworkMode::Public,
            Self::Open => NetworkMode::Open,
        }
    }

    /// The hosts of an allowlist.
    #[must_use]
    pub fn allowed(&self) -> &[HostRule] {
        match self {
            Self::Allowlist(allowed) => allowed,
            Self::None | Self::Public | Self::Open => &[],
        }
    }
}

/// One of the four answers to what a sandbox can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// See [`Network::None`].
    None,
    /// See [`Network::Allowlist`].
    Allowlist,
    /// See [`Network::Public`].
    Public,
    /// See [`Network::Open`].
    Open,
}

impl NetworkMode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::None, Self::Allowlist, Self::Public, Self::Open];

    /// The mode of that name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == word)
    }

    /// The name in front matter, requests and settings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Allowlist => "allowlist",
            Self::Public => "public",
            Self::Open => "open",
        }
    }

    /// Whether the way out is the proxy and nothing else.
    #[must_use]
    pub fn has_proxy(self) -> bool {
        match self {
            Self::Allowlist | Self::Public => true,
            Self::None | Self::Open => false,
        }
    }

    /// The network of this mode with these hosts; `None` where one has no use for the other.
    #[must_use]
    pub fn with(self, allowed: Vec<HostRule>) -> Option<Network> {
        match (self, allowed.is_empty()) {
            (Self::None, true) => Some(Network::None),
            (Self::Public, true) => Some(Network::Public),
            (Self::Open, true) => Some(Network::Open),
            (Self::Allowlist, false) if allowed.len() <= MAX_ALLOWED_HOSTS => {
                Some(Network::Allowlist(allowed))
            }
            (Self::Allowlist, _) | (Self::None | Self::Public | Self::Open, false) => None,
        }
    }
}

/// Reads a network out of JSON: a word, or an object with `mode` and `allow`. `None` where it is
/// neither, or has more.
#[must_use]
pub fn read_network(value: &serde_json::Value) -> Option<Network> {
    let mode = |value: &serde_json::Value| NetworkMode::from_word(value.as_str()?.trim());
    let Some(object) = value.as_object() else { return mode(value)?.with(Vec::new()) };
    if object.keys().any(|key| key != "mode" && key != "allow") {
        return None;
    }
    let mode = object.get("mode").map_or(Some(NetworkMode::Allowlist), mode)?;
    let allowed = match object.get("allow") {
        None => Vec::new(),
        Some(hosts) => {
            let hosts = hosts.as_array()?.iter();
            hosts.map(|host| host.as_str()?.parse().ok()).collect::<Option<_>>()?
        }
    };
    mode.with(allowed)
}

/// The JSON that [`read_network`] reads.
impl From<&Network> for serde_json::Value {
    fn from(network: &Network) -> Self {
        let mode = network.mode().as_str();
        match network.allowed() {
            [] => mode.into(),
            allowed => serde_json::json!({ "mode": mode, "allow": allowed }),
        }
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The modes that runs may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networks(BTreeSet<NetworkMode>);

impl Networks {
    /// Every mode: who starts a run by hand decides alone.
    #[must_use]
    pub fn all() -> Self {
        Self(NetworkMode::ALL.into())
    }

    /// Whether runs may use a mode.
    #[must_use]
    pub fn permit(&self, mode: NetworkMode) -> bool {
        self.0.contains(&mode)
    }
}

/// All that is kept apart from this machine's own network.
impl Default for Networks {
    fn default() -> Self {
        Self([NetworkMode::None, NetworkMode::Allowlist, NetworkMode::Public].into())
    }
}

impl FromStr for Networks {
    type Err = UnknownMode;

    fn from_str(words: &str) -> Result<Self, UnknownMode> {
        let mode = |word: &str| NetworkMode::from_word(word.trim()).ok_or(UnknownMode);
        words.split(',').map(mode).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.0.iter().map(|mode| mode.as_str()).collect();
        f.write_str(&words.join(", "))
    }
}

/// A word that is no mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write `none`, `allowlist`, `public` or `open`")]
pub struct UnknownMode;

/// Which hosts and ports: `pypi.org`, `*.example.org` (what is below it, and not itself),
/// `example.org:8443`. Without a port those of the web.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostRule {
    /// Without the `*.`, in its one spelling.
    host: String,
    is_below: bool,
    port: Option<u16>,
}

/// A text that names no host. The text is not repeated: it may be anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "write a host such as `pypi.org`, `*.example.org` or `example.org:8443`, without `https://` and without a path"
)]
pub struct BadHost;

impl HostRule {
    /// The rule for one host in its one spelling; the ports of the web need no naming.
    #[must_use]
    pub fn exactly(host: &str, port: u16) -> Self {
        let port = Some(port).filter(|port| !WEB_PORTS.contains(port));
        Self { host: host.to_owned(), is_below: false, port }
    }

    /// Whether a host in its one spelling is meant, at this port.
    #[must_use]
    pub fn covers(&self, host: &str, port: u16) -> bool {
        self.names(host) && self.port.map_or(WEB_PORTS.contains(&port), |own| own == port)
    }

    /// Whether a host in its one spelling is meant, at whatever port.
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        if !self.is_below {
            return host == self.host;
        }
        let label = host.strip_suffix(self.host.as_str()).and_then(|rest| rest.strip_suffix('.'));
        label.is_some_and(|label| !label.is_empty())
    }
}

impl FromStr for HostRule {
    type Err = BadHost;

    fn from_str(text: &str) -> Result<Self, BadHost> {
        let text = text.trim();
        let (is_below, rest) = text.strip_prefix("*.").map_or((false, text), |below| (true, below));
        let (host, port) = split_port(rest).ok_or(BadHost)?;
        let host = one_spelling(host).ok_or(BadHost)?;
        // Below an address there is nothing.
        if is_below && (host.starts_with('[') || is_dotted_number(&host)) {
            return Err(BadHost);
        }
        Ok(Self { host, is_below, port })
    }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = if self.is_below { "*." } else { "" };
        write!(f, "{below}{}", self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl TryFrom<String> for HostRule {
    type Error = BadHost;

    fn try_from(text: String) -> Result<Self, BadHost> {
        text.parse()
    }
}

impl From<HostRule> for String {
    fn from(rule: HostRule) -> Self {
        rule.to_string()
    }
}

/// A host and a port behind it, where there is one.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let end = if text.starts_with('[') {
        text.find(']')? + 1
    } else {
        text.find(':').unwrap_or(text.len())
    };
    let (host, rest) = text.split_at_checked(end)?;
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Some((host, None)),
        None => None,
        Some(port) => Some((host, Some(port_number(port)?))),
    }
}

/// A port as it is written: digits and nothing else, and not 0.
#[must_use]
pub fn port_number(text: &str) -> Option<u16> {
    let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_plain.then(|| text.parse().ok())?.filter(|port| *port != 0)
}

/// The one spelling of a host: lower case, international names in their ASCII form, addresses in
/// dotted numbers or brackets, no dot at the end. `None` where it is no host.
#[must_use]
pub fn one_spelling(host: &str) -> Option<String> {
    let is_plain = |c: char| !c.is_control() && !c.is_whitespace() && c != '*' && c != '%';
    if host.len() > MAX_HOST_BYTES || !host.chars().all(is_plain) {
        return None;
    }
    let spelled = url::Host::parse(host).ok()?.to_string();
    let spelled = spelled.strip_suffix('.').unwrap_or(&spelled);
    let has_every_label = !spelled.is_empty() && spelled.split('.').all(|label| !label.is_empty());
    has_every_label.then(|| spelled.to_owned())
}

fn is_dotted_number(host: &str) -> bool {
    host.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(text: &str) -> HostRule {
        text.parse().unwrap()
    }

    #[test]
    fn a_host_is_written_in_one_way() {
        for (written, spelled) in [
            ("pypi.org", "pypi.org"),
            (" PyPI.org. ", "pypi.org"),
            ("*.Example.org", "*.example.org"),
            ("example.org:8443", "example.org:8443"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("0x7f.1", "127.0.0.1"),
            ("2130706433:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("[0:0::1]", "[::1]"),
            ("with_underscore.example", "with_underscore.example"),
        ] {
            assert_eq!(rule(written).to_string(), spelled, "{written:?}");
        }
        for wrong in [
            "",
            "*",
            "*.",
            ".",
            "..",
            "a..b",
            "https://pypi.org",
            "pypi.org/simple",
            "user@pypi.org",
            "pypi.org:",
            "pypi.org:0",
            "pypi.org:99999",
            "pypi.org:+80",
            "a b",
            "*.10.0.0.1",
            "*.[::1]",
            "::1",
            "a*.example.org",
            "*.*.example.org",
            "%70ypi.org",
            "pypi.org:80:80",
        ] {
            assert_eq!(wrong.parse::<HostRule>(), Err(BadHost), "{wrong:?}");
        }
        assert!("a".repeat(254).parse::<HostRule>().is_err());
    }

    #[test]
    fn a_rule_covers_its_host_and_port_and_a_star_what_is_below() {
        for (text, host, port, expected) in [
            ("pypi.org", "pypi.org", 443, true),
            ("pypi.org", "pypi.org", 80, true),
            ("pypi.org", "pypi.org", 22, false),
            ("pypi.org", "files.pypi.org", 443, false),
            ("pypi.org", "notpypi.org", 443, false),
            ("*.example.org", "a.example.org", 443, true),
            ("*.example.org", "a.b.example.org", 443, true),
            ("*.example.org", "example.org", 443, false),
            ("*.example.org", "badexample.org", 443, false),
            ("*.example.org", ".example.org", 443, false),
            ("*.example.org", "a.example.org.evil.example", 443, false),
            ("example.org:8443", "example.org", 8443, true),
            ("example.org:8443", "example.org", 443, false),
        ] {
            assert_eq!(rule(text).covers(host, port), expected, "{text} {host}:{port}");
        }
    }

    #[test]
    fn a_network_is_frozen_as_text_and_read_back() {
        let list = Network::Allowlist(vec![rule("pypi.org"), rule("*.example.org:8443")]);
        for (network, text) in [
            (Network::None, r#""none""#),
            (Network::Open, r#""open""#),
            (Network::Public, r#""public""#),
            (list, r#"{"allowlist":["pypi.org","*.example.org:8443"]}"#),
        ] {
            assert_eq!(serde_json::to_string(&network).unwrap(), text);
            assert_eq!(serde_json::from_str::<Network>(text).unwrap(), network);
            assert_eq!(read_network(&serde_json::Value::from(&network)), Some(network));
        }
    }

    #[test]
    fn a_mode_takes_hosts_only_where_it_has_a_use_for_them() {
        let some = || vec![rule("pypi.org")];
        assert_eq!(NetworkMode::Allowlist.with(some()), Some(Network::Allowlist(some())));
        for mode in NetworkMode::ALL {
            assert_eq!(mode.with(vec![]).is_some(), mode != NetworkMode::Allowlist, "{mode}");
            assert_eq!(mode.with(some()).is_some(), mode == NetworkMode::Allowlist, "{mode}");
        }
        assert_eq!(NetworkMode::Allowlist.with(vec![rule("a.example"); 201]), None);
    }

    #[test]
    fn the_operator_lists_modes_by_name() {
        let networks: Networks = "public, none".parse().unwrap();
        assert_eq!(networks.to_string(), "none, public");
        assert!(!networks.permit(NetworkMode::Open));
        assert!(!Networks::default().permit(NetworkMode::Open));
        assert!(Networks::all().permit(NetworkMode::Open));
        assert_eq!("public,lan".parse::<Networks>(), Err(UnknownMode));
    }

    proptest! {
        /// What is below a name ends with a dot and that name, and a rule reads back as itself.
        #[test]
        fn a_star_never_covers_a_lookalike(
            base in "[a-z]{1,8}\\.[a-z]{2,4}", before in "[a-z0-9-]{0,8}", port in 1_u16..,
        ) {
            let below = rule(&format!("*.{base}:{port}"));
            prop_assert_eq!(&rule(&below.to_string()), &below);
            let glued = format!("{before}{base}");
            prop_assert!(!below.covers(&glued, port));
            let dotted = format!("{before}.{base}");
            prop_assert_eq!(below.covers(&dotted, port), !before.is_empty());
        }
    }
}
