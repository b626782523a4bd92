//! `runbookd run --server`: a runbook of this machine on a server, followed to its end.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde_json::{Map, Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use url::Url;
use uuid::Uuid;

use super::super::args::RunArguments;
use super::super::complain;
use super::super::exit::ExitCode;
use super::super::progress::{Ending, Failure, Progress, Style, put};
use super::super::run::task_of;
use super::tell::Trouble;
use super::{choose, connect, end, news, runs, task};
use crate::client::{Client, Event, Submission, Submitted};
use crate::config::Settings;
use crate::run::RunName;
use crate::secret::Secret;

/// Runs what the command line says on a server.
pub(in crate::cli) async fn run(
    server: &Url,
    arguments: &RunArguments,
    settings: &Settings,
) -> ExitCode {
    end(obey(server, arguments, settings).await)
}

async fn obey(
    server: &Url,
    arguments: &RunArguments,
    settings: &Settings,
) -> Result<ExitCode, Trouble> {
    let refuse = |words| Trouble::new(ExitCode::Refused, words);
    refuse_what_is_local(arguments)?;
    let secrets = secrets(arguments, settings)?;
    let runbook = arguments.runbook.as_deref().map(read).transpose()?;
    let name = match (&arguments.task, &arguments.runbook) {
        (Some(task), _) => task.clone(),
        (None, Some(runbook)) => task_of(runbook).map_err(refuse)?,
        (None, None) => return Err(refuse("name a FILE, or a --task of the server".to_owned())),
    };
    let init_params = init_params(arguments)?;
    let client = connect(Some(server), settings)?;
    let collection = choose(&client, arguments.collection.as_ref()).await?;
    let style = if arguments.common.json { Style::Json } else { Style::People };
    let mut progress = Progress::start(style, Instant::now());
    match runbook {
        Some(runbook) => {
            let done = task::ensure(&client, (&collection, &name), &runbook).await?;
            if let Some(done) = done {
                progress.say(&format!("{done} the task {collection}/{name}"));
            }
        }
        None => drop(task::existing(&client, &collection, &name).await?),
    }
    let wish = Submission {
        collection,
        task: name,
        init_params,
        files: arguments.files.clone(),
        secrets,
        key: Uuid::new_v4(),
    };
    let submitted = client.submit(&wish).await?;
    for note in &submitted.notes {
        progress.say(&format!("! {note}"));
    }
    if arguments.no_wait {
        drop(progress);
        tell_submitted(arguments.common.json, &submitted);
        return Ok(ExitCode::Success);
    }
    follow(&client, &submitted.run, progress).await
}

fn tell_submitted(json: bool, submitted: &Submitted) {
    if json {
        let run = &submitted.run;
        let line = json!({
            "event": "submitted",
            "collection": run.collection.as_str(),
            "task": run.task.as_str(),
            "trajectory_id": run.id.as_str(),
            "workflow_id": run.workflow_id(),
        });
        put(&line.to_string());
    } else {
        put(&submitted.run.to_string());
    }
}

/// Follows a run to its end. The first Ctrl-C or SIGTERM stops the run, the second leaves it.
async fn follow(
    client: &Client,
    run: &RunName,
    mut progress: Progress,
) -> Result<ExitCode, Trouble> {
    progress.say(&format!("{run} waits on {}", client.server()));
    let place = place(client, run);
    let (mut signals, mut n_signals) = (Signals::new(), 0);
    let mut follow = client.follow(run, 0);
    loop {
        let event = tokio::select! {
            event = follow.next() => event?,
            () = signals.next() => {
                n_signals += 1;
                if n_signals > 1 {
                    complain(&format!("left the run {run}, which ends by itself"));
                    return Ok(ExitCode::Cancelled);
                }
                complain("stopping the run; its files are kept (once more: leave it)");
                client.cancel(run).await?;
                continue;
            }
        };
        match event {
            Some(event) if !event.is_last => {
                if let Some(update) = news::update(&event.json, &place) {
                    progress.show(update);
                }
            }
            last => return finish((client, run), last, progress).await,
        }
    }
}

/// Shows how a run ended.
async fn finish(
    (client, run): (&Client, &RunName),
    last: Option<Event>,
    progress: Progress,
) -> Result<ExitCode, Trouble> {
    let is_json = matches!(progress, Progress::Json(_));
    let event = last.map(|event| event.json).unwrap_or_default();
    let place = place(client, run);
    let ending = Ending::of_event(&event, place).map_err(|e| {
        let words = format!("the server's word on the end of the run cannot be read: {e}");
        Trouble::new(ExitCode::Unavailable, words)
    })?;
    let ending = explained(client, run, ending).await?;
    let code = ending.failure.as_ref().map(|failure| failure.code.as_str());
    let code = ExitCode::of_words(&ending.status, code, ending.passed);
    progress.finish(&ending, code);
    if !is_json {
        runs::say_how_to_download(run);
    }
    Ok(code)
}

