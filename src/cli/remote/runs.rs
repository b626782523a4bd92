//! `runbookd runs`: the runs of a server.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::exit::ExitCode;
use super::args::RunsCommand;
use super::tell::Trouble;
use super::{choose, connect, end, say, show, table, text};
use crate::client::{Client, Listed};
use crate::config::Settings;
use crate::run::{RunName, Slug};

/// How much of a time is shown: down to the second.
const SHOWN_OF_TIME: usize = "2026-01-02T03:04:05".len();

/// How much of an error a row has, in characters.
const SHOWN_OF_ERROR: usize = 60;

/// Does what the command says.
pub(in crate::cli) async fn runs(command: &RunsCommand, settings: &Settings) -> ExitCode {
    end(obey(command, settings).await)
}

async fn obey(command: &RunsCommand, settings: &Settings) -> Result<ExitCode, Trouble> {
    match command {
        RunsCommand::List { server, collection, task, status, limit } => {
            let client = connect(server.server.as_ref(), settings)?;
            let collection = choose(&client, collection.collection.as_ref()).await?;
            let listed = Listed { status: status.clone(), limit: *limit };
            let found = list(&client, (&collection, task.as_ref()), &listed).await?;
            show(server.json, &found, |found| rows(&collection, found));
        }
        RunsCommand::Show { run, server } => {
            let client = connect(server.server.as_ref(), settings)?;
            let name = client.find(run).await?;
            let found = known(&client, &name).await?;
            show(server.json, &found, |found| shown(&name, found));
        }
        RunsCommand::Cancel { run, server } => {
            let client = connect(server.server.as_ref(), settings)?;
            let name = client.find(run).await?;
            let answer = client.cancel(&name).await?;
            show(server.json, &answer, |_| format!("The run {name} is being stopped."));
        }
        RunsCommand::Download { run, server, file, output } => {
            let client = connect(server.server.as_ref(), settings)?;
            let name = client.find(run).await?;
            let to = target(&name, file.as_deref(), output.as_deref())?;
            match file {
                Some(file) => client.download_file(&name, file, &to).await?,
                None => client.download(&name, &to).await?,
            }
            let done = json!({ "trajectory_id": name.id.as_str(), "path": to });
            show(server.json, &done, |_| to.display().to_string());
        }
    }
    Ok(ExitCode::Success)
}

/// What is known of a run that must be there.
pub(super) async fn known(client: &Client, name: &RunName) -> Result<Value, Trouble> {
    let missing = || Trouble::new(ExitCode::Refused, format!("there is no run {name}"));
    client.run(name).await?.ok_or_else(missing)
}

/// The runs of a task, or of all tasks of a collection.
async fn list(
    client: &Client,
    (collection, task): (&Slug, Option<&Slug>),
    listed: &Listed,
) -> Result<Value, Trouble> {
    if let Some(task) = task {
        return Ok(client.runs(collection.as_str(), task.as_str(), listed).await?);
    }
    let (mut all, mut total) = (Vec::new(), 0);
    for task in client.tasks(collection.as_str()).await? {
        let found = client.runs(collection.as_str(), &text(&task["name"]), listed).await?;
        total += found["total"].as_u64().unwrap_or_default();
        all.extend(found["trajectories"].as_array().into_iter().flatten().cloned());
    }
    // The server writes all times in one form, so their texts sort as they do.
    all.sort_by(|one, two| text(&two["created"]).cmp(&text(&one["created"])));
    all.truncate(usize::try_from(listed.limit).unwrap_or(usize::MAX));
    Ok(json!({ "trajectories": all, "total": total }))
}

fn rows(collection: &Slug, found: &Value) -> String {
    let runs = found["trajectories"].as_array().map_or(&[][..], Vec::as_slice);
    if runs.is_empty() {
        return format!("There are no such runs in `{collection}`.");
    }
    let row = |run: &Value| {
        let error: String = text(&run["error"])
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(SHOWN_OF_ERROR)
            .collect();
        [
            format!("{}/{}", text(&run["name"]), text(&run["trajectory_id"])),
            text(&run["status"]),
            text(&run["created"]).chars().take(SHOWN_OF_TIME).collect(),
            error,
        ]
    };
    let rows: Vec<[String; 4]> = runs.iter().map(row).collect();
    table(["RUN", "STATUS", "CREATED", "ERROR"], &rows)
}

fn shown(name: &RunName, run: &Value) -> String {
    let mut lines = vec![format!("run      {name}"), format!("status   {}", text(&run["status"]))];
    let mut line = |word: &str, value: &Value| {
        let value = text(value);
        if !value.is_empty() {
            lines.push(format!("{word:<8} {value}"));
        }
    };
    if run["activity"].is_object() {
        let (state, since) = (text(&run["activity"]["state"]), text(&run["activity"]["since"]));
        line("doing", &format!("{state} since {since}").into());
    }
    line("error", &run["error"]);
    line("mend", &run["failure"]["mend"]);
    line("created", &run["created"]);
    line("updated", &run["updated"]);
    line("passed", &run["verdict"]["passed"]);
    let usage = &run["usage"]["total"];
    for (word, key) in [("input", "input"), ("output", "output"), ("cost", "cost_usd")] {
        line(word, &usage[key]);
    }
    for (step, found) in run["steps"].as_object().into_iter().flatten() {
        line("step", &format!("{step}: {}", text(&found["status"])).into());
        line("took", &found["duration_seconds"]);
        line("model", &found["outputs"]["model"]);
        for file in found["outputs"]["results_files"].as_array().into_iter().flatten() {
            line("file", &file["path"]);
        }
    }
    lines.join("\n")
}

/// Where a download goes. A file that is there is replaced only when it was named.
fn target(name: &RunName, file: Option<&str>, output: Option<&Path>) -> Result<PathBuf, Trouble> {
    if let Some(output) = output {
        return Ok(output.to_owned());
    }
    let own = match file {
        Some(file) => file.rsplit('/').next().unwrap_or_default().to_owned(),
        None => format!("{}-{}.zip", name.task, name.id),
    };
    let own = PathBuf::from(own);
    if own.file_name().is_none() || own.exists() {
        let words = format!(
            "`{}` is here already, or is no name for a file: name another with `--output`",
            own.display()
        );
        return Err(Trouble::new(ExitCode::Refused, words));
    }
    Ok(own)
}

/// Tells how the files of a run are had.
pub(super) fn say_how_to_download(name: &RunName) {
    say(&format!("         runbookd runs download {name}"));
}
