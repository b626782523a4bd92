//! What a sandbox shall be: its id, its mounts, its files, its agent, its limits.

use std::fmt;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::relay::RELAY_ROOT;
use crate::run::NetworkMode;
use crate::secret::Secret;

/// Where read-only files are staged.
pub const STAGED_ROOT: &str = "/run/runbookd/in";

/// Where the socket of the proxy is, where that is the way out.
pub const EGRESS_SOCKET: &str = "/run/runbookd/model/egress.sock";

/// The home of the agent's user.
pub const AGENT_HOME: &str = "/home/agent";

/// The folders that the agent may write, and the name of each inside the host folder.
pub(super) const WRITABLE_ROOTS: [(&str, &str); 4] =
    [("/app", "app"), ("/logs", "logs"), ("/tmp", "tmp"), (AGENT_HOME, "home")];

/// Longest sandbox id, in bytes. It becomes part of a container name, a cgroup and a folder.
const MAX_ID_BYTES: usize = 63;

/// The name of one sandbox, unique on this machine for its owner.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxId(String);

impl SandboxId {
    /// Checks a name.
    ///
    /// # Errors
    /// [`InvalidSpec::Id`] when it is not 1 to 63 of `a-z`, `0-9` and inner `-`.
    pub fn new(id: &str) -> Result<Self, InvalidSpec> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let whole = !id.is_empty()
            && id.len() <= MAX_ID_BYTES
            && id.bytes().all(legal)
            && !id.starts_with('-')
            && !id.ends_with('-');
        if whole { Ok(Self(id.to_owned())) } else { Err(InvalidSpec::Id { id: id.to_owned() }) }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that is decided about a sandbox before it is made.
#[derive(Debug)]
pub struct SandboxSpec {
    /// Its name.
    pub id: SandboxId,
    /// The run that it belongs to; a label for people.
    pub run: String,
    /// The container image. Docker only; `None` is the engine's default.
    pub image: Option<String>,
    /// Host files, folders and sockets to show inside, read-only.
    pub mounts: Vec<Mount>,
    /// Files to copy in before the start.
    pub files: Vec<StagedFile>,
    /// What runs before the agent, if anything.
    pub setup: Option<Setup>,
    /// What the agent reads on its standard input.
    pub stdin: Vec<u8>,
    /// The agent's program and arguments. Visible to others on the host: never a secret.
    pub argv: Vec<String>,
    /// The agent's environment, on top of the image's own, `HOME`, `USER` and `LOGNAME`.
    pub env: Vec<(String, Secret)>,
    /// Where the agent starts.
    pub cwd: String,
    /// How much the sandbox may take.
    pub limits: SandboxLimits,
    /// What it can reach. Where the way out is a proxy, its socket must be mounted at
    /// [`EGRESS_SOCKET`].
    pub network: NetworkMode,
}

/// A shell script that runs before the agent, as the agent's user and where the agent starts. The
/// agent starts only when it has ended with exit code 0; else the sandbox ends with its code.
#[derive(Debug)]
pub struct Setup {
    /// The script. `bash -e` reads it, or `sh -e` where there is no bash.
    pub script: String,
    /// Its environment, on top of the image's own, `HOME`, `USER` and `LOGNAME`.
    pub env: Vec<(String, Secret)>,
}

/// A host file, folder or unix socket that is shown inside, read-only.
///
/// The agent has a user of its own, so what it shall read must be readable by everybody, and a
/// socket writable by everybody; a private parent folder on the host keeps others away. A folder
/// that holds a socket survives that the socket is made anew, the socket itself does not.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Where it lies on the host.
    pub host: PathBuf,
    /// Where it is seen inside.
    pub inside: String,
}

/// A file that is copied in before the start.
#[derive(Debug)]
pub struct StagedFile {
    /// Where it is seen inside: below [`STAGED_ROOT`] when read-only, below `/app`, `/logs`,
    /// `/tmp` or the agent's home when writable.
    pub inside: String,
    /// What is in it.
    pub source: Source,
    /// What the agent may do with it.
    pub access: Access,
}