/// A run that failed before a worker could say why: the server's record has the reason.
async fn explained(client: &Client, run: &RunName, mut ending: Ending) -> Result<Ending, Trouble> {
    if ending.status == "failed" && ending.failure.is_none() {
        let known = runs::known(client, run).await?;
        ending.failure = Some(Failure {
            code: "unknown".to_owned(),
            message: super::text(&known["error"]),
            mend: "Read the server's log around that time.".to_owned(),
        });
    }
    Ok(ending)
}

/// The address of a run.
fn place(client: &Client, run: &RunName) -> String {
    let (collection, task) = (run.collection.as_str(), run.task.as_str());
    client.address(&["api", "v1", "trajectory", collection, task, run.id.as_str()]).to_string()
}

/// What this machine decides of a run cannot be decided for a server.
fn refuse_what_is_local(arguments: &RunArguments) -> Result<(), Trouble> {
    let common = &arguments.common;
    let given = [
        ("--engine", common.engine.is_some()),
        ("--results", common.results.is_some()),
        ("--setup", common.setup),
        ("--agent-cli", arguments.agent_cli.is_some()),
        ("--credentials", arguments.credentials.is_some()),
        ("--provider-tools", arguments.provider_tools.is_some()),
        ("--model-retries", arguments.model_retries.is_some()),
        ("--permission-mode", arguments.permission_mode.is_some()),
        ("--allowed-tool", !arguments.allowed_tools.is_empty()),
        ("--disallowed-tool", !arguments.disallowed_tools.is_empty()),
    ];
    let named: Vec<&str> = given.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    if named.is_empty() {
        return Ok(());
    }
    let words = format!("{} cannot be chosen for a server: leave it out", named.join(" and "));
    Err(Trouble::new(ExitCode::Refused, words))
}

/// The secrets of the run, out of this process's environment.
fn secrets(
    arguments: &RunArguments,
    settings: &Settings,
) -> Result<BTreeMap<String, Secret>, Trouble> {
    let mut secrets = BTreeMap::new();
    for name in &arguments.secrets {
        let value = settings.keyring.get(name).ok_or_else(|| {
            let words = format!("--secret {name}: there is no such variable here; export it first");
            Trouble::new(ExitCode::Refused, words)
        })?;
        secrets.insert(name.clone(), value.clone());
    }
    Ok(secrets)
}

/// What the command line decides instead of the task.
fn init_params(arguments: &RunArguments) -> Result<Map<String, Value>, Trouble> {
    let mut params = Map::new();
    if !arguments.variables.is_empty() {
        let variables = arguments.variables.iter();
        let variables: Map<String, Value> =
            variables.map(|v| (v.name.clone(), v.value.clone().into())).collect();
        params.insert("vars".to_owned(), variables.into());
    }
    let network = arguments.network().map_err(|e| Trouble::new(ExitCode::Refused, e))?;
    let script = arguments.script.as_deref().map(read).transpose()?;
    let given: [(&str, Option<Value>); 15] = [
        ("agent", arguments.agent.clone().map(Value::from)),
        ("model", arguments.model.clone().map(Value::from)),
        ("model_provider", arguments.model_provider.clone().map(Value::from)),
        ("image", arguments.common.image.clone().map(Value::from)),
        ("snapshot", arguments.common.snapshot.clone().map(Value::from)),
        ("script", script.map(Value::from)),
        ("network", network.as_ref().map(Value::from)),
        ("timeout_sec", arguments.timeout.map(Value::from)),
        ("max_turns", arguments.max_turns.map(Value::from)),
        ("max_cost_usd", arguments.max_cost_usd.map(|usd| Value::from(usd.dollars()))),
        ("max_tokens", arguments.max_tokens.map(Value::from)),
        ("max_requests", arguments.max_requests.map(Value::from)),
        ("memory", arguments.memory.map(Value::from)),
        ("disk", arguments.disk.map(Value::from)),
        ("cpus", arguments.cpus.map(Value::from)),
    ];
    params.extend(given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    Ok(params)
}

fn read(path: &Path) -> Result<String, Trouble> {
    std::fs::read_to_string(path).map_err(|e| {
        Trouble::new(ExitCode::Refused, format!("{} cannot be read: {e}", path.display()))
    })
}

/// Ctrl-C and SIGTERM. Where they cannot be heard they end the process, and the run goes on.
struct Signals {
    listeners: Option<(Signal, Signal)>,
}

impl Signals {
    fn new() -> Self {
        let interrupt = signal(SignalKind::interrupt()).ok();
        Self { listeners: interrupt.zip(signal(SignalKind::terminate()).ok()) }
    }

    async fn next(&mut self) {
        match &mut self.listeners {
            None => std::future::pending().await,
            Some((interrupt, terminate)) => {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            }
        }
    }
}
