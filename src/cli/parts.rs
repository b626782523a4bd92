//! The parts that a run needs, from the settings.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::args::CommonArguments;
use super::build_log::{BuildLog, step};
use super::complain;
use super::exit::ExitCode;
use super::progress::Progress;
use super::setup::{self, Consent};
use crate::config::Settings;
use crate::egress::EgressSettings;
use crate::gateway::{ENVIRONMENT, Program, THIS_PROGRAM};
use crate::reach::Reach;
use crate::run::{Base, ImageRecipe, ImageRules, Networks, RunPlan, error_chain};
use crate::sandbox::{
    DEFAULT_CGROUP_ROOT, Engine, EngineChoice, EngineKind, EngineSettings, SandboxError,
};
use crate::snapshot::{DEFAULT_SNAPSHOT, Snapshots};
use crate::spend::Spend;
use crate::store::Store;
use crate::toolchain::{Toolchain, ToolchainSettings};
use crate::trajectory::one_line;
use crate::worker::{self, AgentSource, Claims, Parts, SharedDisk, sweep_sockets};

/// The folder in the state folder with the model services of sandboxes.
const SOCKETS: &str = "models";

/// What a command asks of the parts.
pub(super) struct Wanted<'a> {
    pub(super) common: &'a CommonArguments,
    /// An agent CLI instead of the pinned one.
    pub(super) agent_cli: Option<&'a Path>,
    /// The run's plan.
    pub(super) plan: &'a RunPlan,
    /// What can be built to start from.
    pub(super) snapshots: Snapshots,
}

/// Builds the parts. What keeps them from being built was told.
pub(super) async fn build(
    wanted: Wanted<'_>,
    settings: &Settings,
    progress: &mut Progress,
) -> Result<Parts, ExitCode> {
    let store = Store::open(wanted.common.results()).map_err(|e| {
        complain(&error_chain(&e));
        ExitCode::NotWritten
    })?;
    let (engine, why) = engine(&wanted, settings, progress).await?;
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
    let spend = Spend::open(&settings.state_dir.join(Spend::FILE)).await.map_err(|e| {
        complain(&error_chain(&e));
        ExitCode::BadConfig
    })?;
    Ok(Parts {
        engine,
        guard: settings.guard,
        images: images(settings, wanted.common),
        redact_artifacts: settings.redact_artifacts,
        // Whoever starts a run by hand decides what it reaches.
        egress: EgressSettings { networks: Networks::all(), ..settings.server.egress.clone() },
        // Whoever starts a run by hand chooses its model service.
        gateway: gateway(settings, Reach::Private),
        claims,
        sockets,
        agents: agents(wanted.agent_cli, settings)?,
        snapshots: wanted.snapshots,
        store,
        spend,
        ceilings: settings.allowance,
        keyring: settings.keyring.clone(),
        stall: settings.stall,
        disk: SharedDisk::new(settings.server.min_free_disk_bytes / 2, settings.disk),
        clock: now,
    })
}

/// Which images a run by hand may name: those that the person names itself are no runbook's wish.
pub(super) fn images(settings: &Settings, common: &CommonArguments) -> ImageRules {
    let ImageRules { named, extended } = settings.images.clone();
    let own = common.image.as_deref();
    ImageRules { named: named.with(own), extended: extended.with(own) }
}

