//! The parts that a run needs, from the settings.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::args::CommonArguments;
use super::complain;
use super::exit::ExitCode;
use super::progress::Progress;
use super::setup::{self, Consent};
use crate::config::Settings;
use crate::run::error_chain;
use crate::sandbox::{DEFAULT_CGROUP_ROOT, Engine, EngineChoice, EngineSettings, SandboxError};
use crate::store::Store;
use crate::toolchain::{Toolchain, ToolchainSettings};
use crate::worker::{AgentSource, Claims, Parts, sweep_sockets};

/// The image of a run that names none. Small, with the shell and the tools that the launcher and
/// the agent CLI need.
const DEFAULT_IMAGE: &str = "debian:bookworm-slim";

/// The folder in the state folder with the sockets of model services in this process.
const SOCKETS: &str = "models";

/// What a command asks of the parts.
pub(super) struct Wanted<'a> {
    pub(super) common: &'a CommonArguments,
    /// An agent CLI instead of the pinned one.
    pub(super) agent_cli: Option<&'a Path>,
    /// The image that the run names.
    pub(super) image: Option<&'a str>,
}

/// Builds the parts. What keeps them from being built was told.
pub(super) async fn build(
    wanted: &Wanted<'_>,
    settings: &Settings,
    progress: &mut Progress,
) -> Result<Parts, ExitCode> {
    let store = Store::open(wanted.common.results()).map_err(|e| {
        complain(&error_chain(&e));
        ExitCode::NotWritten
    })?;
    let (engine, why) = engine(wanted, settings).await?;
    let report = engine.report();
    progress.say(&format!("engine {} {}: {why}", report.kind, report.version));
    for sentence in &report.unenforced {
        progress.say(&format!("! {sentence}"));
    }
    let claims = Claims::open(settings.state_dir.join("claims")).map_err(|e| {
        complain(&format!("the folder {}: {e}", settings.state_dir.display()));
        ExitCode::BadConfig
    })?;
    let sockets = settings.state_dir.join(SOCKETS);
    reap(&engine, &claims, &sockets).await;
    Ok(Parts {
        engine,
        claims,
        sockets,
        agents: agents(wanted.agent_cli, settings)?,
        store,
        keyring: settings.keyring.clone(),
        clock: now,
    })
}

#[expect(clippy::disallowed_methods, reason = "this is the edge, where time comes in")]
pub(super) fn now() -> Timestamp {
    Timestamp::now()
}

/// Whose sandboxes these are: those that were started by hand with this state folder. The claims lie
/// in it, so whoever uses another one cannot see them and must have another name.
fn owner(state_dir: &Path) -> String {
    let digest = Sha256::digest(state_dir.as_os_str().as_encoded_bytes());
    digest[..6].iter().fold("cli-".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

/// Connects to the engine, and sees to it that it can make a sandbox. Where the choice is ours and
/// Docker has no image to start from, Bubblewrap is the next best. Gives the reason of the choice too.
async fn engine(wanted: &Wanted<'_>, settings: &Settings) -> Result<(Engine, String), ExitCode> {
    let choice = choice(wanted.common, settings)?;
    let engine = connect(choice, wanted.common, settings).await?;
    let why = engine.report().why;
    let prepared = engine.prepare(wanted.image).await;
    let Err(no_image) = prepared else { return Ok((engine, why)) };
    if choice == EngineChoice::Auto && wanted.image.is_none() {
        let next = connect(EngineChoice::Bubblewrap, wanted.common, settings).await?;
        return Ok((next, format!("Docker answers, but {}.", error_chain(&no_image))));
    }
    complain(&error_chain(&no_image));
    Err(ExitCode::Unavailable)
}

fn choice(common: &CommonArguments, settings: &Settings) -> Result<EngineChoice, ExitCode> {
    match (common.engine, settings.engine.as_deref()) {
        (Some(choice), _) => Ok(choice),
        (None, None) => Ok(EngineChoice::Auto),
        (None, Some(word)) => word.parse().map_err(|e| {
            complain(&format!("RUNBOOKD_ENGINE: {e}"));
            ExitCode::BadConfig
        }),
    }
}

/// Connects to an engine; installs Bubblewrap first where that was asked for and would help.
async fn connect(
    choice: EngineChoice,
    common: &CommonArguments,
    settings: &Settings,
) -> Result<Engine, ExitCode> {
    let connect = || Engine::connect(choice, engine_settings(settings));
    let may_install = common.setup && choice != EngineChoice::Docker;
    let engine = match connect().await {
        Err(SandboxError::NoEngine { .. }) if may_install => {
            let consent = if common.yes { Consent::Given } else { Consent::Ask };
            setup::install_bubblewrap(consent, &settings.path).map_err(|e| {
                complain(&error_chain(&e));
                ExitCode::Unavailable
            })?;
            connect().await
        }
        first => first,
    };
    engine.map_err(|e| {
        complain(&error_chain(&e));
        if matches!(e, SandboxError::NoEngine { .. }) && choice != EngineChoice::Docker {
            complain("start it again with `--setup` to have Bubblewrap installed; it asks first");
        }
        if matches!(e, SandboxError::Setting { .. }) {
            ExitCode::BadConfig
        } else {
            ExitCode::Unavailable
        }
    })
}

fn engine_settings(settings: &Settings) -> EngineSettings {
    EngineSettings {
        state_dir: settings.state_dir.clone(),
        owner: owner(&settings.state_dir),
        docker_host: settings.docker_host.clone(),
        default_image: Some(settings.image.clone().unwrap_or_else(|| DEFAULT_IMAGE.to_owned())),
        cgroup_root: PathBuf::from(DEFAULT_CGROUP_ROOT),
        path: settings.path.clone(),
    }
}

/// Removes what runs left that were killed.
async fn reap(engine: &Engine, claims: &Claims, sockets: &Path) {
    if let Err(e) = sweep_sockets(sockets, |id| claims.is_held(id)) {
        tracing::warn!(error = %e, "the sockets of killed runs were not removed");
    }
    let reaped = engine.reap(|id| claims.is_held(id)).await;
    match reaped.map_err(|e| error_chain(&e)) {
        Ok(reaped) if reaped.is_empty() => {}
        Ok(reaped) => {
            tracing::info!(n_sandboxes = reaped.len(), "reaped what killed runs had left")
        }
        Err(e) => tracing::warn!(error = e, "could not look for what killed runs left"),
    }
}

fn agents(agent_cli: Option<&Path>, settings: &Settings) -> Result<AgentSource, ExitCode> {
    if let Some(path) = agent_cli {
        // The sandbox sees the file itself, wherever a link leads.
        return match path.canonicalize() {
            Ok(path) => Ok(AgentSource::Executable(path)),
            Err(e) => {
                complain(&format!("--agent-cli {}: {e}", path.display()));
                Err(ExitCode::Usage)
            }
        };
    }
    let toolchain = Toolchain::new(ToolchainSettings {
        cache_dir: settings.cache_dir.clone(),
        registry: settings.registry.clone(),
        registry_token: settings.registry_token.clone(),
        extra_ca: settings.extra_ca.clone(),
    });
    toolchain.map(|toolchain| AgentSource::Pinned(Arc::new(toolchain))).map_err(|e| {
        complain(&format!("{}. {}", error_chain(&e), e.mend()));
        ExitCode::BadConfig
    })
}
