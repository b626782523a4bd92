//! The parts that a run needs, from the settings.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::args::CommonArguments;
use super::complain;
use super::exit::ExitCode;
use super::progress::Progress;
use super::setup::{self, Consent};
use crate::config::Settings;
use crate::sandbox::{DEFAULT_CGROUP_ROOT, Engine, EngineChoice, EngineSettings, SandboxError};
use crate::store::Store;
use crate::toolchain::{Toolchain, ToolchainSettings};
use crate::worker::{AgentSource, Claims, Parts, error_chain};

/// The image of a run that names none. Small, with the shell and the tools that the launcher and
/// the agent CLI need.
const DEFAULT_IMAGE: &str = "debian:bookworm-slim";

/// Builds the parts. What keeps them from being built was told.
pub(super) async fn build(
    common: &CommonArguments,
    agent_cli: Option<&Path>,
    settings: &Settings,
    progress: &mut Progress,
) -> Result<Parts, ExitCode> {
    let store = Store::open(&common.results).map_err(|e| {
        complain(&error_chain(&e));
        ExitCode::NotWritten
    })?;
    let engine = engine(common, settings).await?;
    let report = engine.report();
    progress.say(&format!("engine {} {}: {}", report.kind, report.version, report.why));
    for sentence in &report.unenforced {
        progress.say(&format!("! {sentence}"));
    }
    let claims = Claims::open(settings.state_dir.join("claims")).map_err(|e| {
        complain(&format!("the folder {}: {e}", settings.state_dir.display()));
        ExitCode::BadConfig
    })?;
    reap(&engine, &claims).await;
    Ok(Parts {
        engine,
        claims,
        agents: agents(agent_cli, settings)?,
        store,
        keyring: settings.keyring.clone(),
        clock: now,
    })
}

#[expect(clippy::disallowed_methods, reason = "this is the edge, where time comes in")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// Whose sandboxes these are: those that were started by hand with this state folder. The claims lie
/// in it, so whoever uses another one cannot see them and must have another name.
fn owner(state_dir: &Path) -> String {
    let digest = Sha256::digest(state_dir.as_os_str().as_encoded_bytes());
    digest[..6].iter().fold("cli-".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

/// Connects to the engine; installs one first where that was asked for and none is there.
async fn engine(common: &CommonArguments, settings: &Settings) -> Result<Engine, ExitCode> {
    let choice = match (common.engine, settings.engine.as_deref()) {
        (Some(choice), _) => choice,
        (None, None) => EngineChoice::Auto,
        (None, Some(word)) => word.parse().map_err(|e| {
            complain(&format!("RUNBOOKD_ENGINE: {e}"));
            ExitCode::BadConfig
        })?,
    };
    let connect = || {
        let image = settings.image.clone().unwrap_or_else(|| DEFAULT_IMAGE.to_owned());
        Engine::connect(
            choice,
            EngineSettings {
                state_dir: settings.state_dir.clone(),
                owner: owner(&settings.state_dir),
                docker_host: settings.docker_host.clone(),
                default_image: Some(image),
                cgroup_root: PathBuf::from(DEFAULT_CGROUP_ROOT),
            },
        )
    };
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

/// Removes what runs left that were killed.
async fn reap(engine: &Engine, claims: &Claims) {
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
    toolchain.map(|toolchain| AgentSource::Pinned(Box::new(toolchain))).map_err(|e| {
        complain(&format!("{}. {}", error_chain(&e), e.mend()));
        ExitCode::BadConfig
    })
}