/// Where a staged file's bytes come from.
#[derive(Debug)]
pub enum Source {
    /// From here.
    Bytes(Vec<u8>),
    /// Copied from a regular file of the host.
    HostFile(PathBuf),
}

/// What the agent may do with a staged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    ReadOnly,
    /// Change and remove it.
    Writable,
}

/// How much a sandbox may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SandboxLimits {
    /// Memory of all its processes, in bytes; swap is not given on top.
    pub memory_bytes: u64,
    /// Processors, as a share: 2.0 is two whole ones.
    pub n_cpus: f64,
    /// Processes and threads at once.
    pub n_pids: u32,
    /// Largest single file that a process of it can write, the standard output included.
    pub file_bytes: u64,
}

/// A specification that contradicts itself or the engine.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpec {
    /// The id is not usable.
    #[error("`{id}` is not a sandbox id: use 1 to {MAX_ID_BYTES} of a-z, 0-9 and inner hyphens")]
    Id {
        /// The id as it was given.
        id: String,
    },
    /// There is no program to start.
    #[error("the agent's command is empty")]
    NoCommand,
    /// A zero byte cannot be passed on.
    #[error("{what} holds a zero byte")]
    ZeroByte {
        /// An argument, the setup script, or a variable's name.
        what: String,
    },
    /// The name of an environment variable is not usable.
    #[error("`{name}` is not the name of an environment variable: use letters, digits and `_`")]
    Variable {
        /// The name.
        name: String,
    },
    /// A path inside is not absolute and plain.
    #[error("`{path}` is not a path inside a sandbox: it must be absolute, without `.` and `..`")]
    Inside {
        /// The path.
        path: String,
    },
    /// A path inside belongs to the system or to the engine.
    #[error("`{path}` cannot be mounted: the folder belongs to the system or to the agent")]
    TakenPath {
        /// The path.
        path: String,
    },
    /// A file lies where its access is not given.
    #[error("`{path}` must lie below {roots}")]
    Misplaced {
        /// The path.
        path: String,
        /// The folders that would do.
        roots: &'static str,
    },
    /// What should be mounted is not there.
    #[error("{} cannot be mounted: it is not there, or its folder cannot be read", path.display())]
    NoSource {
        /// The host path.
        path: PathBuf,
    },
    /// The agent could not connect to a socket that is mounted.
    #[error(
        "the agent could not connect to the socket {}: give it mode 0666 in a private folder",
        path.display()
    )]
    ClosedSocket {
        /// The host path.
        path: PathBuf,
    },
    /// A limit is zero or beyond what the kernel takes.
    #[error("the limit `{limit}` is out of range")]
    Limit {
        /// Its name.
        limit: &'static str,
    },
    /// Bubblewrap has no images.
    #[error(
        "the runbook names the image `{image}`, and Bubblewrap has no images: use the Docker engine, or leave the image out"
    )]
    ImageWithoutDocker {
        /// The image.
        image: String,
    },
}

impl SandboxSpec {
    /// Finds what no engine could do.
    pub(super) fn check(&self) -> Result<(), InvalidSpec> {
        if self.argv.first().is_none_or(String::is_empty) {
            return Err(InvalidSpec::NoCommand);
        }
        if self.argv.iter().any(|argument| argument.contains('\0')) {
            return Err(InvalidSpec::ZeroByte { what: "an argument".to_owned() });
        }
        let setup = self.setup.as_ref();
        if setup.is_some_and(|setup| setup.script.contains('\0')) {
            return Err(InvalidSpec::ZeroByte { what: "the setup script".to_owned() });
        }
        let setup_env = setup.map_or(&[][..], |setup| &setup.env);
        for (name, value) in self.env.iter().chain(setup_env) {
            check_variable(name, value)?;
        }
        check_inside(&self.cwd)?;
        self.mounts.iter().try_for_each(check_mount)?;
        self.files.iter().try_for_each(check_file)?;
        self.limits.check()
    }
}

