//! The pins: for each agent CLI and target one package, one version, one content.

use url::Url;

use super::target::{Arch, Libc, Target};
use crate::run::RuntimeName;

/// An agent CLI that is pinned here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AgentCli {
    /// Anthropic's Claude Code.
    ClaudeCode,
}

impl From<RuntimeName> for AgentCli {
    fn from(runtime: RuntimeName) -> Self {
        match runtime {
            RuntimeName::ClaudeCode => Self::ClaudeCode,
        }
    }
}

/// Exactly one file in exactly one package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pin {
    /// The CLI's name in the cache.
    pub(super) cli: &'static str,
    pub(super) version: &'static str,
    pub(super) target: Target,
    /// The npm scope, `@` included.
    pub(super) scope: &'static str,
    /// The npm package's name without the scope.
    pub(super) package: String,
    pub(super) tarball: Content,
    /// The path of the executable inside the tarball.
    pub(super) member: &'static str,
    pub(super) executable: Content,
}

/// What a file must be, to the byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) n_bytes: u64,
    /// The tarball's is npm's `dist.integrity` (`sha512-…`, base64); the executable's is its
    /// SHA-256 in hexadecimal digits, as `sha256sum` prints it.
    pub(super) hash: String,
}

impl Content {
    fn new(n_bytes: u64, hash: &str) -> Self {
        Self { n_bytes, hash: hash.to_owned() }
    }
}

impl Pin {
    /// What is pinned for `cli` on `target`.
    pub(super) fn of(cli: AgentCli, target: Target) -> Self {
        match cli {
            AgentCli::ClaudeCode => Self::claude_code(target),
        }
    }

    fn claude_code(target: Target) -> Self {
        let (tarball, executable) = match (target.arch, target.libc) {
            (Arch::X64, Libc::Glibc) => (
                Content::new(
                    77_086_774,
                    "sha512-D2A9TI62aoQcxxbZzsiOWlfqs+7X/K49qSthkPdCg4B24aQWv2rL0PWTvnvMTbQUTlg6bBL0PjauANdgHs+WjQ==",
                ),
                Content::new(
                    248_105_600,
                    "fce96968d275161ff65a4c19fc6434efc6973d9f6d35dc3992a2ba0553cac18e",
                ),
            ),
            (Arch::X64, Libc::Musl) => (
                Content::new(
                    75_154_289,
                    "sha512-y9NhIWnITVmKssq0XNoUFqLdfWiD9BmZI8SAVqcxUbFUpDmbsCKpNB2SrvMQmjYLZneDnmxdHLfciU0DS9S7HQ==",
                ),
                Content::new(
                    242_370_944,
                    "b3f39b00069558e57c6d36ead6b2efe013afa57b603445c338374d0c873e95c0",
                ),
            ),
            (Arch::Arm64, Libc::Glibc) => (
                Content::new(
                    77_451_506,
                    "sha512-iqdERAVEhU2BwEPlHy/S0O3ioKnlFUvlk5xS/G8DXnWok4Niin1HJ+7q4u6ayXWw7JFou3GW3pg34V31ddGhGg==",
                ),
                Content::new(
                    248_318_528,
                    "88a6dca613a40559f3bac8a946a2ec6e60a870b91938d3df93dcac1dec4848cb",
                ),
            ),
            (Arch::Arm64, Libc::Musl) => (
                Content::new(
                    75_261_597,
                    "sha512-soOkg7QjoQ1nMa78YmyhLeKDkFtRXgucsE9P84+J3HB3CDIcZI+MWQvwZT9lr5IuU8KbkNOijSzIRaUCLZAPuQ==",
                ),
                Content::new(
                    241_043_840,
                    "042bbc0c3610d005d371645e34c4b4055bb2499f7a4509ed667b2a8924ac5853",
                ),
            ),
        };
        Self {
            cli: "claude-code",
            version: "2.1.126",
            target,
            scope: "@anthropic-ai",
            package: format!("claude-code-{target}"),
            tarball,
            member: "package/claude",
            executable,
        }
    }

    /// Where the package lies in `registry`, an http or https URL with or without a path.
    pub(super) fn tarball_url(&self, registry: &Url) -> Url {
        let mut url = registry.clone();
        let file = format!("{}-{}.tgz", self.package, self.version);
        url.path_segments_mut().expect("an http URL has a path").pop_if_empty().extend([
            self.scope,
            &self.package,
            "-",
            &file,
        ]);
        url
    }

    /// The base name of the executable.
    pub(super) fn file_name(&self) -> &'static str {
        self.member.rsplit('/').next().unwrap_or(self.member)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn every_pin_is_well_formed_and_its_own() {
        let mut seen = BTreeSet::new();
        for target in Target::ALL {
            let pin = Pin::of(AgentCli::ClaudeCode, target);
            let integrity = pin.tarball.hash.strip_prefix("sha512-").unwrap();
            assert_eq!(STANDARD.decode(integrity).unwrap().len(), 64, "{target}");
            let sha256 = &pin.executable.hash;
            assert_eq!(sha256.len(), 64, "{target}");
            assert!(sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{target}");
            assert!(pin.tarball.n_bytes < pin.executable.n_bytes, "{target}");
            assert!(seen.insert(pin.tarball.hash.clone()), "{target}");
            assert!(seen.insert(pin.executable.hash.clone()), "{target}");
        }
    }

    #[test]
    fn a_registry_works_with_and_without_a_path_and_a_final_slash() {
        let pin = Pin::of(AgentCli::ClaudeCode, "linux-arm64-musl".parse().unwrap());
        let package =
            "@anthropic-ai/claude-code-linux-arm64-musl/-/claude-code-linux-arm64-musl-2.1.126.tgz";
        for base in [
            "https://registry.npmjs.org",
            "https://npm.example:8443/api/npm/all",
            "http://127.0.0.1:4873/a%20b",
        ] {
            for written in [base.to_owned(), format!("{base}/")] {
                let url = pin.tarball_url(&written.parse().unwrap());
                assert_eq!(url.as_str(), format!("{base}/{package}"), "{written}");
            }
        }
    }
}
