//! `runbookd task`: the tasks of a collection, and the task that a runbook alone makes.

use std::path::Path;

use serde_json::{Value, json};

use super::super::exit::ExitCode;
use super::args::TaskCommand;
use super::tell::Trouble;
use super::{choose, connect, end, show, table, text};
use crate::client::Client;
use crate::config::Settings;
use crate::run::Slug;

/// The step of a task that is a runbook and nothing else. What is not said here is looked for in
/// the request's own parameters.
const STEP: &str = "run";

/// Does what the command says.
pub(in crate::cli) async fn task(command: &TaskCommand, settings: &Settings) -> ExitCode {
    end(obey(command, settings).await)
}

async fn obey(command: &TaskCommand, settings: &Settings) -> Result<ExitCode, Trouble> {
    match command {
        TaskCommand::List { server, collection } => {
            let client = connect(server.server.as_ref(), settings)?;
            let collection = choose(&client, collection.collection.as_ref()).await?;
            let found = Value::Array(client.tasks(collection.as_str()).await?);
            show(server.json, &found, |found| {
                let found = found.as_array().into_iter().flatten();
                let row = |task: &Value| [text(&task["name"]), text(&task["description"])];
                table(["TASK", "DESCRIPTION"], &found.map(row).collect::<Vec<_>>())
            });
        }
        TaskCommand::Show { task, server, collection } => {
            let client = connect(server.server.as_ref(), settings)?;
            let collection = choose(&client, collection.collection.as_ref()).await?;
            let found = existing(&client, &collection, task).await?;
            show(server.json, &found, shown);
        }
        TaskCommand::Put { file, server, collection, task } => {
            let wish = Wish::read(file, task.as_ref())?;
            let client = connect(server.server.as_ref(), settings)?;
            let collection = choose(&client, collection.collection.as_ref()).await?;
            let (put, made) = wish.put(&client, &collection).await?;
            let what = if made { "made" } else { "changed" };
            show(server.json, &put, |put| {
                let warnings = put["warnings"].as_array().into_iter().flatten();
                let warnings: String = warnings.map(|w| format!("\n! {}", text(w))).collect();
                format!("The task {collection}/{} is {what}.{warnings}", text(&put["name"]))
            });
        }
        TaskCommand::Delete { task, server, collection } => {
            let client = connect(server.server.as_ref(), settings)?;
            let collection = choose(&client, collection.collection.as_ref()).await?;
            let gone = client.delete_task(collection.as_str(), task.as_str()).await?;
            show(server.json, &gone, |_| format!("The task {collection}/{task} is removed."));
        }
    }
    Ok(ExitCode::Success)
}

/// A task that must be there.
pub(super) async fn existing(
    client: &Client,
    collection: &Slug,
    task: &Slug,
) -> Result<Value, Trouble> {
    client.task(collection.as_str(), task.as_str()).await?.ok_or_else(|| {
        let words = format!(
            "there is no task {collection}/{task}: `runbookd task list --collection {collection}` \
             shows what there is"
        );
        Trouble::new(ExitCode::Refused, words)
    })
}

/// Sees to it that a task runs this runbook, and says whether it had to be made or changed. A task
/// that somebody wrote by hand is left as it is.
pub(super) async fn ensure(
    client: &Client,
    (collection, task): (&Slug, &Slug),
    runbook: &str,
) -> Result<Option<&'static str>, Trouble> {
    let workflow = workflow_of(runbook);
    let Some(there) = client.task(collection.as_str(), task.as_str()).await? else {
        let body = json!({ "name": task.as_str(), "workflow": workflow, "description": "" });
        client.create_task(collection.as_str(), &body).await?;
        return Ok(Some("made"));
    };
    if there["workflow"] == workflow {
        return Ok(None);
    }
    if !is_only_a_runbook(&there["workflow"]) {
        let words = format!(
            "the task {collection}/{task} has a workflow of its own: name another --task, run it \
             as it is without a FILE, or replace it with `runbookd task put`"
        );
        return Err(Trouble::new(ExitCode::Refused, words));
    }
    let body = json!({ "workflow": workflow });
    client.update_task(collection.as_str(), task.as_str(), &body).await?;
    Ok(Some("changed"))
}

fn workflow_of(runbook: &str) -> Value {
    json!({
        "init_params": { "instruction": runbook },
        "step_configs": { STEP: { "activity": "runbook" } },
        "steps": [STEP],
    })
}

/// Whether a workflow is one that a runbook alone makes.
fn is_only_a_runbook(workflow: &Value) -> bool {
    let runbook = workflow["init_params"]["instruction"].as_str();
    runbook.is_some_and(|runbook| *workflow == workflow_of(runbook))
}

/// A task as a file describes it.
struct Wish {
    name: Slug,
    body: Value,
}

impl Wish {
    fn read(file: &Path, task: Option<&Slug>) -> Result<Self, Trouble> {
        let refuse = |words: String| Trouble::new(ExitCode::Refused, words);
        let shown = file.display();
        let text = std::fs::read_to_string(file)
            .map_err(|e| refuse(format!("{shown} cannot be read: {e}")))?;
        let is_json = file.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
        let mut body = if is_json {
            let found: Value = serde_json::from_str(&text)
                .map_err(|e| refuse(format!("{shown} is not JSON: {e}")))?;
            if found["workflow"].is_object() { found } else { json!({ "workflow": found }) }
        } else {
            json!({ "workflow": workflow_of(&text) })
        };
        let own = body["name"].as_str().map(str::to_owned);
        let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let name = match task {
            Some(task) => task.clone(),
            None => Slug::new(own.as_deref().unwrap_or(stem))
                .map_err(|e| refuse(format!("{e}; or name the task with `--task`")))?,
        };
        body["name"] = name.as_str().into();
        Ok(Self { name, body })
    }

    /// Changes the task that is there, or makes it; says whether it was made.
    async fn put(&self, client: &Client, collection: &Slug) -> Result<(Value, bool), Trouble> {
        let name = self.name.as_str();
        if client.task(collection.as_str(), name).await?.is_some() {
            return Ok((client.update_task(collection.as_str(), name, &self.body).await?, false));
        }
        Ok((client.create_task(collection.as_str(), &self.body).await?, true))
    }
}

fn shown(task: &Value) -> String {
    let workflow = serde_json::to_string_pretty(&task["workflow"]).unwrap_or_default();
    let (name, description) = (text(&task["name"]), text(&task["description"]));
    let gap = if description.is_empty() { "" } else { "\n" };
    format!("{name}{gap}{description}\n{workflow}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_task_that_is_a_runbook_and_nothing_else_may_be_changed_by_a_run() {
        assert!(is_only_a_runbook(&workflow_of("# Hello\n")));
        for (key, value) in [
            ("/step_configs/run/timeout_sec", json!(5)),
            ("/init_params/vars", json!({})),
            ("/steps", json!(["other"])),
        ] {
            let mut workflow = workflow_of("# Hello\n");
            let (parent, name) = key.rsplit_once('/').unwrap();
            let parent = if parent.is_empty() {
                &mut workflow
            } else {
                workflow.pointer_mut(parent).unwrap()
            };
            parent[name] = value;
            assert!(!is_only_a_runbook(&workflow), "{key}");
        }
    }
}