impl SandboxLimits {
    fn check(&self) -> Result<(), InvalidSpec> {
        let in_range = [
            ("memory_bytes", self.memory_bytes > 0 && i64::try_from(self.memory_bytes).is_ok()),
            ("n_cpus", self.n_cpus.is_finite() && (0.01..=4096.0).contains(&self.n_cpus)),
            ("n_pids", self.n_pids > 0),
            ("file_bytes", self.file_bytes >= 512 && i64::try_from(self.file_bytes).is_ok()),
        ];
        match in_range.into_iter().find(|(_, fits)| !fits) {
            Some((limit, _)) => Err(InvalidSpec::Limit { limit }),
            None => Ok(()),
        }
    }
}

fn check_variable(name: &str, value: &Secret) -> Result<(), InvalidSpec> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let whole = name.bytes().all(legal) && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if !whole {
        return Err(InvalidSpec::Variable { name: name.to_owned() });
    }
    if value.expose().contains('\0') {
        return Err(InvalidSpec::ZeroByte { what: name.to_owned() });
    }
    Ok(())
}

/// An absolute path whose every segment is plain.
fn check_inside(path: &str) -> Result<(), InvalidSpec> {
    let plain = |segment: &str| !matches!(segment, "" | "." | "..") && !segment.contains('\0');
    match path.strip_prefix('/') {
        Some(rest) if rest.split('/').all(plain) => Ok(()),
        Some(_) | None => Err(InvalidSpec::Inside { path: path.to_owned() }),
    }
}

fn check_mount(mount: &Mount) -> Result<(), InvalidSpec> {
    check_inside(&mount.inside)?;
    let ours = WRITABLE_ROOTS.iter().map(|(inside, _)| *inside);
    let taken = ours.chain(["/proc", "/sys", "/dev", "/usr", "/bin", "/sbin", "/lib", "/lib64"]);
    let covers = |root: &str| is_within(&mount.inside, root) || is_within(root, &mount.inside);
    let private = ["/run/runbookd/in", "/run/runbookd/out", "/run/runbookd/launch", RELAY_ROOT];
    if taken.chain(private).any(covers) {
        return Err(InvalidSpec::TakenPath { path: mount.inside.clone() });
    }
    let no_source = || InvalidSpec::NoSource { path: mount.host.clone() };
    if !mount.host.is_absolute() {
        return Err(no_source());
    }
    let metadata = std::fs::metadata(&mount.host).map_err(|_| no_source())?;
    let open_to_all = metadata.permissions().mode() & 0o002 != 0;
    if metadata.file_type().is_socket() && !open_to_all {
        return Err(InvalidSpec::ClosedSocket { path: mount.host.clone() });
    }
    Ok(())
}

fn check_file(file: &StagedFile) -> Result<(), InvalidSpec> {
    check_inside(&file.inside)?;
    let (fits, roots) = match file.access {
        Access::ReadOnly => (below(&file.inside, STAGED_ROOT).is_some(), STAGED_ROOT),
        Access::Writable => {
            (writable_place(&file.inside).is_some(), "/app, /logs, /tmp or /home/agent")
        }
    };
    if fits { Ok(()) } else { Err(InvalidSpec::Misplaced { path: file.inside.clone(), roots }) }
}

/// The rest of `path` below `root`, or `None` when it is elsewhere or the root itself.
pub(super) fn below<'p>(path: &'p str, root: &str) -> Option<&'p str> {
    path.strip_prefix(root)?.strip_prefix('/')
}

/// The folder of the host folder that holds a writable path, and the rest of the path.
pub(super) fn writable_place(path: &str) -> Option<(&'static str, &str)> {
    WRITABLE_ROOTS.iter().find_map(|(inside, name)| Some((*name, below(path, inside)?)))
}

fn is_within(path: &str, root: &str) -> bool {
    path == root || below(path, root).is_some()
}

/// A signal for the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentSignal {
    /// SIGINT: stop what you do.
    Interrupt,
    /// SIGTERM: end yourself.
    Terminate,
    /// SIGKILL to the agent, and with it to all that runs beside it.
    Kill,
}

