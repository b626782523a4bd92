//! Agents without a model: scripts that speak as the pinned CLI does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::common::Outcome;

/// What an agent does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Agent {
    /// Nothing: its run costs what runbookd costs.
    Noop,
    /// It says what time it is, 200 times in about ten seconds.
    Clock,
    /// It stays until it is stopped.
    Sleeper,
}

impl Agent {
    /// Writes it down as a program.
    pub(crate) fn install(self, folder: &Path) -> Outcome<PathBuf> {
        let work = match self {
            Self::Noop => "",
            Self::Clock => include_str!("clock.sh"),
            Self::Sleeper => include_str!("sleeper.sh"),
        };
        let text = [include_str!("noop.sh"), work, include_str!("end.sh")].concat();
        let path = folder.join("agent");
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }
}
