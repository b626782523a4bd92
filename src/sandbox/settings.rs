//! Which engine is wanted, and where its sandboxes live.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use super::error::SandboxError;
use super::spec::SandboxId;

/// Where the kernel's control groups are mounted on every common system.
pub const DEFAULT_CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Longest owner, in bytes. With a sandbox's id it makes up the name of a container.
const MAX_OWNER_BYTES: usize = 40;

/// Which engine is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineChoice {
    /// Docker if it answers, else Bubblewrap.
    Auto,
    /// Docker and nothing else.
    Docker,
    /// Bubblewrap and nothing else.
    Bubblewrap,
}

/// A word that names no engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an engine: use auto, docker or bubblewrap")]
pub struct UnknownEngine(String);

impl FromStr for EngineChoice {
    type Err = UnknownEngine;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "auto" => Ok(Self::Auto),
            "docker" => Ok(Self::Docker),
            "bubblewrap" => Ok(Self::Bubblewrap),
            _ => Err(UnknownEngine(word.to_owned())),
        }
    }
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Docker => "docker",
            Self::Bubblewrap => "bubblewrap",
        })
    }
}

/// Where sandboxes live and whose they are.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// The daemon's state; its folder `sandboxes` is for the engine alone.
    pub state_dir: PathBuf,
    /// Whose sandboxes these are, 1 to 40 of `a-z`, `0-9` and inner `-`. Two daemons on one
    /// machine must differ.
    pub owner: String,
    /// Docker's socket, as `unix:///path`; `None` is the usual place.
    pub docker_host: Option<String>,
    /// The image of a sandbox that names none.
    pub default_image: Option<String>,
    /// Where control groups are made, [`DEFAULT_CGROUP_ROOT`] unless a part of the tree was
    /// delegated to the daemon.
    pub cgroup_root: PathBuf,
    /// This program: it is brought into sandboxes whose way out is a proxy.
    pub program: PathBuf,
    /// Folders where `bwrap` is looked for, in the form of `PATH`; empty is the usual places.
    pub path: String,
}

/// Tells the containers of one state folder from those of another.
pub(super) fn state_mark(settings: &EngineSettings) -> String {
    let digest = Sha256::digest(settings.state_dir.as_os_str().as_encoded_bytes());
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Refuses settings that could name something else.
pub(super) fn check(settings: &EngineSettings) -> Result<(), SandboxError> {
    let setting = |setting, problem| Err(SandboxError::Setting { setting, problem });
    let owner = &settings.owner;
    if SandboxId::new(owner).is_err() || owner.len() > MAX_OWNER_BYTES {
        return setting("owner", "use 1 to 40 of a-z, 0-9 and inner hyphens");
    }
    let usable = |path: &Path| path.is_absolute() && path.to_str().is_some();
    if !usable(&settings.state_dir) {
        return setting("state_dir", "it must be an absolute path of UTF-8 text");
    }
    if !usable(&settings.cgroup_root) {
        return setting("cgroup_root", "it must be an absolute path of UTF-8 text");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_named_by_the_word_that_it_shows() {
        for choice in [EngineChoice::Auto, EngineChoice::Docker, EngineChoice::Bubblewrap] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert_eq!("Podman".parse::<EngineChoice>(), Err(UnknownEngine("Podman".to_owned())));
    }

    #[test]
    fn settings_that_could_name_something_else_are_refused() {
        let good = EngineSettings {
            state_dir: PathBuf::from("/var/lib/runbookd"),
            owner: "main".to_owned(),
            docker_host: None,
            default_image: None,
            cgroup_root: PathBuf::from(DEFAULT_CGROUP_ROOT),
            program: PathBuf::from("/proc/self/exe"),
            path: String::new(),
        };
        assert!(check(&good).is_ok());
        for owner in ["", "..", "a/b", "a=b", &"a".repeat(41)] {
            assert!(check(&EngineSettings { owner: owner.to_owned(), ..good.clone() }).is_err());
        }
        let relative = EngineSettings { state_dir: PathBuf::from("state"), ..good };
        assert!(check(&relative).is_err());
    }
}