/// What gateways are started from.
pub(super) fn gateway(settings: &Settings, reach: Reach) -> Program {
    let environment =
        ENVIRONMENT.iter().filter_map(|name| Some((*name, settings.keyring.get(name)?.clone())));
    Program {
        path: PathBuf::from(THIS_PROGRAM),
        environment: environment.collect(),
        reach,
        provider_tools: settings.provider_tools.clone(),
        log_filter: settings.log_filter.clone(),
    }
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
async fn engine(
    wanted: &Wanted<'_>,
    settings: &Settings,
    progress: &mut Progress,
) -> Result<(Engine, String), ExitCode> {
    let choice = choice(wanted.common, settings)?;
    let engine = connect(choice, wanted.common, settings).await?;
    let why = engine.report().why;
    let is_ours = choice == EngineChoice::Auto
        && wanted.plan.base == Base::Default
        && wanted.plan.apt_packages.is_empty();
    let prepared = match wanted.plan.base.image().or(engine.default_image()) {
        Some(image) if wanted.plan.base.snapshot().is_none() => engine.prepare(Some(image)).await,
        // Only where Bubblewrap may take its place must it be known now whether it can be built; else
        // the run builds it, and keeps the log.
        Some(_) | None if is_ours => default_snapshot(&engine, wanted, settings, progress).await,
        Some(_) | None => Ok(()),
    };
    let Err(no_image) = prepared else { return Ok((engine, why)) };
    if is_ours {
        let next = connect(EngineChoice::Bubblewrap, wanted.common, settings).await?;
        return Ok((next, format!("Docker answers, but {}.", error_chain(&no_image))));
    }
    complain(&error_chain(&no_image));
    Err(ExitCode::Unavailable)
}

/// Builds the default snapshot where it can be built. Bubblewrap needs none.
async fn default_snapshot(
    engine: &Engine,
    wanted: &Wanted<'_>,
    settings: &Settings,
    progress: &mut Progress,
) -> Result<(), SandboxError> {
    if engine.report().kind == EngineKind::Bubblewrap {
        return Ok(());
    }
    let recipes = wanted.snapshots.recipes(DEFAULT_SNAPSHOT);
    let mut log = BuildLog::open(&settings.state_dir, DEFAULT_SNAPSHOT);
    let mut heard = |recipe: &ImageRecipe, line: &str| {
        log.write(line);
        if let Some(step) = step(line) {
            let step = one_line(step);
            progress.say(&format!("building the snapshot `{}`: {step}", recipe.title));
        }
    };
    worker::build(engine, &recipes, &mut heard).await
}

/// The snapshots that can be built here. What is wrong with them was told.
pub(super) fn snapshots(settings: &Settings) -> Result<Snapshots, ExitCode> {
    Snapshots::open(&settings.snapshots).map_err(|e| {
        complain(&error_chain(&e));
        ExitCode::BadConfig
    })
}

fn choice(common: &CommonArguments, settings: &Settings) -> Result<EngineChoice, ExitCode> {
    common.engine.map_or_else(|| choose(settings.engine.as_deref()), Ok).map_err(|e| {
        complain(&e);
        ExitCode::BadConfig
    })
}

/// The engine that the settings name.
pub(super) fn choose(named: Option<&str>) -> Result<EngineChoice, String> {
    let choice = named.map_or(Ok(EngineChoice::Auto), str::parse);
    choice.map_err(|e| format!("RUNBOOKD_ENGINE: {e}"))
}

/// Connects to an engine, and to nothing else.
pub(super) async fn connect_plainly(
    choice: EngineChoice,
    settings: &Settings,
) -> Result<Engine, SandboxError> {
    Engine::connect(choice, engine_settings(settings)).await
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

/// The engine as the settings want it.
pub(super) fn engine_settings(settings: &Settings) -> EngineSettings {
    EngineSettings {
        state_dir: settings.state_dir.clone(),
        owner: owner(&settings.state_dir),
        docker_host: settings.docker_host.clone(),
        default_image: settings.image.clone(),
        cgroup_root: PathBuf::from(DEFAULT_CGROUP_ROOT),
        // This very program, even where another one took its place meanwhile.
        program: PathBuf::from("/proc/self/exe"),
        path: settings.path.clone(),
    }
}

/// Removes what runs left that were killed.
async fn reap(engine: &Engine, claims: &Claims, sockets: &Path) {
    if let Err(e) = sweep_sockets(sockets, |id| claims.is_held(id)).await {
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

/// Where agent CLIs come from. What is wrong with it was told.
pub(super) fn agents(
    agent_cli: Option<&Path>,
    settings: &Settings,
) -> Result<AgentSource, ExitCode> {
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
    let toolchain = Toolchain::new(toolchain_settings(settings));
    toolchain.map(|toolchain| AgentSource::Pinned(Arc::new(toolchain))).map_err(|e| {
        complain(&format!("{}. {}", error_chain(&e), e.mend()));
        ExitCode::BadConfig
    })
}

/// Where agent CLIs come from, as the settings want it.
pub(super) fn toolchain_settings(settings: &Settings) -> ToolchainSettings {
    ToolchainSettings {
        cache_dir: settings.cache_dir.clone(),
        registry: settings.registry.clone(),
        registry_token: settings.registry_token.clone(),
        extra_ca: settings.extra_ca.clone(),
    }
}
