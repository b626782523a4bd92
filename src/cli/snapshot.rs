//! `runbookd snapshot`: which images sandboxes can start from, building them, removing old ones.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Value, json};

use super::args::SnapshotCommand;
use super::build_log::BuildLog;
use super::exit::ExitCode;
use super::{complain, parts};
use crate::config::Settings;
use crate::run::{ImageRecipe, error_chain};
use crate::sandbox::{Engine, EngineChoice};
use crate::snapshot::{DEFAULT_SNAPSHOT, Origin, Snapshot, Snapshots};
use crate::worker;

/// The version of the list as JSON.
const FORMAT_VERSION: u32 = 1;

/// Does what the command line says.
pub(super) async fn snapshot(what: &SnapshotCommand, settings: &Settings) -> ExitCode {
    let snapshots = match parts::snapshots(settings) {
        Ok(snapshots) => snapshots,
        Err(code) => return code,
    };
    let docker = parts::connect_plainly(EngineChoice::Docker, settings).await;
    match (what, docker) {
        (SnapshotCommand::List { json }, docker) => list(&snapshots, docker.ok(), *json).await,
        (SnapshotCommand::Build { names }, Ok(docker)) => {
            build(&snapshots, names, &docker, settings).await
        }
        (SnapshotCommand::Prune, Ok(docker)) => prune(&snapshots, &docker).await,
        (SnapshotCommand::Build { .. } | SnapshotCommand::Prune, Err(error)) => {
            complain(&error_chain(&error));
            ExitCode::Unavailable
        }
    }
}

/// One snapshot in the list.
struct Row<'a> {
    snapshot: &'a Snapshot,
    image: String,
    /// `None` where Docker does not answer.
    is_built: Option<bool>,
    tools: Vec<String>,
}

async fn list(snapshots: &Snapshots, docker: Option<Engine>, as_json: bool) -> ExitCode {
    let mut rows = Vec::new();
    for snapshot in snapshots.iter() {
        let recipes = snapshots.recipes(&snapshot.name);
        let image = recipes.last().map(|recipe| recipe.tag.clone()).unwrap_or_default();
        let is_built = match &docker {
            Some(docker) => docker.has_image(&image).await.ok(),
            None => None,
        };
        rows.push(Row { snapshot, image, is_built, tools: snapshots.tools(&snapshot.name) });
    }
    put(&if as_json { json_text(&rows) } else { text(&rows) });
    ExitCode::Success
}

fn text(rows: &[Row<'_>]) -> String {
    let mut text = String::new();
    for Row { snapshot, image, is_built, tools } in rows {
        let default = if snapshot.name == DEFAULT_SNAPSHOT { " (default)" } else { "" };
        let state = match is_built {
            Some(true) => "built",
            Some(false) => "built when it is first used",
            None => "Docker does not answer",
        };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "{}{default}: {}\n  {}\n  {image}\n  {state}\n",
            snapshot.name,
            snapshot.description,
            tools.join(" ")
        );
    }
    text
}

fn json_text(rows: &[Row<'_>]) -> String {
    let snapshots: Vec<Value> = rows.iter().map(json_value).collect();
    json!({ "format_version": FORMAT_VERSION, "snapshots": snapshots }).to_string() + "\n"
}

fn json_value(row: &Row<'_>) -> Value {
    json!({
        "name": row.snapshot.name,
        "description": row.snapshot.description,
        "is_default": row.snapshot.name == DEFAULT_SNAPSHOT,
        "origin": match row.snapshot.origin {
            Origin::BuiltIn => "built_in",
            Origin::Own => "own",
        },
        "from": row.snapshot.from,
        "tools": row.tools,
        "image": row.image,
        "is_built": row.is_built,
    })
}

async fn build(
    snapshots: &Snapshots,
    names: &[String],
    docker: &Engine,
    settings: &Settings,
) -> ExitCode {
    let unknown: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| snapshots.get(name).is_none()).collect();
    if !unknown.is_empty() {
        let known: Vec<&str> = snapshots.iter().map(|snapshot| snapshot.name.as_str()).collect();
        complain(&format!(
            "no snapshot is called {}: there are {}",
            unknown.join(", "),
            known.join(", ")
        ));
        return ExitCode::Usage;
    }
    for name in names {
        let recipes = snapshots.recipes(name);
        let mut log = BuildLog::open(&settings.state_dir, name);
        let mut heard = |_: &ImageRecipe, line: &str| {
            log.write(line);
            put(&format!("{line}\n"));
        };
        let built = worker::build(docker, &recipes, &mut heard).await;
        if let Err(error) = built {
            complain(&format!("the snapshot `{name}`: {}", error_chain(&error)));
            complain(&format!("the whole log is {}", log.path().display()));
            return ExitCode::Unavailable;
        }
        let image = recipes.last().map(|recipe| recipe.tag.as_str()).unwrap_or_default();
        put(&format!("{name} is built: {image}\n"));
    }
    ExitCode::Success
}

async fn prune(snapshots: &Snapshots, docker: &Engine) -> ExitCode {
    let current: BTreeSet<String> = snapshots
        .iter()
        .flat_map(|snapshot| snapshots.recipes(&snapshot.name))
        .map(|recipe| recipe.tag)
        .collect();
    match docker.prune(&current).await {
        Ok(pruned) if pruned.is_empty() => put("nothing to remove\n"),
        Ok(pruned) => {
            for image in pruned {
                put(&format!("removed {} ({} MB)\n", image.name, image.bytes / 1_000_000));
            }
        }
        Err(error) => {
            complain(&error_chain(&error));
            return ExitCode::Unavailable;
        }
    }
    ExitCode::Success
}

fn put(text: &str) {
    let mut out = std::io::stdout().lock();
    // A reader that went away needs no answer.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
