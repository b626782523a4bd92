//! One suite of stories for both engines: what a sandbox promises, it promises everywhere.
//!
//! The engines are real. Where one is missing its stories are skipped, loudly; with
//! `RUNBOOKD_REQUIRE_ENGINES=1` they fail instead. After every story nothing may be left: no
//! container, no process, no control group, no folder.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests fail by unwrapping, say what they skip, and are told so by the environment"
)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use runbookd::run::Network;
use runbookd::sandbox::{
    DEFAULT_CGROUP_ROOT, Engine, EngineChoice, EngineKind, EngineSettings, Exit, Sandbox,
    SandboxId, SandboxLimits, SandboxSpec,
};
use runbookd::secret::Secret;

/// No story takes longer. A hanging sandbox must fail its story, not the suite.
const STORY_LIMIT: Duration = Duration::from_secs(120);

macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        mod docker {
            $(#[tokio::test(flavor = "multi_thread")] async fn $story() {
                super::tell(super::EngineChoice::Docker, stringify!($story), async |stage| super::$story(stage).await).await;
            })*
        }
        mod bubblewrap {
            $(#[tokio::test(flavor = "multi_thread")] async fn $story() {
                super::tell(super::EngineChoice::Bubblewrap, stringify!($story), async |stage| super::$story(stage).await).await;
            })*
        }
    };
}

stories! {
    an_agent_reads_its_input_and_its_exit_code_is_known,
}

/// Where a story plays: an engine of its own, so that stories do not see each other's sandboxes.
struct Stage {
    engine: Engine,
    kind: EngineKind,
    state: tempfile::TempDir,
    owner: String,
}

async fn tell(choice: EngineChoice, story: &str, act: impl AsyncFnOnce(&Stage)) {
    let state = tempfile::tempdir().unwrap();
    // Containers and control groups are the machine's: two stories must differ in their owner.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let owner = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let engine = match Engine::connect(choice, settings(state.path(), &owner)).await {
        Ok(engine) => engine,
        Err(error) if std::env::var_os("RUNBOOKD_REQUIRE_ENGINES").is_none() => {
            println!("SKIPPED {story}: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let kind = engine.report().kind;
    let stage = Stage { engine, kind, state, owner };
    tokio::time::timeout(STORY_LIMIT, act(&stage)).await.expect("the story ends in time");
    assert_eq!(stage.engine.leftovers().await.unwrap(), Vec::<String>::new());
}

fn settings(state_dir: &Path, owner: &str) -> EngineSettings {
    let image = std::env::var("RUNBOOKD_TEST_IMAGE");
    EngineSettings {
        state_dir: state_dir.to_owned(),
        owner: owner.to_owned(),
        docker_host: None,
        default_image: Some(image.unwrap_or_else(|_| "runbookd-base:bookworm".to_owned())),
        cgroup_root: PathBuf::from(DEFAULT_CGROUP_ROOT),
    }
}

/// A sandbox that runs `script` with `sh`.
fn spec(script: &str) -> SandboxSpec {
    SandboxSpec {
        id: SandboxId::new("one").unwrap(),
        run: "demo/hello/0123abcd".to_owned(),
        image: None,
        mounts: vec![],
        files: vec![],
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
        network: Network::None,
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

    fn read(&self, sandbox: &Sandbox, exit: Exit) -> Ran {
        let text = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        Ran { exit, stdout: text(sandbox.stdout()), stderr: text(sandbox.stderr()) }
    }
}

async fn an_agent_reads_its_input_and_its_exit_code_is_known(stage: &Stage) {
    let mut spec = spec("cat; echo \"$GREETING from $PWD\"; echo oops >&2; exit 7");
    spec.stdin = b"hello\n".to_vec();
    spec.env = vec![("GREETING".to_owned(), Secret::new("it's \"made up\"".to_owned()))];
    let ran = stage.run(spec).await;
    let expected = Ran {
        exit: Exit { code: 7, oom_killed: false },
        stdout: "hello\nit's \"made up\" from /app\n".to_owned(),
        stderr: "oops\n".to_owned(),
    };
    assert_eq!(ran, expected);
}
