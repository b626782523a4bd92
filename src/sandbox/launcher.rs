//! The small scripts that start the agent: one with the sandbox's root, one as the agent.
//!
//! The first opens what the agent shall hold and not be able to open (its output), and gives away
//! every privilege. The second sets the environment and becomes the agent: only there, so that a
//! variable like `LD_PRELOAD` meets no privileged program and no value stands in an argument.

use super::relay::{Call, PROXY_ADDRESS, RELAY_UID};
use super::spec::{AGENT_HOME, EGRESS_SOCKET, SandboxSpec, Setup};
use crate::secret::Secret;

/// The agent's user and group. Uncommon on hosts and in images, so that no other process of the
/// machine shares it, and below 65536, so that rootless engines can map it.
pub(super) const AGENT_UID: u32 = 59_999;

/// The agent's user by name.
pub(super) const AGENT_USER: &str = "agent";

/// Where the scripts and the standard input are seen inside.
pub(super) const LAUNCH_ROOT: &str = "/run/runbookd/launch";

/// Where Docker's launcher finds the output files.
pub(super) const OUTPUT_ROOT: &str = "/run/runbookd/out";

/// The first script.
pub(super) const LAUNCH_SCRIPT: &str = "launch.sh";
/// The second script.
pub(super) const AGENT_SCRIPT: &str = "agent.sh";
/// The agent's standard input.
pub(super) const STDIN_FILE: &str = "stdin";
/// The agent's standard output.
pub(super) const STDOUT_FILE: &str = "stdout";
/// The agent's standard error.
pub(super) const STDERR_FILE: &str = "stderr";
/// Written when the launcher hands over to the agent.
pub(super) const LAUNCHED_FILE: &str = "launched";

/// What runs before the agent.
pub(super) const SETUP_SCRIPT: &str = "setup.sh";
/// What the setup script writes.
pub(super) const SETUP_FILE: &str = "setup";

/// Descriptor on which the launcher says that it hands over, and how the setup script ended.
pub(super) const LAUNCHED_FD: u8 = 4;

/// Descriptor of the setup script's output.
pub(super) const SETUP_FD: u8 = 6;

/// What stands before the exit code of the setup script in [`LAUNCHED_FILE`].
pub(super) const SETUP_ENDED: &str = "setup ended ";

/// Descriptor on which `bwrap` writes down what it started and how it ended.
pub(super) const STATUS_FD: u8 = 3;

/// Descriptor from which `bwrap` reads the filter for system calls.
pub(super) const SECCOMP_FD: u8 = 5;

/// The launcher's exit code where it gives up.
const LAUNCH_FAILED: u8 = 125;

/// What the relay says when it listens.
const READY: &str = "ready";

/// Files that one process of a sandbox may hold open. A server or a browser holds some thousand;
/// an engine may allow a billion, which nobody could look through.
const MAX_OPEN: u32 = 65_536;

/// The unit of `ulimit -f` in a POSIX shell.
const ULIMIT_BLOCK_BYTES: u64 = 512;

/// How the launcher comes to the output files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// It opens them in a mount that only root can enter.
    Opened,
    /// It was started with them.
    Inherited,
}

/// Who runs the launcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StartsAs {
    /// Root with a few capabilities: it must give them away.
    Root,
    /// The agent's user already.
    Agent,
}

/// The script that gives privileges away.
pub(super) fn launch_script(
    spec: &SandboxSpec,
    (output, starts_as): (Output, StartsAs),
    relay: Option<Call>,
) -> String {
    let become_agent = become_user(starts_as, AGENT_UID);
    let open_way_out = relay.map(|call| way_out(call, starts_as)).unwrap_or_default();
    let needs_setpriv = match starts_as {
        StartsAs::Root => format!(
            "command -v setpriv >/dev/null || {{\n  \
             echo 'the image has no setpriv: install the package util-linux in it' >&2\n  \
             exit {LAUNCH_FAILED}\n}}\n"
        ),
        StartsAs::Agent => String::new(),
    };
    let open_output = match output {
        Output::Opened => format!(
            "exec >>{OUTPUT_ROOT}/{STDOUT_FILE} 2>>{OUTPUT_ROOT}/{STDERR_FILE} \
             {LAUNCHED_FD}>>{OUTPUT_ROOT}/{LAUNCHED_FILE} {SETUP_FD}>>{OUTPUT_ROOT}/{SETUP_FILE}\n"
        ),
        // Bubblewrap's own: a writer of the first could forge how the agent ended.
        Output::Inherited => format!("exec {STATUS_FD}>&- {SECCOMP_FD}>&-\n"),
    };
    // The agent's script closes them when the setup has ended.
    let close = match spec.setup {
        Some(_) => String::new(),
        None => format!("exec {LAUNCHED_FD}>&- {SETUP_FD}>&-\n"),
    };
    let cwd = quote(&spec.cwd);
    format!(
        "# Opens the agent's files and gives every privilege away.\n\
         set -eu\n\
         umask 022\n\
         {needs_setpriv}\
         {open_way_out}\
         ulimit -c 0\n\
         ulimit -f {blocks}\n\
         for kind in S H; do held=$(ulimit -${{kind}}n); [ $held != unlimited ] && \
         [ $held -le {MAX_OPEN} ] || ulimit -${{kind}}n {MAX_OPEN}; done\n\
         cd {cwd}\n\
         export HOME={AGENT_HOME} USER={AGENT_USER} LOGNAME={AGENT_USER}\n\
         exec <{LAUNCH_ROOT}/{STDIN_FILE}\n\
         {open_output}\
         echo launched >&{LAUNCHED_FD}\n\
         {close}\
         exec {become_agent}/bin/sh {LAUNCH_ROOT}/{AGENT_SCRIPT}\n",
        blocks = spec.limits.file_bytes / ULIMIT_BLOCK_BYTES,
    )
}