/// How the agent ended. Part of what the worker saves of a run's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code; 128 + n where signal n ended it. (Both engines report it so. A program that
    /// catches the signal and exits with that code by itself looks the same.)
    pub code: i32,
    /// The kernel killed something in the sandbox because its memory was used up.
    pub oom_killed: bool,
}

impl Exit {
    /// The signal that ended the agent, read from the exit code.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        (129..=192).contains(&self.code).then(|| self.code - 128)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_harmless_word() {
        for id in ["a", "run-1", "0f3a9c2e-1"] {
            assert!(SandboxId::new(id).is_ok(), "{id:?}");
        }
        let long = "a".repeat(MAX_ID_BYTES + 1);
        for id in ["", "-a", "a-", "A", "a/b", "..", "a b", "a.b", long.as_str()] {
            assert_eq!(SandboxId::new(id), Err(InvalidSpec::Id { id: id.to_owned() }));
        }
    }

    #[test]
    fn a_path_inside_is_absolute_and_plain() {
        for path in ["/app", "/app/a b/c", "/run/x.sock"] {
            assert_eq!(check_inside(path), Ok(()), "{path:?}");
        }
        for path in ["", "/", "app", "/app/", "/app//x", "/app/../etc", "/./app", "/app/\0"] {
            assert!(check_inside(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_mount_covers_neither_the_system_nor_a_folder_of_the_agent() {
        let check = |inside: &str| {
            check_mount(&Mount { host: PathBuf::from("/"), inside: inside.to_owned() })
        };
        for inside in
            ["/app", "/app/x", "/home", "/proc/1", "/usr/bin/x", "/run", "/run/runbookd/in/x"]
        {
            assert!(matches!(check(inside), Err(InvalidSpec::TakenPath { .. })), "{inside}");
        }
        for inside in ["/opt/runbookd/bin/claude", "/run/api", "/application"] {
            assert_eq!(check(inside), Ok(()), "{inside}");
        }
    }

    #[test]
    fn a_staged_file_lies_where_its_access_is() {
        let check = |inside: &str, access| {
            let source = Source::Bytes(vec![]);
            check_file(&StagedFile { inside: inside.to_owned(), source, access }).is_ok()
        };
        assert!(check("/run/runbookd/in/.mcp.json", Access::ReadOnly));
        assert!(check("/app/assets/a.csv", Access::Writable));
        assert!(!check("/app/assets/a.csv", Access::ReadOnly));
        assert!(!check("/run/runbookd/in/x", Access::Writable));
        assert!(!check("/app", Access::Writable));
        assert!(!check("/application/x", Access::Writable));
    }

    #[test]
    fn a_variable_has_a_name_that_a_shell_takes() {
        let check = |name: &str, value: &str| check_variable(name, &Secret::new(value.to_owned()));
        assert_eq!(check("A_1", "x\ny'z"), Ok(()));
        for name in ["", "1A", "A-B", "A=B", "A B", "Ä"] {
            assert!(matches!(check(name, ""), Err(InvalidSpec::Variable { .. })), "{name}");
        }
        assert!(matches!(check("A", "x\0"), Err(InvalidSpec::ZeroByte { .. })));
    }

    #[test]
    fn a_limit_must_be_a_limit() {
        let good =
            SandboxLimits { memory_bytes: 1 << 28, n_cpus: 0.5, n_pids: 64, file_bytes: 1 << 20 };
        assert_eq!(good.check(), Ok(()));
        for (bad, limit) in [
            (SandboxLimits { memory_bytes: u64::MAX, ..good }, "memory_bytes"),
            (SandboxLimits { n_cpus: f64::NAN, ..good }, "n_cpus"),
            (SandboxLimits { n_pids: 0, ..good }, "n_pids"),
            (SandboxLimits { file_bytes: 511, ..good }, "file_bytes"),
        ] {
            assert_eq!(bad.check(), Err(InvalidSpec::Limit { limit }));
        }
    }

    #[test]
    fn a_signal_is_read_from_the_exit_code() {
        let signal = |code| Exit { code, oom_killed: false }.signal();
        assert_eq!([signal(0), signal(128), signal(137), signal(255)], [None, None, Some(9), None]);
    }
}
