//! One suite of stories for both engines: what a sandbox promises, it promises everywhere.
//!
//! After every story nothing may be left: no container, no process, no control group, no folder.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use expect_test::expect;
use runbookd::run::NetworkMode;
use runbookd::sandbox::{
    Access, AgentSignal, CollectLimits, Engine, EngineChoice, EngineKind, EngineSettings, Exit,
    Folder, InvalidSpec, Mount, Sandbox, SandboxError, SandboxId, SandboxLimits, SandboxSpec,
    Source, StagedFile, collect,
};
use runbookd::secret::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{POLL, Stage, processes_with, settings};

stories! {
    an_agent_reads_its_input_and_its_exit_code_is_known,
    staged_files_are_there_with_the_access_that_was_given,
    what_is_written_at_the_very_end_is_complete,
    an_agent_cannot_open_its_recorded_output,
    an_agent_has_no_privilege,
    an_agent_writes_where_it_may_and_nowhere_else,
    the_host_is_out_of_sight,
    no_value_of_the_environment_stands_in_an_argument,
    a_signal_ends_an_agent_and_shows_in_its_exit_code,
    a_gentle_signal_can_be_answered,
    kill_reaches_children_that_ran_away,
    nothing_outlives_the_agent,
    a_wait_that_was_dropped_can_be_taken_up_again,
    memory_is_limited_and_the_killing_is_said,
    processes_are_limited_and_a_fork_bomb_ends,
    processor_time_is_limited,
    the_size_of_a_file_is_limited,
    a_mounted_socket_can_be_spoken_to,
    a_sandbox_without_network_has_its_loopback_alone,
    a_sandbox_with_an_open_network_reaches_the_host,
    two_sandboxes_do_not_see_each_other,
    the_reaper_removes_what_leaked_and_keeps_what_is_kept,
    a_build_of_the_relay_stays_as_long_as_a_sandbox_has_it,
    another_daemon_takes_over_a_running_sandbox,
    another_daemon_learns_how_an_agent_ended_meanwhile,
    a_sandbox_that_cannot_start_says_why,
    a_specification_that_cannot_be_met_leaves_nothing_behind,
    hostile_results_are_collected_without_leaving_the_folder,
    a_running_sandbox_full_of_closed_folders_is_destroyed,
}

/// Never called: it compiles if runs can move between the threads of the daemon.
#[expect(dead_code, reason = "the compiler is the test")]
fn a_run_can_move_between_threads(engine: &Engine, spec: SandboxSpec, mut sandbox: Sandbox) {
    fn moves(_: impl Send) {}
    moves(engine.provision(spec));
    moves(engine.reap(|_| false));
    moves(sandbox.start());
    moves(sandbox.wait());
    moves(sandbox.signal(AgentSignal::Kill));
    moves(sandbox.kill());
    moves(sandbox.destroy());
}

/// A sandbox that runs `script` with `sh`.
fn spec(script: &str) -> SandboxSpec {
    SandboxSpec {
        id: SandboxId::new("one").unwrap(),
        run: "demo/hello/0123abcd".to_owned(),
        image: None,
        mounts: vec![],
        files: vec![],
        setup: None,
        stdin: vec![],
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![],
        cwd: "/app".to_owned(),
        limits: SandboxLimits {
            memory_bytes: 512 << 20,
            n_cpus: 1.0,
            n_pids: 64,
            file_bytes: 64 << 20,
        },
        network: NetworkMode::None,
    }
}

/// What a sandbox did.
#[derive(Debug, PartialEq)]
struct Ran {
    exit: Exit,
    stdout: String,
    stderr: String,
}

impl Stage {
    /// Runs a sandbox from its making to its end.
    async fn run(&self, spec: SandboxSpec) -> Ran {
        let mut sandbox = self.start(spec).await;
        let exit = sandbox.wait().await.unwrap();
        let ran = self.read(&sandbox, exit);
        sandbox.destroy().await.unwrap();
        ran
    }

