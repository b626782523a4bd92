//! Which engine a run would get on this machine, what each lacks, and what would mend it. Nothing
//! is made but an empty sandbox and an empty control group, which are gone again.

use super::engine::unenforced_by;
use super::host_folder::EngineKind;
use super::settings::{EngineChoice, EngineSettings};
use super::{bubblewrap, docker};
use crate::run::{Check, CheckStatus};

pub(super) const ENGINE: &str = "engine";
pub(super) const CONTROL_GROUPS: &str = "control-groups";

/// What was seen of one engine.
pub(super) struct Look {
    /// What was looked at. The first is the engine itself.
    pub(super) checks: Vec<Check>,
    /// The engine, where it can make sandboxes.
    pub(super) ready: Option<Ready>,
}

/// An engine that can make sandboxes.
pub(super) struct Ready {
    pub(super) kind: EngineKind,
    pub(super) version: String,
    /// What it does not enforce here.
    pub(super) unenforced: Vec<String>,
    /// Of that, what its control groups do not limit, and what would mend it.
    pub(super) unlimited: Vec<String>,
    pub(super) mend_limits: String,
}

/// Looks at the engines that `choice` could take.
pub async fn examine(choice: EngineChoice, settings: &EngineSettings) -> Vec<Check> {
    let (docker, bubblewrap) = match choice {
        EngineChoice::Auto => {
            let (docker, bubblewrap) =
                tokio::join!(docker::examine(settings), bubblewrap::examine(settings));
            (Some(docker), Some(bubblewrap))
        }
        EngineChoice::Docker => (Some(docker::examine(settings).await), None),
        EngineChoice::Bubblewrap => (None, Some(bubblewrap::examine(settings).await)),
    };
    judge(choice, docker, bubblewrap)
}

fn judge(choice: EngineChoice, docker: Option<Look>, bubblewrap: Option<Look>) -> Vec<Check> {
    let (docker, docker_checks) = parts(docker, choice, docker::CHECK);
    let (bubblewrap, bubblewrap_checks) = parts(bubblewrap, choice, bubblewrap::CHECK);
    // Docker is what `image:` in a runbook needs; without Bubblewrap nothing is missed.
    let spare_docker = bubblewrap.is_some().then_some(CheckStatus::Warning);
    let spare_bubblewrap = docker.is_some().then_some(CheckStatus::Skipped);
    let taken = docker.or(bubblewrap);
    let mut checks = taken_checks(choice, taken.as_ref());
    let spared = |checks: Vec<Check>, status: Option<CheckStatus>| {
        checks.into_iter().map(move |check| match status {
            Some(status) => check.spared(status),
            None => check,
        })
    };
    checks.extend(spared(docker_checks, spare_docker));
    checks.extend(spared(bubblewrap_checks, spare_bubblewrap));
    checks
}

fn parts(
    look: Option<Look>,
    choice: EngineChoice,
    name: &'static str,
) -> (Option<Ready>, Vec<Check>) {
    match look {
        Some(look) => (look.ready, look.checks),
        None => (
            None,
            vec![Check::skipped(name, format!("not looked at: the engine asked for is {choice}"))],
        ),
    }
}

/// The checks of the engine that a run would get.
fn taken_checks(choice: EngineChoice, taken: Option<&Ready>) -> Vec<Check> {
    let Some(taken) = taken else {
        let mend = match choice {
            EngineChoice::Auto => {
                "Mend `docker` or `bubblewrap` below; `runbookd demo --setup` installs Bubblewrap."
            }
            EngineChoice::Docker => "Mend `docker` below, or write `--engine auto`.",
            EngineChoice::Bubblewrap => "Mend `bubblewrap` below, or write `--engine auto`.",
        };
        return vec![
            Check::problem(ENGINE, "no engine is ready", mend),
            Check::skipped(CONTROL_GROUPS, "there is no engine to limit"),
        ];
    };
    let why = match choice {
        EngineChoice::Auto => "auto takes",
        EngineChoice::Docker | EngineChoice::Bubblewrap => "asked for by name:",
    };
    let mut notes = unenforced_by(taken.kind, &taken.unenforced);
    notes.retain(|note| !taken.unlimited.contains(note));
    let engine = Check::ok(ENGINE, format!("{why} {} {}", taken.kind, taken.version)).noting(notes);
    let groups = if taken.unlimited.is_empty() {
        Check::ok(CONTROL_GROUPS, "memory, processors and processes of a sandbox are limited")
    } else {
        Check::warning(CONTROL_GROUPS, taken.unlimited.join(" "), taken.mend_limits.clone())
    };
    vec![engine, groups]
}

/// How this process meets the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) is_root: bool,
    /// It runs in a container itself.
    pub(super) is_contained: bool,
}

impl Standing {
    pub(super) fn find() -> Self {
        let marks = ["/.dockerenv", "/run/.containerenv"];
        Self {
            is_root: rustix::process::geteuid().is_root(),
            is_contained: marks.iter().any(|mark| std::path::Path::new(mark).exists()),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn look(name: &'static str, kind: EngineKind, is_ready: bool) -> Look {
        let ready = || Ready {
            kind,
            version: "1.0".to_owned(),
            unenforced: vec![],
            unlimited: vec![],
            mend_limits: String::new(),
        };
        let check =
            if is_ready { Check::ok(name, "works") } else { Check::problem(name, "down", "start") };
        Look { checks: vec![check], ready: is_ready.then(ready) }
    }

    #[test]
    fn what_an_engine_lacks_matters_only_where_a_run_needs_it() {
        let mut text = String::new();
        for (docker, bubblewrap) in [(true, true), (true, false), (false, true), (false, false)] {
            let checks = judge(
                EngineChoice::Auto,
                Some(look(docker::CHECK, EngineKind::Docker, docker)),
                Some(look(bubblewrap::CHECK, EngineKind::Bubblewrap, bubblewrap)),
            );
            let lines = checks.iter().map(|c| format!("{} {:?}; ", c.name, c.status));
            text.push_str(&format!("{} => {}\n", lines.collect::<String>(), checks[0].found));
        }
        let named =
            judge(EngineChoice::Docker, Some(look(docker::CHECK, EngineKind::Docker, false)), None);
        text.extend(named.iter().map(|c| format!("{} {:?}: {}\n", c.name, c.status, c.found)));
        expect![[r#"
            engine Ok; control-groups Ok; docker Ok; bubblewrap Ok;  => auto takes docker 1.0
            engine Ok; control-groups Ok; docker Ok; bubblewrap Skipped;  => auto takes docker 1.0
            engine Ok; control-groups Ok; docker Warning; bubblewrap Ok;  => auto takes bubblewrap 1.0
            engine Problem; control-groups Skipped; docker Problem; bubblewrap Problem;  => no engine is ready
            engine Problem: no engine is ready
            control-groups Skipped: there is no engine to limit
            docker Problem: down
            bubblewrap Skipped: not looked at: the engine asked for is docker
        "#]]
        .assert_eq(&text);
    }
}
