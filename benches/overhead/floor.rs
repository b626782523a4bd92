//! The floor: the same CLI with the same prompt, arguments, variables and mounts, in a bare sandbox
//! of the same engine, against the same scripted model. What a shell script would do, and no record.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use runbookd::provider::scripted::{Listen, Script, ScriptedProvider};
use runbookd::provider::{self, SCRIPTED_SOCKET};
use runbookd::run::{McpServers, Permissions, ProviderName, RuntimeName};
use runbookd::runtime::{self, Assignment, Invocation, Session};
use runbookd::sandbox::AGENT_HOME;
use runbookd::secret::Keyring;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use super::agent;
use super::engine::Engine;
use super::setup::{MODEL, RUN_LIMIT, SCRIPT, Setup};
use crate::common::Outcome;

/// Where the CLI is mounted, and where it starts.
const CLI: &str = "/opt/runbookd/bin/claude";
const WORK_DIR: &str = "/app";

/// Where the container's shell finds the standard input and leaves the output.
const EXCHANGE: &str = "/run/exchange";

/// The output is a regular file on both engines: through a pipe the CLI loses its tail.
const REDIRECT: &str =
    r#"exec "$0" "$@" <"$EXCHANGE/stdin" >"$EXCHANGE/stdout" 2>"$EXCHANGE/stderr""#;

/// Folders that the agent may write.
const WRITABLE: [(&str, &str); 4] =
    [(WORK_DIR, "app"), ("/logs", "logs"), ("/tmp", "tmp"), (AGENT_HOME, "home")];

/// Folders that are there before it starts.
const MADE: [&str; 3] = ["app/results", "app/assets", "logs/agent/sessions"];

/// Folders of the host's system that a program needs to start under Bubblewrap.
const SYSTEM: [&str; 5] = ["/bin", "/sbin", "/lib", "/lib64", "/usr"];

/// The `PATH` under Bubblewrap; a container has its image's.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// One finished start of the CLI.
#[derive(Debug)]
pub(crate) struct FloorRun {
    /// From the start of `docker run` or `bwrap` to its end.
    pub(crate) wall: Duration,
    /// The agent CLI's own account of its time.
    pub(crate) own: Duration,
}

/// Starts the CLI once.
pub(crate) async fn run(setup: &Setup, engine: Engine, instruction: &Path) -> Outcome<FloorRun> {
    let stage = Stage::new(setup, &fs::read_to_string(instruction)?)?;
    let script = Script::parse(SCRIPT)?;
    let server = ScriptedProvider::start(script, Listen::Unix(stage.path("model.sock"))).await?;
    let mut command = match engine {
        Engine::Docker => stage.docker(setup),
        Engine::Bubblewrap => stage.bubblewrap()?,
    };
    command.kill_on_drop(true);
    let begun = Instant::now();
    let ended = timeout(RUN_LIMIT, command.status()).await;
    let wall = begun.elapsed();
    let Ok(status) = ended else {
        stage.remove(engine).await?;
        return Err(format!("the floor of {} did not end in {RUN_LIMIT:?}", engine.name()).into());
    };
    let status = status?;
    server.stop().await;
    if !status.success() {
        let words = fs::read_to_string(stage.path("exchange/stderr")).unwrap_or_default();
        return Err(format!("the floor ended with {status}: {}", words.trim()).into());
    }
    Ok(FloorRun { wall, own: agent::own_time(&stage.path("exchange/stdout"))? })
}

/// What is laid out on the host for one start. All of it is made before the clock runs.
struct Stage {
    /// The container's name.
    name: String,
    folder: TempDir,
    invocation: Invocation,
    env: Vec<(String, String)>,
    /// Host path, path inside, whether the agent may write it.
    binds: Vec<(PathBuf, String, bool)>,
}

