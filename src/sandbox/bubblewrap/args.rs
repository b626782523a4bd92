//! The command line of `bwrap`: what a sandbox sees, and what it is cut off from.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use super::super::host_folder::{HostFolder, RESOLV_CONF};
use super::super::launcher::{
    AGENT_UID, LAUNCH_ROOT, LAUNCH_SCRIPT, SECCOMP_FD, STATUS_FD, StartsAs,
};
use super::super::spec::SandboxSpec;
use crate::run::NetworkMode;

/// Size of the memory-backed `/dev/shm`, in bytes: what Docker gives. It counts as memory.
const SHM_BYTES: &str = "67108864";

/// Folders of the system that a program needs to start.
const SYSTEM: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"];

/// What of `/etc` a program may need: nothing that names a secret or a person.
const ETC: [&str; 16] = [
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/debian_version",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
];

/// What of `/etc` a program needs to reach other machines.
const ETC_NETWORK: [&str; 3] = ["/etc/hosts", "/etc/resolv.conf", "/etc/gai.conf"];

/// The flag by which a process of ours is known: with it no person calls `bwrap` on our folders.
pub(super) const STATUS_FLAG: &str = "--json-status-fd";

/// Where the made-up files of `/etc` lie in the host folder's `launch`.
pub(super) const PASSWD: &str = "passwd";
/// See [`PASSWD`].
pub(super) const GROUP: &str = "group";

/// See [`PASSWD`].
pub(super) const HOSTS: &str = "hosts";

/// The machines that a sandbox without network knows: itself.
pub(super) const OWN_HOSTS: &str = "127.0.0.1 localhost sandbox\n::1 localhost\n";

/// The users that a sandbox knows.
pub(super) fn passwd() -> String {
    format!(
        "root:x:0:0:root:/:/bin/sh\n\
         agent:x:{AGENT_UID}:{AGENT_UID}:agent:/home/agent:/bin/sh\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    )
}

/// The groups that a sandbox knows.
pub(super) fn group() -> String {
    format!("root:x:0:\nagent:x:{AGENT_UID}:\nnogroup:x:65534:\n")
}

/// The arguments of `bwrap`, without the program itself.
pub(super) fn arguments(
    spec: &SandboxSpec,
    folder: &HostFolder,
    starts_as: StartsAs,
) -> Vec<OsString> {
    let mut args = Args::default();
    args.privileges(starts_as);
    args.add(["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]);
    args.add(["--hostname", "sandbox", "--new-session"]);
    if spec.network != NetworkMode::Open {
        args.add(["--unshare-net"]);
    }
    args.system();
    let launch = folder.root().join("launch");
    match spec.network {
        NetworkMode::None | NetworkMode::Allowlist | NetworkMode::Public => {
            args.bind("--ro-bind", &launch.join(HOSTS), "/etc/hosts");
            args.bind("--ro-bind", &launch.join(RESOLV_CONF), "/etc/resolv.conf");
        }
        NetworkMode::Open => args.bind_all(&ETC_NETWORK),
    }
    args.bind("--ro-bind", &launch.join(PASSWD), "/etc/passwd");
    args.bind("--ro-bind", &launch.join(GROUP), "/etc/group");
    args.add(["--proc", "/proc", "--dev", "/dev"]);
    args.add(["--perms", "1777", "--size", SHM_BYTES, "--tmpfs", "/dev/shm"]);
    for (host, inside, writable) in folder.binds() {
        args.bind(if writable { "--bind" } else { "--ro-bind" }, &host, inside);
    }
    for mount in &spec.mounts {
        args.bind("--ro-bind", &mount.host, &mount.inside);
    }
    // After everything that must be made in them.
    args.add(["--remount-ro", "/dev", "--remount-ro", "/"]);
    args.add(["--chdir", "/", "--seccomp", &SECCOMP_FD.to_string()]);
    args.add([STATUS_FLAG, &STATUS_FD.to_string()]);
    args.add(["--", "/bin/sh", &format!("{LAUNCH_ROOT}/{LAUNCH_SCRIPT}")]);
    args.list
}

/// The arguments for an empty sandbox: whether this kernel and this user may make one at all.
pub(super) fn probe(starts_as: StartsAs) -> Vec<OsString> {
    let mut args = Args::default();
    args.privileges(starts_as);
    args.add(["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net"]);
    // What a real one sees: the whole of `/` has mounts of others, and one that goes meanwhile is an
    // error.
    args.system();
    args.add(["--proc", "/proc", "--dev", "/dev", "--", "/bin/true"]);
    args.list
}

#[derive(Default)]
struct Args {
    list: Vec<OsString>,
    /// Folders inside that are made already.
    made: BTreeSet<PathBuf>,
}

impl Args {
    fn add<const N: usize>(&mut self, args: [impl Into<OsString>; N]) {
        self.list.extend(args.map(Into::into));
    }

    fn bind(&mut self, how: &str, host: &Path, inside: &str) {
        let mut above: Vec<&Path> = Path::new(inside).ancestors().skip(1).collect();
        // The root is there.
        above.pop();
        for folder in above.into_iter().rev() {
            // Left to itself `bwrap` makes folders that only root may enter.
            if self.made.insert(folder.to_owned()) {
                self.add([
                    OsStr::new("--perms"),
                    "0755".as_ref(),
                    "--dir".as_ref(),
                    folder.as_ref(),
                ]);
            }
        }
        self.add([OsString::from(how), host.into(), inside.into()]);
    }

    /// Root keeps what `setpriv` needs to give the rest away. Anybody else needs a user namespace,
    /// where the daemon's user is the agent and has no capability.
    fn privileges(&mut self, starts_as: StartsAs) {
        match starts_as {
            StartsAs::Root => {
                self.add(["--cap-drop", "ALL"]);
                for capability in ["CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"] {
                    self.add(["--cap-add", capability]);
                }
            }
            StartsAs::Agent => {
                let agent = AGENT_UID.to_string();
                self.add(["--unshare-user", "--uid", &agent, "--gid", &agent]);
            }
        }
    }

    fn system(&mut self) {
        for path in SYSTEM {
            // A link on the host (most have merged /usr) stays one inside.
            match fs::read_link(path) {
                Ok(target) => self.add([OsString::from("--symlink"), target.into(), path.into()]),
                Err(_) if Path::new(path).is_dir() => self.bind("--ro-bind", Path::new(path), path),
                Err(_) => {}
            }
        }
        self.bind_all(&ETC);
    }

    fn bind_all(&mut self, paths: &[&str]) {
        for path in paths {
            self.bind("--ro-bind-try", Path::new(path), path);
        }
    }
}
