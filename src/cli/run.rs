//! `runbookd run`: one runbook, from a file to its results.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::args::{CommonArguments, RunArguments};
use super::complain;
use super::exit::ExitCode;
use super::parts::{self, Wanted};
use super::progress::{Ending, Progress, Style};
use super::remote;
use crate::config::Settings;
use crate::plan::{Draw, GivenFile, Overrides, RunRequest, Setting, plan};
use crate::run::error_chain;
use crate::run::{Caps, Former, Networks, RunFailure, RunId, Slug};
use crate::worker::{Parts, Stop, execute, find_former};

/// How often an id is drawn before the store is taken to be full of them.
const MAX_DRAWS: u32 = 5;

/// The collection of a run that names none.
const DEFAULT_COLLECTION: &str = "local";

/// Runs what the command line says.
pub(super) async fn run(arguments: &RunArguments, settings: &Settings) -> ExitCode {
    if let Some(server) = &arguments.server {
        return remote::run(server, arguments, settings).await;
    }
    let request = match request(arguments, settings) {
        Ok(request) => request,
        Err(words) => {
            complain(&words);
            return ExitCode::Refused;
        }
    };
    start(&request, &arguments.common, arguments.agent_cli.as_deref(), settings).await
}

/// Plans a request, runs it and shows it.
pub(super) async fn start(
    request: &RunRequest,
    common: &CommonArguments,
    agent_cli: Option<&Path>,
    settings: &Settings,
) -> ExitCode {
    // Before anything is connected or installed: a request that cannot be run needs no engine.
    let snapshots = match parts::snapshots(settings) {
        Ok(snapshots) => snapshots,
        Err(code) => return code,
    };
    // Whoever starts a run by hand decides what it reaches.
    let images = &parts::images(settings, common);
    let setting = Setting { snapshots: &snapshots, networks: &Networks::all(), images };
    let first = match plan(request, &settings.keyring, setting, draw()).accepted() {
        Ok(plan) => plan,
        Err(failure) => return refuse(&failure),
    };
    let style = if common.json { Style::Json } else { Style::People };
    let mut progress = Progress::start(style, Instant::now());
    let wanted = Wanted { common, agent_cli, plan: &first, snapshots };
    let parts = match parts::build(wanted, settings, &mut progress).await {
        Ok(parts) => parts,
        Err(code) => return code,
    };
    run_planned(request, &parts, progress).await
}

async fn run_planned(request: &RunRequest, parts: &Parts, mut progress: Progress) -> ExitCode {
    let stop = Stop::default();
    let mut signals = tokio::task::JoinSet::new();
    signals.spawn(obey_signals(stop.clone()));
    for _ in 0..MAX_DRAWS {
        let (networks, images) = (&parts.egress.networks, &parts.images);
        let setting = Setting { snapshots: &parts.snapshots, networks, images };
        let plan = match plan(request, &parts.keyring, setting, draw()).accepted() {
            Ok(plan) => parts.bounded(plan),
            Err(failure) => return refuse(&failure),
        };
        match execute(parts, &plan, &stop, &mut |update| progress.show(update)).await {
            Ok(report) => {
                let code = ExitCode::of(&report);
                progress.finish(&Ending::from(&report), code);
                return code;
            }
            Err(e) if e.is_name_taken() => {}
            Err(e) => {
                complain(&error_chain(&e));
                return ExitCode::NotWritten;
            }
        }
    }
    complain("no free run id was drawn: archive old runs of this task, or name another `--task`");
    ExitCode::NotWritten
}

/// The first Ctrl-C or SIGTERM ends the run and keeps what it made; the second ends it at once.
async fn obey_signals(stop: Stop) {
    next_signal().await;
    complain("stopping the run; its files are kept (once more: at once, files are lost)");
    stop.cancel.cancel();
    next_signal().await;
    complain("stopping at once");
    stop.force.cancel();
}

async fn next_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers the signals end the process, and the next start reaps its sandbox.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// The names of a new run.
pub(super) fn draw() -> Draw {
    Draw { run_id: RunId::from_uuid(Uuid::new_v4()), session_id: Uuid::new_v4() }
}