    async fn start(&self, spec: SandboxSpec) -> Sandbox {
        let mut sandbox = self.engine.provision(spec).await.unwrap();
        sandbox.start().await.unwrap();
        sandbox
    }

    /// Waits until the agent has said `word`.
    async fn heard(&self, sandbox: &Sandbox, word: &str) {
        while !std::fs::read_to_string(sandbox.stdout()).unwrap().contains(word) {
            tokio::time::sleep(POLL).await;
        }
    }

    fn choice(&self) -> EngineChoice {
        match self.kind {
            EngineKind::Docker => EngineChoice::Docker,
            EngineKind::Bubblewrap => EngineChoice::Bubblewrap,
        }
    }

    /// Another daemon of the same owner, after this one.
    async fn successor(&self) -> Engine {
        let settings = settings(self.state.path(), &self.owner);
        Engine::connect(self.choice(), settings).await.unwrap()
    }

    fn read(&self, sandbox: &Sandbox, exit: Exit) -> Ran {
        let text = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        Ran { exit, stdout: text(sandbox.stdout()), stderr: text(sandbox.stderr()) }
    }
}

/// A spec with other limits.
fn limited(script: &str, change: impl FnOnce(&mut SandboxLimits)) -> SandboxSpec {
    let mut spec = spec(script);
    change(&mut spec.limits);
    spec
}

fn ended(code: i32) -> Exit {
    Exit { code, oom_killed: false }
}

#[tokio::test]
async fn a_machine_without_an_engine_says_what_to_install() {
    let state = tempfile::tempdir().unwrap();
    let settings = EngineSettings {
        docker_host: Some("unix:///nowhere/docker.sock".to_owned()),
        path: "/nowhere".to_owned(),
        ..settings(state.path(), "test")
    };
    let error = Engine::connect(EngineChoice::Auto, settings).await.unwrap_err().to_string();
    for word in ["/nowhere/docker.sock", "`docker.io`", "`bubblewrap`"] {
        assert!(error.contains(word), "{error}");
    }
}

async fn an_agent_reads_its_input_and_its_exit_code_is_known(stage: &Stage) {
    let mut spec = spec("cat; echo \"$GREETING from $PWD\"; echo oops >&2; exit 7");
    spec.stdin = b"hello\n".to_vec();
    spec.env = vec![("GREETING".to_owned(), Secret::new("it's \"made up\"".to_owned()))];
    let expected = Ran {
        exit: ended(7),
        stdout: "hello\nit's \"made up\" from /app\n".to_owned(),
        stderr: "oops\n".to_owned(),
    };
    assert_eq!(stage.run(spec).await, expected);
}