/// What stands before a command that a user without any privilege carries out.
fn become_user(starts_as: StartsAs, uid: u32) -> String {
    match starts_as {
        StartsAs::Root => format!(
            "setpriv --reuid {uid} --regid {uid} --clear-groups --no-new-privs --inh-caps=-all \
             --bounding-set=-all -- "
        ),
        StartsAs::Agent => String::new(),
    }
}

/// Starts the relay, and waits until it listens: it says so and lets go of what it is read from, or
/// it ends. Its parent ends at once, so that it belongs to the sandbox's init and not to the agent.
fn way_out(call: Call, starts_as: StartsAs) -> String {
    format!(
        "way_out=$(\n\
         exec </dev/null 2>&1 {STATUS_FD}>&- {LAUNCHED_FD}>&- {SECCOMP_FD}>&- {SETUP_FD}>&-\n\
         unset LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT\n\
         cd /\n\
         {become_relay}{command} relay {PROXY_ADDRESS} {EGRESS_SOCKET} &\n\
         )\n\
         [ \"$way_out\" = {READY} ] || {{\n  \
         echo \"the way out did not open: $way_out\" >&2\n  \
         exit {LAUNCH_FAILED}\n}}\n",
        become_relay = become_user(starts_as, RELAY_UID),
        command = call.command(),
    )
}

/// The script that becomes the agent. It holds the environment's values.
pub(super) fn agent_script(spec: &SandboxSpec) -> String {
    let mut script = "# Sets the agent's environment and becomes the agent.\n".to_owned();
    script.extend(spec.setup.as_ref().map(setup_part));
    script.push_str(&exports(&spec.env));
    let argv: Vec<String> = spec.argv.iter().map(|argument| quote(argument)).collect();
    script.push_str(&format!("exec {}\n", argv.join(" ")));
    script
}

/// Runs the setup script in an environment of its own and notes how it ended. It cannot reach the
/// agent's input and output, nor the note.
fn setup_part(setup: &Setup) -> String {
    format!(
        "setup_shell=/bin/sh\n\
         if command -v bash >/dev/null; then setup_shell=bash; fi\n\
         (\n\
         {exports}\
         exec \"$setup_shell\" -e {LAUNCH_ROOT}/{SETUP_SCRIPT} \
         </dev/null >&{SETUP_FD} 2>&1 {LAUNCHED_FD}>&- {SETUP_FD}>&-\n\
         )\n\
         setup_code=$?\n\
         echo \"{SETUP_ENDED}$setup_code\" >&{LAUNCHED_FD}\n\
         [ \"$setup_code\" = 0 ] || exit \"$setup_code\"\n\
         exec {LAUNCHED_FD}>&- {SETUP_FD}>&-\n",
        exports = exports(&setup.env),
    )
}

fn exports(env: &[(String, Secret)]) -> String {
    let lines = env.iter().map(|(name, value)| {
        let value = quote(value.expose());
        format!("export {name}={value}\n")
    });
    lines.collect()
}

/// The exit code of the setup script, from what the launcher wrote; `None` while it runs.
pub(super) fn setup_code(launched: &str) -> Option<i32> {
    // A line that is still being written has no end yet.
    let mut whole = launched.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.find_map(|line| line.trim_end().strip_prefix(SETUP_ENDED)?.parse().ok())
}