/// Tells why a request is not run, a line for each problem.
fn refuse(failure: &RunFailure) -> ExitCode {
    if let RunFailure::Refused { problems } = failure {
        problems.iter().for_each(|problem| complain(problem));
    } else {
        complain(&format!("{failure}. {}", failure.mend()));
    }
    ExitCode::of_failure(failure)
}

/// Reads the files that the command line names.
fn request(arguments: &RunArguments, settings: &Settings) -> Result<RunRequest, String> {
    let script = arguments.script.as_deref().map(|path| {
        String::from_utf8(read(path)?).map_err(|_| format!("{} is not UTF-8", path.display()))
    });
    let network = arguments.network()?;
    let Told { runbook, collection, task, mut variables, former } = told(arguments)?;
    let given = arguments.variables.iter();
    variables.extend(given.map(|variable| (variable.name.clone(), variable.value.clone())));
    Ok(RunRequest {
        runbook,
        collection: arguments.collection.clone().map_or(collection, Ok)?,
        task: arguments.task.clone().map_or(task, Ok)?,
        variables,
        init_params: serde_json::Map::new(),
        assets: arguments.files.iter().cloned().map(GivenFile::from).collect(),
        script: script.transpose()?,
        former,
        overrides: Overrides { network, ..overrides(arguments, settings) },
        ceilings: settings.allowance,
    })
}

fn overrides(arguments: &RunArguments, settings: &Settings) -> Overrides {
    Overrides {
        agent: arguments.agent.clone(),
        model: arguments.model.clone(),
        model_provider: arguments.model_provider.clone(),
        image: arguments.common.image.clone(),
        snapshot: arguments.common.snapshot.clone(),
        apt_packages: Some(arguments.apt_packages.clone()).filter(|some| !some.is_empty()),
        permission_mode: arguments.permission_mode.clone(),
        allowed_tools: (!arguments.allowed_tools.is_empty())
            .then(|| arguments.allowed_tools.clone()),
        disallowed_tools: arguments.disallowed_tools.clone(),
        credentials: arguments.credentials,
        granted_tools: (arguments.provider_tools.as_ref())
            .unwrap_or(&settings.provider_tools)
            .clone(),
        wall: arguments.timeout.map(Duration::from_secs),
        max_turns: arguments.max_turns,
        caps: Caps {
            cost: arguments.max_cost_usd,
            tokens: arguments.max_tokens,
            requests: arguments.max_requests,
        },
        model_retries: arguments.model_retries,
        memory_bytes: arguments.memory,
        disk_bytes: arguments.disk,
        n_cpus: arguments.cpus,
        ..Overrides::default()
    }
}

/// What a run is told by its runbook's file, or by the run that it goes on with.
struct Told {
    runbook: Vec<u8>,
    collection: Result<Slug, String>,
    task: Result<Slug, String>,
    variables: BTreeMap<String, String>,
    former: Option<Former>,
}

fn told(arguments: &RunArguments) -> Result<Told, String> {
    let former = arguments
        .resume
        .as_ref()
        .map(|wanted| find_former(arguments.common.results(), wanted).map_err(|e| error_chain(&e)));
    let former = former.transpose()?;
    match (&arguments.runbook, former) {
        (Some(path), former) => Ok(Told {
            runbook: read(path)?,
            collection: Slug::new(DEFAULT_COLLECTION).map_err(|e| e.to_string()),
            task: task_of(path),
            variables: BTreeMap::new(),
            former,
        }),
        (None, Some(former)) => Ok(Told {
            runbook: former.runbook.clone(),
            collection: Ok(former.name.collection.clone()),
            task: Ok(former.name.task.clone()),
            variables: texts(&former.init_params),
            former: Some(former),
        }),
        (None, None) => Err("name a runbook, or a run to go on with".to_owned()),
    }
}

/// The values that are texts: only those go into a runbook's variables.
fn texts(values: &serde_json::Map<String, serde_json::Value>) -> BTreeMap<String, String> {
    let texts = values.iter().filter_map(|(name, value)| Some((name, value.as_str()?)));
    texts.map(|(name, text)| (name.clone(), text.to_owned())).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))
}

/// The task of a runbook that is only a file: the file's name without its ending.
pub(super) fn task_of(runbook: &Path) -> Result<Slug, String> {
    let stem = runbook.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    Slug::new(stem).map_err(|e| format!("{e}; or name the task with `--task`"))
}
