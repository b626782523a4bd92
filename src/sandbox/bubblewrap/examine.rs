//! Whether Bubblewrap can make sandboxes here, or which setting of the kernel keeps it from it.

use std::fs;
use std::path::Path;

use super::super::examine::{Look, Ready, Standing};
use super::super::host_folder::EngineKind;
use super::super::settings::EngineSettings;
use super::{Bubblewrap, USUAL_PATH, find_program};
use crate::run::Check;

/// The engine itself.
pub(in super::super) const CHECK: &str = "bubblewrap";
const NAMESPACES: &str = "user-namespaces";
const PROGRAMS: &str = "programs";

/// Where the kernel's settings are read.
const SYSCTL: &str = "/proc/sys";

/// A setting of the kernel that can keep a user from making namespaces.
struct Barrier {
    /// Its file below [`SYSCTL`].
    file: &'static str,
    /// The value that forbids.
    forbids: &'static str,
    /// The command that allows it until the machine starts again.
    command: &'static str,
}

const BARRIERS: [Barrier; 3] = [
    Barrier {
        file: "user/max_user_namespaces",
        forbids: "0",
        command: "sudo sysctl -w user.max_user_namespaces=15000",
    },
    Barrier {
        file: "kernel/unprivileged_userns_clone",
        forbids: "0",
        command: "sudo sysctl -w kernel.unprivileged_userns_clone=1",
    },
    // Ubuntu since 23.10.
    Barrier {
        file: "kernel/apparmor_restrict_unprivileged_userns",
        forbids: "1",
        command: "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    },
];

/// Makes an empty sandbox, and looks at what it needs.
pub(in super::super) async fn examine(settings: &EngineSettings) -> Look {
    let standing = Standing::find();
    let connected =
        Bubblewrap::connect(&settings.path, &settings.cgroup_root, &settings.owner).await;
    let works = connected.is_ok();
    let barriers = barriers(Path::new(SYSCTL));
    let program = find_program(&settings.path, "bwrap");
    let check = match &connected {
        Ok(engine) => Check::ok(
            CHECK,
            format!("{} at {} makes sandboxes", engine.version, engine.program.display()),
        ),
        Err(reason) if program.is_none() => Check::problem(
            CHECK,
            reason,
            "runbookd demo --setup (or install the package `bubblewrap` yourself)",
        ),
        Err(reason) => Check::problem(CHECK, reason, mend(reason, &barriers, standing)),
    };
    let checks = vec![check, namespaces(works, &barriers, standing), programs(standing)];
    let ready = connected.ok().map(|engine| Ready {
        kind: EngineKind::Bubblewrap,
        unlimited: engine.cgroups.unenforced().to_vec(),
        version: engine.version,
        unenforced: engine.unenforced,
        mend_limits: mend_limits(standing),
    });
    Look { checks, ready }
}

/// Those barriers that stand, with their setting as `sysctl` shows it.
fn barriers(sysctl: &Path) -> Vec<(String, &'static str)> {
    let stands = |barrier: &&Barrier| {
        fs::read_to_string(sysctl.join(barrier.file)).is_ok_and(|v| v.trim() == barrier.forbids)
    };
    let shown = |b: &Barrier| (format!("{}={}", b.file.replace('/', "."), b.forbids), b.command);
    BARRIERS.iter().filter(stands).map(shown).collect()
}

/// What to do where `bwrap` is there and makes no sandbox.
fn mend(reason: &str, barriers: &[(String, &'static str)], standing: Standing) -> String {
    if reason.contains("setpriv") {
        return "Install the package `util-linux`, which holds `setpriv`.".to_owned();
    }
    if standing.is_contained {
        return "This is a container that may not make namespaces: start it with `--privileged`, or with `--cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined`."
            .to_owned();
    }
    if !standing.is_root && !barriers.is_empty() {
        return "See `user-namespaces` below.".to_owned();
    }
    if !standing.is_root {
        return "Start runbookd as root, or use Docker; `bwrap --ro-bind / / true` shows what is refused."
            .to_owned();
    }
    "See what `bwrap --ro-bind / / true` says, or use Docker.".to_owned()
}

/// Whether a user may make namespaces. Root needs no such right.
fn namespaces(works: bool, barriers: &[(String, &'static str)], standing: Standing) -> Check {
    if standing.is_root {
        return Check::skipped(NAMESPACES, "root needs none");
    }
    if barriers.is_empty() {
        return Check::ok(NAMESPACES, "no setting of the kernel forbids them");
    }
    let (settings, commands): (Vec<&str>, Vec<&str>) =
        barriers.iter().map(|(setting, command)| (setting.as_str(), *command)).unzip();
    let settings = settings.join(", ");
    if works {
        return Check::ok(NAMESPACES, format!("{settings}, and `bwrap` is let through"));
    }
    Check::problem(
        NAMESPACES,
        format!("the kernel forbids them ({settings})"),
        format!(
            "{} (for good: the same setting in /etc/sysctl.d/60-runbookd.conf); or use Docker.",
            commands.join("; ")
        ),
    )
}

/// The programs that start an agent. `setpriv` is run in the sandbox, which sees the usual folders.
fn programs(standing: Standing) -> Check {
    let needed: &[&str] = if standing.is_root { &["sh", "setpriv"] } else { &["sh"] };
    let missing: Vec<&str> = needed
        .iter()
        .copied()
        .filter(|program| find_program(USUAL_PATH, program).is_none())
        .collect();
    if missing.is_empty() {
        return Check::ok(PROGRAMS, format!("{} for Bubblewrap's launcher", needed.join(", ")));
    }
    Check::problem(
        PROGRAMS,
        format!("not in {USUAL_PATH}: {}", missing.join(", ")),
        "Install the packages `util-linux` (setpriv) and `dash` (sh).",
    )
}

fn mend_limits(standing: Standing) -> String {
    if standing.is_root && standing.is_contained {
        return "Start this container with `--privileged --cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup:rw`, or use Docker."
            .to_owned();
    }
    if !standing.is_root {
        return "Start runbookd as root, or use Docker, whose daemon has the right to limit."
            .to_owned();
    }
    "See to it that /sys/fs/cgroup can be written and has the controllers memory, pids and cpu (`cat /sys/fs/cgroup/cgroup.controllers`)."
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::CheckStatus;

    const USER: Standing = Standing { is_root: false, is_contained: false };

    #[test]
    fn the_settings_that_forbid_are_named_with_the_command_that_allows() {
        let sysctl = tempfile::tempdir().unwrap();
        for folder in ["user", "kernel"] {
            fs::create_dir(sysctl.path().join(folder)).unwrap();
        }
        assert!(barriers(sysctl.path()).is_empty(), "a setting that is not there forbids nothing");
        let write = |file, value| fs::write(sysctl.path().join(file), value).unwrap();
        write("user/max_user_namespaces", "63000\n");
        write("kernel/unprivileged_userns_clone", "1\n");
        write("kernel/apparmor_restrict_unprivileged_userns", "1\n");
        let standing = barriers(sysctl.path());
        let setting = "kernel.apparmor_restrict_unprivileged_userns";
        assert_eq!(
            standing,
            [(
                format!("{setting}=1"),
                "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
            )]
        );
        assert_eq!(namespaces(true, &standing, USER).status, CheckStatus::Ok);
        let refused = namespaces(false, &standing, USER);
        assert_eq!(refused.status, CheckStatus::Problem);
        assert!(refused.mend.unwrap().starts_with(&format!("sudo sysctl -w {setting}=0")));
        let root = Standing { is_root: true, ..USER };
        assert_eq!(namespaces(false, &standing, root).status, CheckStatus::Skipped);
        write("user/max_user_namespaces", "0\n");
        write("kernel/unprivileged_userns_clone", "0\n");
        assert_eq!(barriers(sysctl.path()).len(), 3);
    }

    #[test]
    fn a_container_is_told_apart_from_a_machine() {
        let contained = Standing { is_root: true, is_contained: true };
        assert!(mend("no permission", &[], contained).contains("--privileged"));
        assert!(mend("needs `setpriv`", &[], contained).contains("util-linux"));
        assert!(!mend("no permission", &[], USER).contains("container"));
    }
}
