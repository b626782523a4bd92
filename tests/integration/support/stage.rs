//! Where a story plays: an engine of its own, and nothing left behind.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use runbookd::gateway::Program;
use runbookd::reach::Reach;
use runbookd::run::ProviderTool;
use runbookd::sandbox::{DEFAULT_CGROUP_ROOT, Engine, EngineChoice, EngineKind, EngineSettings};

/// No story takes longer. A hanging sandbox must fail its story, not the suite.
const STORY_LIMIT: Duration = Duration::from_secs(120);

/// How often a fact is looked for that gives no notice.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// Makes a test of each story and engine.
macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        stories! { @on docker Docker $($story)* }
        stories! { @on bubblewrap Bubblewrap $($story)* }
    };
    (@on $engine:ident $choice:ident $($story:ident)*) => {
        mod $engine {
            $(#[tokio::test(flavor = "multi_thread")] async fn $story() {
                let choice = runbookd::sandbox::EngineChoice::$choice;
                let story = async |stage: &$crate::support::Stage| super::$story(stage).await;
                $crate::support::tell(choice, stringify!($story), story).await;
            })*
        }
    };
}

/// An engine of its own, so that stories do not see each other's sandboxes.
pub(crate) struct Stage {
    pub(crate) engine: Engine,
    pub(crate) kind: EngineKind,
    pub(crate) state: tempfile::TempDir,
    pub(crate) owner: String,
}

impl Stage {
    /// Where the model services of its sandboxes are.
    pub(crate) fn models(&self) -> PathBuf {
        self.state.path().join("models")
    }
}

/// Whether what is missing fails a story instead of skipping it.
pub(crate) fn is_required() -> bool {
    std::env::var_os("RUNBOOKD_REQUIRE_ENGINES").is_some()
}

/// Tells a story on an engine.
pub(crate) async fn tell(choice: EngineChoice, story: &str, act: impl AsyncFnOnce(&Stage)) {
    tell_within(STORY_LIMIT, choice, story, act).await;
}

/// Tells a story that may take longer than others.
pub(crate) async fn tell_within(
    limit: Duration,
    choice: EngineChoice,
    story: &str,
    act: impl AsyncFnOnce(&Stage),
) {
    if !rustix::process::geteuid().is_root() {
        assert!(!is_required(), "the full promises are given to root");
        println!("SKIPPED {story}: the full promises are given to root");
        return;
    }
    let state = tempfile::tempdir().unwrap();
    // Containers and control groups are the machine's: two stories must differ in their owner.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let owner = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let engine = match Engine::connect(choice, settings(state.path(), &owner)).await {
        Ok(engine) => engine,
        Err(error) if !is_required() => {
            println!("SKIPPED {story}: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let kind = engine.report().kind;
    let stage = Stage { engine, kind, state, owner };
    let told = AssertUnwindSafe(tokio::time::timeout(limit, act(&stage))).catch_unwind().await;
    let mut leftovers = stage.engine.leftovers().await.unwrap();
    leftovers.extend(processes_with(stage.models().to_str().unwrap()));
    // A story that failed half-way leaves something; the machine is not to keep it.
    stage.engine.reap(|_| false).await.unwrap();
    remove_groups(&stage.owner);
    match told {
        Ok(told) => told.expect("the story ends in time"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
    assert_eq!(leftovers, Vec::<String>::new());
}

/// The story's own groups stay for the next sandbox of the same owner; no one comes after a test.
pub(crate) fn remove_groups(owner: &str) {
    for tree in ["", "memory", "pids", "cpu"] {
        let group = Path::new(DEFAULT_CGROUP_ROOT).join(tree).join("runbookd").join(owner);
        let _ = std::fs::remove_dir(group);
    }
}

/// The settings of a story's engine.
pub(crate) fn settings(state_dir: &Path, owner: &str) -> EngineSettings {
    EngineSettings {
        state_dir: state_dir.to_owned(),
        owner: owner.to_owned(),
        docker_host: None,
        default_image: Some(image()),
        cgroup_root: PathBuf::from(DEFAULT_CGROUP_ROOT),
        program: PathBuf::from(env!("CARGO_BIN_EXE_runbookd")),
        path: String::new(),
    }
}

/// What gateways are started from: this program is the tests'.
pub(crate) fn gateway() -> Program {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_runbookd"));
    let provider_tools = [ProviderTool::WebSearch].into();
    Program { path, environment: vec![], reach: Reach::Private, provider_tools, log_filter: None }
}

/// The image of the Docker stories.
pub(crate) fn image() -> String {
    std::env::var("RUNBOOKD_TEST_IMAGE").unwrap_or_else(|_| "runbookd-base:bookworm".to_owned())
}

/// Where a sandbox finds this machine.
pub(crate) fn host(kind: EngineKind) -> String {
    match kind {
        EngineKind::Bubblewrap => "127.0.0.1".to_owned(),
        EngineKind::Docker => {
            let format = "{{(index .IPAM.Config 0).Subnet}}";
            let asked = std::process::Command::new("docker")
                .args(["network", "inspect", "bridge", "--format", format])
                .output()
                .unwrap();
            // The bridge has the first address of its network.
            let subnet = String::from_utf8(asked.stdout).unwrap();
            let network = subnet.rsplit_once('.').unwrap().0;
            format!("{network}.1")
        }
    }
}

/// The processes of the host whose command line holds `word`.
pub(crate) fn processes_with(word: &str) -> Vec<String> {
    let commands = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&command).replace('\0', " "))
    });
    commands.filter(|command| command.contains(word)).collect()
}

/// Waits until `fact` holds.
pub(crate) async fn until(mut fact: impl FnMut() -> bool) {
    while !fact() {
        tokio::time::sleep(POLL).await;
    }
}