async fn staged_files_are_there_with_the_access_that_was_given(stage: &Stage) {
    let mut spec = spec(
        "cd /run/runbookd/in; cat mcp/.mcp.json; stat -c '%a %u' mcp/.mcp.json
         (echo x >mcp/.mcp.json) 2>/dev/null || echo 'cannot write'
         (rm -f mcp/.mcp.json) 2>/dev/null || echo 'cannot remove'
         cd /app/assets/in; stat -c '%u' . b.csv; cat b.csv; echo more >>b.csv && rm b.csv && echo removed
         [ \"$(id -u)\" = \"$(stat -c %u .)\" ] && echo owned",
    );
    let host = stage.state.path().join("b.csv");
    std::fs::write(&host, "a,b\n").unwrap();
    let file =
        |inside: &str, source, access| StagedFile { inside: inside.to_owned(), source, access };
    spec.files = vec![
        file("/run/runbookd/in/mcp/.mcp.json", Source::Bytes(b"{}\n".to_vec()), Access::ReadOnly),
        file("/app/assets/in/b.csv", Source::HostFile(host), Access::Writable),
    ];
    let ran = stage.run(spec).await;
    expect![[r"
        {}
        444 0
        cannot write
        cannot remove
        59999
        59999
        a,b
        removed
        owned
    "]]
    .assert_eq(&ran.stdout);
}

async fn what_is_written_at_the_very_end_is_complete(stage: &Stage) {
    let ran = stage
        .run(spec("stat -L -c %F /proc/$$/fd/1 /proc/$$/fd/2 >&2; exec head -c 5000000 /dev/zero"))
        .await;
    assert_eq!(ran.exit, ended(0));
    assert_eq!(ran.stdout.len(), 5_000_000);
    assert_eq!(ran.stderr, "regular empty file\nregular empty file\n");
}

async fn an_agent_cannot_open_its_recorded_output(stage: &Stage) {
    // Each attempt would leave `forged`, or an empty file, if it succeeded.
    let ran = stage
        .run(spec(
            "echo first
             for path in /run/runbookd/out/stdout /proc/self/fd/1 /proc/$$/fd/1 /proc/$PPID/fd/1 \
                         /proc/1/fd/1 /dev/stdout /dev/fd/1; do
               for how in '>>' '>' '<'; do
                 (eval \"exec 3$how$path\") 2>/dev/null && { echo opened $how $path >&2; }
               done
             done
             truncate -s 0 /proc/self/fd/1 2>/dev/null && echo truncated >&2
             ls /run/runbookd/out 2>/dev/null
             chmod 666 /proc/self/fd/1 2>/dev/null && echo 'mode changed' >&2
             echo last",
        ))
        .await;
    let expected =
        Ran { exit: ended(0), stdout: "first\nlast\n".to_owned(), stderr: String::new() };
    assert_eq!(ran, expected);
}

async fn an_agent_has_no_privilege(stage: &Stage) {
    let ran = stage
        .run(spec(
            "id -u; id -g; id -G; test -r /etc/passwd || echo 'no users'
             grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status
             echo $HOME $USER $LOGNAME
             unshare -U true 2>/dev/null && echo 'made a namespace'
             mount -t tmpfs none /tmp 2>/dev/null && echo mounted
             ulimit -c; ls /proc/self/fd | wc -l",
        ))
        .await;
    expect![[r"
        59999
        59999
        59999
        CapInh:	0000000000000000
        CapPrm:	0000000000000000
        CapEff:	0000000000000000
        CapBnd:	0000000000000000
        CapAmb:	0000000000000000
        NoNewPrivs:	1
        Seccomp:	2
        /home/agent agent agent
        0
        4
    "]]
    .assert_eq(&ran.stdout);
}

async fn an_agent_writes_where_it_may_and_nowhere_else(stage: &Stage) {
    let ran = stage
        .run(spec(
            "for folder in /app /app/assets /app/results /logs /logs/agent/sessions /tmp \
                           /home/agent /dev/shm; do
               (echo x >$folder/probe) 2>/dev/null || echo \"cannot write $folder\"
             done
             for folder in / /usr /usr/bin /etc /run /run/runbookd /run/runbookd/in /opt /var /home \
                           /dev /proc /sys /root; do
               (echo x >$folder/probe) 2>/dev/null && echo \"can write $folder\"
             done; true",
        ))
        .await;
    let expected = Ran { exit: ended(0), stdout: String::new(), stderr: String::new() };
    assert_eq!(ran, expected);
}

async fn the_host_is_out_of_sight(stage: &Stage) {
    let mut script =
        "for path in /root/.bashrc /root/.ssh /etc/shadow /etc/sudoers /proc/1/environ \
         /proc/kcore /var/run/docker.sock /run/docker.sock /var/lib/docker"
            .to_owned();
    script.push_str(&format!(
        " '{}'; do cat \"$path\" >/dev/null 2>&1 || ls \"$path/\" >/dev/null 2>&1 && echo \"$path\"; done
         ls /home; ps -e -o comm= 2>/dev/null | grep -c -E 'dockerd|nextest'",
        stage.state.path().display()
    ));
    let ran = stage.run(spec(&script)).await;
    assert_eq!(ran.stdout, "agent\n0\n");
}

async fn no_value_of_the_environment_stands_in_an_argument(stage: &Stage) {
    let mut spec = spec("[ -n \"$KEY\" ] && echo ready; exec sleep 1000");
    let key = format!("sk-ant-made-up-{}-{}", stage.owner, stage.kind);
    spec.env = vec![("KEY".to_owned(), Secret::new(key.clone()))];
    let sandbox = stage.start(spec).await;
    stage.heard(&sandbox, "ready").await;
    assert_eq!(processes_with(&key), Vec::<String>::new());
    sandbox.destroy().await.unwrap();
}

async fn a_signal_ends_an_agent_and_shows_in_its_exit_code(stage: &Stage) {
    assert_eq!(stage.run(spec("kill -9 $$")).await.exit.signal(), Some(9));
    for (signal, code) in
        [(AgentSignal::Interrupt, 130), (AgentSignal::Terminate, 143), (AgentSignal::Kill, 137)]
    {
        let mut sandbox = stage.start(spec("echo ready; exec sleep 1000")).await;
        stage.heard(&sandbox, "ready").await;
        sandbox.signal(signal).await.unwrap();
        assert_eq!(sandbox.wait().await.unwrap(), ended(code), "{signal:?}");
        sandbox.signal(signal).await.unwrap();
        sandbox.destroy().await.unwrap();
    }
}

async fn a_gentle_signal_can_be_answered(stage: &Stage) {
    let script = "trap 'echo bye; exit 42' TERM; echo ready; while :; do sleep 0.05; done";
    let mut sandbox = stage.start(spec(script)).await;
    stage.heard(&sandbox, "ready").await;
    sandbox.signal(AgentSignal::Terminate).await.unwrap();
    let exit = sandbox.wait().await.unwrap();
    let expected =
        Ran { exit: ended(42), stdout: "ready\nbye\n".to_owned(), stderr: String::new() };
    assert_eq!(stage.read(&sandbox, exit), expected);
    sandbox.destroy().await.unwrap();
}

/// Children in sessions of their own, whose parents are gone. `word` marks them on the host.
fn runaways(word: &str) -> String {
    format!(
        "cd /tmp; child=\"trap '' TERM INT HUP; echo >>/tmp/up; while :; do sleep 1; done; : {word}\"
         setsid sh -c \"$child\" &
         (setsid sh -c \"$child\" &) &
         nohup sh -c \"$child\" >/dev/null 2>&1 &
         until [ \"$(cat /tmp/up 2>/dev/null | wc -l)\" = 3 ]; do sleep 0.02; done
         echo ready"
    )
}

async fn kill_reaches_children_that_ran_away(stage: &Stage) {
    let word = format!("runaway-{}-{}", stage.owner, stage.kind);
    let mut sandbox = stage.start(spec(&format!("{}; exec sleep 1000", runaways(&word)))).await;
    stage.heard(&sandbox, "ready").await;
    assert!(processes_with(&word).len() >= 3);
    sandbox.kill().await.unwrap();
    assert_eq!(processes_with(&word), Vec::<String>::new());
    sandbox.kill().await.unwrap();
    assert_eq!(sandbox.wait().await.unwrap(), ended(137));
    sandbox.destroy().await.unwrap();
}

async fn nothing_outlives_the_agent(stage: &Stage) {
    let word = format!("runaway-{}-{}", stage.owner, stage.kind);
    let mut sandbox = stage.start(spec(&format!("{}; exit 3", runaways(&word)))).await;
    assert_eq!(sandbox.wait().await.unwrap(), ended(3));
    assert_eq!(processes_with(&word), Vec::<String>::new());
    sandbox.destroy().await.unwrap();
}

async fn a_wait_that_was_dropped_can_be_taken_up_again(stage: &Stage) {
    let mut sandbox = stage.start(spec("mkfifo /app/go; echo ready; read _ </app/go")).await;
    assert!(tokio::time::timeout(POLL, sandbox.wait()).await.is_err());
    stage.heard(&sandbox, "ready").await;
    assert!(tokio::time::timeout(POLL, sandbox.wait()).await.is_err());
    sandbox.kill().await.unwrap();
    for _ in 0..3 {
        assert!(matches!(sandbox.wait().await, Ok(Exit { oom_killed: false, .. })));
    }
    sandbox.destroy().await.unwrap();
}

async fn memory_is_limited_and_the_killing_is_said(stage: &Stage) {
    let spec = limited("exec tail /dev/zero", |limits| limits.memory_bytes = 48 << 20);
    assert_eq!(stage.run(spec).await.exit, Exit { code: 137, oom_killed: true });
    // Not only where the agent itself is hit.
    let spec = limited("tail /dev/zero; exit 9", |limits| limits.memory_bytes = 48 << 20);
    assert_eq!(stage.run(spec).await.exit, Exit { code: 9, oom_killed: true });
}

async fn processes_are_limited_and_a_fork_bomb_ends(stage: &Stage) {
    let count = "i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); echo $i; done";
    let ran = stage.run(limited(count, |limits| limits.n_pids = 16)).await;
    let n_started = ran.stdout.lines().count();
    assert!((8..=16).contains(&n_started), "{ran:?}");
    assert!(ran.stderr.contains("fork"), "{ran:?}");

    let bomb = "bomb() { bomb | bomb & }; (bomb) & echo ready; while :; do :; done";
    let mut sandbox = stage.start(limited(bomb, |limits| limits.n_pids = 32)).await;
    stage.heard(&sandbox, "ready").await;
    sandbox.kill().await.unwrap();
    sandbox.destroy().await.unwrap();
}

async fn processor_time_is_limited(stage: &Stage) {
    let burn = "timeout 1 sh -c 'while :; do :; done'; times | tail -n 1 | cut -d' ' -f1";
    let ran = stage.run(limited(burn, |limits| limits.n_cpus = 0.2)).await;
    // Like `0m0.210000s`. Without a limit it would be a whole second.
    let seconds = ran.stdout.trim().strip_prefix("0m").and_then(|rest| rest.strip_suffix('s'));
    let seconds: f64 = seconds.and_then(|seconds| seconds.parse().ok()).expect(&ran.stdout);
    assert!(seconds < 0.5, "{seconds}");
}

async fn the_size_of_a_file_is_limited(stage: &Stage) {
    let script = "(head -c 2000000 /dev/zero >/app/big) 2>/dev/null; stat -c %s /app/big
        exec head -c 2000000 /dev/zero";
    let ran = stage.run(limited(script, |limits| limits.file_bytes = 1 << 20)).await;
    assert!(ran.stdout.starts_with("1048576\n"), "{:?}", &ran.stdout[..10]);
    assert_eq!(ran.stdout.len(), 1 << 20);
    assert_ne!(ran.exit.code, 0);
}

async fn a_mounted_socket_can_be_spoken_to(stage: &Stage) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let mount =
        |host: &Path, inside: &str| Mount { host: host.to_owned(), inside: inside.to_owned() };
    let connect = |path: &str| {
        format!(
            "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('{path}')\n\
             s.sendall(b'hello')\nprint(s.recv(9).decode())"
        )
    };
    // The agent could not write to it: said before anything is made.
    let mut closed = spec("true");
    closed.mounts = vec![mount(&socket, "/run/model/api.sock")];
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o755)).unwrap();
    let refused = stage.engine.provision(closed).await.unwrap_err();
    assert!(matches!(refused, SandboxError::Spec(InvalidSpec::ClosedSocket { .. })), "{refused:?}");

    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut spec = spec("");
    spec.mounts = vec![mount(&socket, "/run/model/api.sock"), mount(folder.path(), "/run/folder")];
    let script =
        connect("/run/model/api.sock") + "\ns.close()\n" + &connect("/run/folder/api.sock");
    spec.argv = ["python3", "-c", &script].map(str::to_owned).to_vec();
    let answer = async {
        for _ in 0..2 {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut heard = [0; 5];
            peer.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"hello");
            peer.write_all(b"welcome").await.unwrap();
        }
    };
    let (ran, ()) = tokio::join!(stage.run(spec), answer);
    let expected =
        Ran { exit: ended(0), stdout: "welcome\nwelcome\n".to_owned(), stderr: String::new() };
    assert_eq!(ran, expected);
}

async fn a_sandbox_without_network_has_its_loopback_alone(stage: &Stage) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '
         python3 -c \"import socket; print(socket.gethostbyname('localhost'))\"
         python3 -c \"import socket; socket.create_connection(('127.0.0.1', {port}), 5)\" 2>&1 | tail -n 1"
    );
    let ran = stage.run(spec(&script)).await;
    assert_eq!(
        ran.stdout,
        "lo\n127.0.0.1\nConnectionRefusedError: [Errno 111] Connection refused\n"
    );
}

async fn a_sandbox_with_an_open_network_reaches_the_host(stage: &Stage) {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // The gateway of the default route, written in hexadecimal from the last byte to the first.
    let host = match stage.kind {
        EngineKind::Docker => {
            "socket.inet_ntoa(bytes.fromhex(open('/proc/net/route').readlines()[1].split()[2])[::-1])"
        }
        EngineKind::Bubblewrap => "'127.0.0.1'",
    };
    let mut spec = spec("");
    let script =
        format!("import socket; socket.create_connection(({host}, {port}), 20).send(b'hi')");
    spec.argv = ["python3", "-c", &script].map(str::to_owned).to_vec();
    spec.network = NetworkMode::Open;
    let answer = async {
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut heard = String::new();
        peer.read_to_string(&mut heard).await.unwrap();
        heard
    };
    let (ran, heard) = tokio::join!(stage.run(spec), async {
        tokio::time::timeout(Duration::from_secs(30), answer).await
    });
    assert_eq!((ran.exit, heard.as_deref()), (ended(0), Ok("hi")), "{}", ran.stderr);
}

async fn two_sandboxes_do_not_see_each_other(stage: &Stage) {
    let look = |own: &str| {
        format!(
            "for folder in /app /tmp /home/agent /logs /dev/shm; do touch $folder/{own}; done
             echo ready; while ! [ -e /app/go ]; do sleep 0.02; done
             ls /app /tmp /home/agent /logs /dev/shm | grep -c 'other'
             grep -l -a 'name-of-o[t]her' /proc/[0-9]*/cmdline 2>/dev/null | wc -l
             exit 0; : name-of-{own}"
        )
    };
    let mut mine = spec(&look("mine"));
    let mut other = spec(
        "touch /app/other /tmp/other /dev/shm/other /logs/other; echo ready; sleep 1000; : name-of-other",
    );
    mine.id = SandboxId::new("mine").unwrap();
    other.id = SandboxId::new("other").unwrap();
    let (mut mine, other) = (stage.start(mine).await, stage.start(other).await);
    stage.heard(&mine, "ready").await;
    stage.heard(&other, "ready").await;
    let app = stage.state.path().join("sandboxes/mine/rw/app/go");
    std::fs::write(app, "").unwrap();
    let exit = mine.wait().await.unwrap();
    assert_eq!(stage.read(&mine, exit).stdout, "ready\n0\n0\n");
    mine.destroy().await.unwrap();
    other.destroy().await.unwrap();
}

async fn the_reaper_removes_what_leaked_and_keeps_what_is_kept(stage: &Stage) {
    let mut sandboxes = Vec::new();
    for id in ["kept", "leaked", "unstarted"] {
        let mut spec = spec(&format!("echo ready; sleep 1000; : {id}-{}", stage.owner));
        spec.id = SandboxId::new(id).unwrap();
        sandboxes.push(stage.engine.provision(spec).await.unwrap());
    }
    let [mut kept, mut leaked, unstarted] = <[Sandbox; 3]>::try_from(sandboxes).unwrap();
    kept.start().await.unwrap();
    leaked.start().await.unwrap();
    stage.heard(&kept, "ready").await;
    stage.heard(&leaked, "ready").await;
    let keep = HashSet::from([kept.id().clone()]);
    let (leaked_id, unstarted_id) = (leaked.id().clone(), unstarted.id().clone());
    leaked.leave();
    unstarted.leave();

    let successor = stage.successor().await;
    assert_eq!(
        successor.reap(|id| keep.contains(id)).await.unwrap(),
        vec![leaked_id, unstarted_id]
    );
    assert_eq!(processes_with(&format!("leaked-{}", stage.owner)), Vec::<String>::new());
    assert!(!processes_with(&format!("kept-{}", stage.owner)).is_empty());
    assert_eq!(successor.reap(|id| keep.contains(id)).await.unwrap(), vec![]);
    kept.destroy().await.unwrap();
}

async fn a_build_of_the_relay_stays_as_long_as_a_sandbox_has_it(stage: &Stage) {
    let mut spec =
        spec("echo ready; while ! [ -e /app/go ]; do sleep 0.02; done; ls /run/runbookd/relay");
    spec.network = NetworkMode::Public;
    let mut sandbox = stage.start(spec).await;
    stage.heard(&sandbox, "ready").await;
    let builds = || std::fs::read_dir(stage.state.path().join("relay")).unwrap().count();
    assert_eq!(builds(), 1);
    let id = sandbox.id().clone();
    // A daemon of another build, as after an upgrade.
    let upgraded = EngineSettings {
        program: "/bin/true".into(),
        ..settings(stage.state.path(), &stage.owner)
    };
    let upgraded = Engine::connect(stage.choice(), upgraded).await.unwrap();
    upgraded.reap(|kept| *kept == id).await.unwrap();
    assert_eq!(builds(), 1);
    let go = sandbox.stdout().ancestors().nth(2).unwrap().join("rw/app/go");
    std::fs::write(go, "").unwrap();
    let exit = sandbox.wait().await.unwrap();
    let said = stage.read(&sandbox, exit).stdout;
    assert!(said.contains("runbookd\n"), "{said}");
    sandbox.destroy().await.unwrap();
    upgraded.reap(|_| true).await.unwrap();
    assert_eq!(builds(), 0);
}

async fn another_daemon_takes_over_a_running_sandbox(stage: &Stage) {
    let script = "echo ready; while ! [ -e /app/go ]; do sleep 0.02; done; echo done; exit 6";
    let sandbox = stage.start(spec(script)).await;
    stage.heard(&sandbox, "ready").await;
    let id = sandbox.id().clone();
    sandbox.leave();

    let successor = stage.successor().await;
    let mut sandbox = successor.adopt(&id).await.unwrap().expect("it is there");
    assert!(tokio::time::timeout(POLL, sandbox.wait()).await.is_err());
    std::fs::write(stage.state.path().join("sandboxes/one/rw/app/go"), "").unwrap();
    let exit = sandbox.wait().await.unwrap();
    let expected =
        Ran { exit: ended(6), stdout: "ready\ndone\n".to_owned(), stderr: String::new() };
    assert_eq!(stage.read(&sandbox, exit), expected);
    sandbox.destroy().await.unwrap();
    assert!(successor.adopt(&id).await.unwrap().is_none());
}

async fn another_daemon_learns_how_an_agent_ended_meanwhile(stage: &Stage) {
    let mut sandbox = stage.start(spec("echo done; exit 6")).await;
    assert_eq!(sandbox.wait().await.unwrap(), ended(6));
    let id = sandbox.id().clone();
    sandbox.leave();
    let mut sandbox = stage.successor().await.adopt(&id).await.unwrap().expect("it is there");
    assert_eq!(sandbox.wait().await.unwrap(), ended(6));
    sandbox.destroy().await.unwrap();
}

async fn a_sandbox_that_cannot_start_says_why(stage: &Stage) {
    let mut no_folder = spec("true");
    no_folder.cwd = "/app/nowhere".to_owned();
    let mut sandbox = stage.start(no_folder).await;
    let error = sandbox.wait().await.unwrap_err();
    assert!(
        matches!(&error, SandboxError::Launch { detail, .. } if detail.contains("/app/nowhere")),
        "{error:?}"
    );
    sandbox.destroy().await.unwrap();

    let mut no_program = spec("true");
    no_program.argv = vec!["/opt/nothing".to_owned()];
    let ran = stage.run(no_program).await;
    assert_eq!(ran.exit, ended(127));
    assert!(ran.stderr.contains("/opt/nothing"), "{ran:?}");
}

async fn a_specification_that_cannot_be_met_leaves_nothing_behind(stage: &Stage) {
    let mut no_image = spec("true");
    no_image.image = Some("runbookd-test.invalid/none:0".to_owned());
    let error = stage.engine.provision(no_image).await.unwrap_err();
    match stage.kind {
        EngineKind::Docker => assert!(matches!(error, SandboxError::Image { .. }), "{error:?}"),
        EngineKind::Bubblewrap => assert!(
            matches!(error, SandboxError::Spec(InvalidSpec::ImageWithoutDocker { .. })),
            "{error:?}"
        ),
    }
    let mut no_source = spec("true");
    no_source.files = vec![StagedFile {
        inside: "/app/x".to_owned(),
        source: Source::HostFile(stage.state.path().join("nothing")),
        access: Access::Writable,
    }];
    let error = stage.engine.provision(no_source).await.unwrap_err();
    assert!(matches!(error, SandboxError::Stage { .. }), "{error:?}");

    let first = stage.engine.provision(spec("true")).await.unwrap();
    let error = stage.engine.provision(spec("true")).await.unwrap_err();
    assert!(matches!(error, SandboxError::Exists { .. }), "{error:?}");
    first.destroy().await.unwrap();
}

async fn hostile_results_are_collected_without_leaving_the_folder(stage: &Stage) {
    let mut sandbox = stage
        .start(spec(
            "cd /app/results; mkdir -p sub/inner; echo good >sub/inner/good.txt; echo top >top.txt
             ln -s /etc/passwd passwd; ln -s / root; ln top.txt twin.txt; mkfifo pipe
             truncate -s 60M sparse; mkdir closed; echo secret >closed/x; chmod 0 closed
             cd /logs/agent; rmdir sessions; ln -s / sessions",
        ))
        .await;
    assert_eq!(sandbox.wait().await.unwrap(), ended(0));
    let to = stage.state.path().join("collected");
    let limits =
        CollectLimits { n_entries: 100, total_bytes: 1 << 20, file_bytes: 1 << 20, depth: 8 };
    let results = collect(&sandbox.folder(Folder::Results), &to, &limits).unwrap();
    let mut report = String::new();
    for file in &results.files {
        writeln!(report, "{} {}", file.bytes, file.path).unwrap();
    }
    for skipped in &results.skipped {
        writeln!(report, "{}: {}", skipped.path, skipped.reason).unwrap();
    }
    expect![[r"
        7 closed/x
        5 sub/inner/good.txt
        4 top.txt
        4 twin.txt
        passwd: it is a symbolic link
        pipe: it is a pipe, a socket or a device
        root: it is a symbolic link
        sparse: it is too large (62914560 bytes)
    "]]
    .assert_eq(&report);
    assert_eq!(std::fs::read_to_string(to.join("sub/inner/good.txt")).unwrap(), "good\n");
    assert_eq!(std::fs::metadata(to.join("top.txt")).unwrap().permissions().mode() & 0o7777, 0o644);

    let sessions = collect(&sandbox.folder(Folder::Sessions), &to, &limits).unwrap();
    assert_eq!((sessions.files.len(), sessions.n_skipped), (0, 1), "{sessions:?}");
    sandbox.destroy().await.unwrap();
}

async fn a_running_sandbox_full_of_closed_folders_is_destroyed(stage: &Stage) {
    let script = "i=0; while [ $i -lt 400 ]; do mkdir d; cd -P d; chmod 1500 ..; i=$((i+1)); done 2>/dev/null
        cd /tmp; mkdir -p a/b; chmod 0 a; touch /app/file; echo ready; exec sleep 1000";
    let sandbox = stage.start(spec(script)).await;
    stage.heard(&sandbox, "ready").await;
    sandbox.destroy().await.unwrap();
}