impl Stage {
    fn new(setup: &Setup, instruction: &str) -> Outcome<Self> {
        let invocation = runtime::invocation(
            RuntimeName::ClaudeCode,
            &Assignment {
                model: MODEL,
                instruction,
                permissions: &Permissions::default(),
                mcp_servers: &McpServers::new(),
                max_turns: None,
                max_output_tokens: None,
                model_retries: 10,
                session: Session::New(uuid::Uuid::new_v4()),
            },
        );
        let env = environment(&invocation)?;
        let folder = tempfile::tempdir_in(setup.folder())?;
        let name = format!("runbookd-bench-{}", uuid::Uuid::new_v4().simple());
        let mut stage = Self { name, folder, invocation, env, binds: Vec::new() };
        for (inside, name) in WRITABLE {
            fs::create_dir(stage.path(name))?;
            stage.bind(stage.path(name), inside, true);
        }
        for made in MADE {
            fs::create_dir_all(stage.path(made))?;
        }
        for (place, (inside, contents)) in stage.invocation.files.clone().into_iter().enumerate() {
            let host = stage.path(&format!("file-{place}"));
            fs::write(&host, contents)?;
            stage.bind(host, &inside, false);
        }
        stage.bind(setup.cli.clone(), CLI, false);
        stage.bind(stage.path("model.sock"), SCRIPTED_SOCKET, false);
        fs::create_dir(stage.path("exchange"))?;
        fs::write(stage.path("exchange/stdin"), &stage.invocation.stdin)?;
        Ok(stage)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn bind(&mut self, host: PathBuf, inside: &str, writable: bool) {
        self.binds.push((host, inside.to_owned(), writable));
    }

    fn docker(&self, setup: &Setup) -> Command {
        let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--workdir", WORK_DIR, "--entrypoint", "/bin/sh"]);
        command.args(["--name", &self.name]);
        command.arg(format!("--user={}:{}", user.as_raw(), group.as_raw()));
        command.arg(format!("--env=EXCHANGE={EXCHANGE}"));
        command.args(self.env.iter().map(|(name, value)| format!("--env={name}={value}")));
        let exchange = (self.path("exchange"), EXCHANGE.to_owned(), true);
        for (host, inside, writable) in self.binds.iter().chain([&exchange]) {
            let mode = if *writable { "" } else { ",readonly" };
            command.arg(format!("--mount=type=bind,src={},dst={inside}{mode}", host.display()));
        }
        command.arg(&setup.image).args(["-c", REDIRECT, CLI]).args(&self.invocation.args);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Ends what hangs. Bubblewrap's sandbox went with `bwrap` itself; a container does not go with
    /// the client that started it.
    async fn remove(&self, engine: Engine) -> Outcome<()> {
        match engine {
            Engine::Docker => {
                let mut command = Command::new("docker");
                command.args(["rm", "--force", &self.name]).kill_on_drop(true);
                timeout(RUN_LIMIT, command.status()).await??;
            }
            Engine::Bubblewrap => {}
        }
        Ok(())
    }

    fn bubblewrap(&self) -> Outcome<Command> {
        let mut command = Command::new("bwrap");
        command.args(["--die-with-parent", "--unshare-pid", "--proc", "/proc", "--dev", "/dev"]);
        for path in SYSTEM {
            match fs::read_link(path) {
                // A link on the host, as most have a merged /usr, stays one inside.
                Ok(target) => command.arg("--symlink").arg(target).arg(path),
                Err(_) => command.args(["--ro-bind-try", path, path]),
            };
        }
        command.args(["--ro-bind", "/etc", "/etc"]);
        for (host, inside, writable) in &self.binds {
            let how = if *writable { "--bind" } else { "--ro-bind" };
            command.args([OsString::from(how), host.into(), inside.into()]);
        }
        command.args(["--chdir", WORK_DIR, CLI]).args(&self.invocation.args);
        command.env_clear().env("PATH", PATH).envs(self.env.iter().cloned());
        command.stdin(File::open(self.path("exchange/stdin"))?);
        command.stdout(File::create(self.path("exchange/stdout"))?);
        command.stderr(File::create(self.path("exchange/stderr"))?);
        Ok(command)
    }
}

/// The variables that runbookd would set.
fn environment(invocation: &Invocation) -> Outcome<Vec<(String, String)>> {
    let keyring = Keyring::default();
    let access = provider::access(ProviderName::Scripted, RuntimeName::ClaudeCode, &keyring)
        .map_err(|faults| format!("{faults:?}"))?;
    let owned = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut env = vec![
        owned("HOME", AGENT_HOME),
        owned("USER", "agent"),
        owned("LOGNAME", "agent"),
        owned("RESULTS_DIR", runbookd::plan::RESULTS_DIR),
    ];
    env.extend(access.env.iter().map(|(name, value)| owned(name, value.expose())));
    env.extend(invocation.env.iter().map(|(name, value)| owned(name, value)));
    Ok(env)
}