/// One word of a POSIX shell that means exactly `text`.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;
    use crate::run::NetworkMode;
    use crate::sandbox::{SandboxId, SandboxLimits};

    fn spec(argv: &[&str], env: &[(&str, &str)]) -> SandboxSpec {
        SandboxSpec {
            id: SandboxId::new("a").unwrap(),
            run: "r".to_owned(),
            image: None,
            mounts: vec![],
            files: vec![],
            setup: None,
            stdin: vec![],
            argv: argv.iter().map(|&a| a.to_owned()).collect(),
            env: env.iter().map(|&(n, v)| (n.to_owned(), Secret::new(v.to_owned()))).collect(),
            cwd: "/app/it's".to_owned(),
            limits: SandboxLimits { memory_bytes: 1, n_cpus: 1.0, n_pids: 1, file_bytes: 1 << 20 },
            network: NetworkMode::None,
        }
    }

    #[test]
    fn the_launcher_of_docker_opens_the_output_and_drops_every_privilege() {
        let script = launch_script(&spec(&["x"], &[]), (Output::Opened, StartsAs::Root), None);
        expect_test::expect![[r#"
            # Opens the agent's files and gives every privilege away.
            set -eu
            umask 022
            command -v setpriv >/dev/null || {
              echo 'the image has no setpriv: install the package util-linux in it' >&2
              exit 125
            }
            ulimit -c 0
            ulimit -f 2048
            for kind in S H; do held=$(ulimit -${kind}n); [ $held != unlimited ] && [ $held -le 65536 ] || ulimit -${kind}n 65536; done
            cd '/app/it'\''s'
            export HOME=/home/agent USER=agent LOGNAME=agent
            exec </run/runbookd/launch/stdin
            exec >>/run/runbookd/out/stdout 2>>/run/runbookd/out/stderr 4>>/run/runbookd/out/launched 6>>/run/runbookd/out/setup
            echo launched >&4
            exec 4>&- 6>&-
            exec setpriv --reuid 59999 --regid 59999 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all -- /bin/sh /run/runbookd/launch/agent.sh
        "#]]
        .assert_eq(&script);
    }

    #[test]
    fn the_launcher_of_an_unprivileged_bubblewrap_is_the_agent_already() {
        let script = launch_script(&spec(&["x"], &[]), (Output::Inherited, StartsAs::Agent), None);
        assert!(!script.contains("setpriv") && !script.contains(OUTPUT_ROOT), "{script}");
        assert!(script.contains("exec 3>&- 5>&-\n"), "{script}");
        assert!(script.ends_with("exec /bin/sh /run/runbookd/launch/agent.sh\n"), "{script}");
    }

    #[test]
    fn the_relay_has_a_user_of_its_own_and_listens_before_the_agent_starts() {
        let script = |starts_as| {
            let call = Some(Call::ByLoader);
            launch_script(&spec(&["x"], &[]), (Output::Opened, starts_as), call)
        };
        let as_root = script(StartsAs::Root);
        let relay =
            as_root.split_once("way_out=$(").unwrap().1.split_once("exec </run/").unwrap().0;
        expect_test::expect![[r#"

            exec </dev/null 2>&1 3>&- 4>&- 5>&- 6>&-
            unset LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT
            cd /
            setpriv --reuid 59998 --regid 59998 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all -- /run/runbookd/relay/ld.so --library-path /run/runbookd/relay /run/runbookd/relay/runbookd relay 127.0.0.1:3128 /run/runbookd/model/egress.sock &
            )
            [ "$way_out" = ready ] || {
              echo "the way out did not open: $way_out" >&2
              exit 125
            }
            ulimit -c 0
            ulimit -f 2048
            for kind in S H; do held=$(ulimit -${kind}n); [ $held != unlimited ] && [ $held -le 65536 ] || ulimit -${kind}n 65536; done
            cd '/app/it'\''s'
            export HOME=/home/agent USER=agent LOGNAME=agent
        "#]]
        .assert_eq(relay);
        assert!(!script(StartsAs::Agent).contains("setpriv"));
    }

    #[test]
    fn the_end_of_the_setup_is_read_once_its_line_is_whole() {
        for (text, code) in [
            ("", None),
            ("launched\n", None),
            ("launched\nsetup ended 0", None),
            ("launched\nsetup ended 0\n", Some(0)),
            ("launched\nsetup ended 137\n", Some(137)),
        ] {
            assert_eq!(setup_code(text), code, "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// A real shell reads the script back: any argument and any value arrives as it was given.
        #[test]
        fn arguments_and_values_arrive_as_they_are(argument in "[^\0]{0,40}", value in "[^\0]{0,40}") {
            let script = agent_script(&spec(
                &["/bin/sh", "-c", r#"printf '%s\001%s' "$1" "$VALUE""#, "sh", &argument],
                &[("VALUE", &value)],
            ));
            let ran = Command::new("/bin/sh").arg("-c").arg(&script).output().unwrap();
            let expected = format!("{argument}\u{1}{value}");
            prop_assert_eq!(String::from_utf8_lossy(&ran.stdout), expected);
        }
    }
}
