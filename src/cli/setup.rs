//! `--setup`: installs Bubblewrap through the system's package manager, after asking.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::Command;

/// What kept the set-up from being done.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetupError {
    /// None of the package managers that we know is here.
    #[error(
        "no known package manager was found ({}): install `bubblewrap` or Docker by hand",
        MANAGERS.map(|manager| manager.program).join(", ")
    )]
    NoManager,
    /// Installing needs root, and neither this process has it nor is there `sudo`.
    #[error("installing needs root: start again as root, or run `{command}` yourself")]
    NotRoot {
        /// The command that would install it.
        command: String,
    },
    /// Nobody is there to be asked.
    #[error("there is no terminal to ask on: add `--yes` to let this run `{command}`")]
    NobodyToAsk {
        /// The command that would install it.
        command: String,
    },
    /// The person said no.
    #[error("nothing was installed; `{command}` would do it")]
    Declined {
        /// The command that would install it.
        command: String,
    },
    /// The package manager could not be started.
    #[error("could not start `{command}`")]
    Start {
        /// The command.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// The package manager failed. Its own words stand above.
    #[error("`{command}` failed: read its words above")]
    Failed {
        /// The command.
        command: String,
    },
}

/// A package manager and how it installs Bubblewrap without asking again.
struct Manager {
    program: &'static str,
    /// Refreshes the list of packages first, where the manager does not do so itself.
    refresh: Option<&'static [&'static str]>,
    install: &'static [&'static str],
}

const MANAGERS: [Manager; 5] = [
    Manager {
        program: "apt-get",
        refresh: Some(&["update", "-qq"]),
        install: &["install", "-y", "-qq", "--no-install-recommends", "bubblewrap"],
    },
    Manager { program: "dnf", refresh: None, install: &["install", "-y", "-q", "bubblewrap"] },
    Manager {
        program: "pacman",
        refresh: None,
        install: &["-Sy", "--noconfirm", "--needed", "bubblewrap"],
    },
    Manager {
        program: "zypper",
        refresh: None,
        install: &["--non-interactive", "install", "bubblewrap"],
    },
    Manager { program: "apk", refresh: None, install: &["add", "--quiet", "bubblewrap"] },
];

/// Whether the person has agreed beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consent {
    /// `--yes` was given.
    Given,
    /// A person on a terminal is asked.
    Ask,
}

/// Installs Bubblewrap.
///
/// # Errors
/// [`SetupError`], each saying what to do by hand.
pub(super) fn install_bubblewrap(consent: Consent, path: &str) -> Result<(), SetupError> {
    let find =
        |program: &str| std::env::split_paths(path).any(|dir| is_program(&dir.join(program)));
    let manager = MANAGERS.iter().find(|manager| find(manager.program));
    let manager = manager.ok_or(SetupError::NoManager)?;
    let is_root = rustix::process::geteuid().is_root();
    let prefix: &[&str] = if is_root { &[] } else { &["sudo"] };
    let command = shown(prefix, manager.program, manager.install);
    if !is_root && !find("sudo") {
        return Err(SetupError::NotRoot { command });
    }
    if consent == Consent::Ask {
        ask(&command)?;
    }
    for args in manager.refresh.into_iter().chain([manager.install]) {
        run(prefix, manager.program, args)?;
    }
    Ok(())
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

fn shown(prefix: &[&str], program: &str, args: &[&str]) -> String {
    [prefix, &[program], args].concat().join(" ")
}

fn ask(command: &str) -> Result<(), SetupError> {
    let nobody = || SetupError::NobodyToAsk { command: command.to_owned() };
    let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Err(nobody());
    }
    write!(stderr, "No sandbox engine is here. Run `{command}`? [y/N] ").map_err(|_| nobody())?;
    stderr.flush().map_err(|_| nobody())?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer).map_err(|_| nobody())?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(SetupError::Declined { command: command.to_owned() })
    }
}

/// Runs a command; what it prints goes to standard error, because ours is for results.
fn run(prefix: &[&str], program: &str, args: &[&str]) -> Result<(), SetupError> {
    let command = shown(prefix, program, args);
    let words = [prefix, &[program], args].concat();
    let status = Command::new(words[0])
        .args(&words[1..])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(std::process::Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(|source| SetupError::Start { command: command.clone(), source })?;
    if status.success() { Ok(()) } else { Err(SetupError::Failed { command }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_package_manager_the_person_is_told_what_to_install() {
        let empty = tempfile::tempdir().unwrap();
        let error = install_bubblewrap(Consent::Given, empty.path().to_str().unwrap()).unwrap_err();
        assert!(matches!(error, SetupError::NoManager));
        assert!(error.to_string().contains("install `bubblewrap` or Docker by hand"), "{error}");
    }

    #[test]
    fn a_failing_package_manager_is_an_error_with_its_command() {
        let error = run(&[], "false", &["install", "bubblewrap"]).unwrap_err();
        assert_eq!(error.to_string(), "`false install bubblewrap` failed: read its words above");
    }
}
