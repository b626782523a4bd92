//! `runbookd collection`: the collections of a server.

use serde_json::Value;

use super::super::exit::ExitCode;
use super::args::CollectionCommand;
use super::tell::Trouble;
use super::{connect, end, show, table, text};
use crate::config::Settings;

/// Does what the command says.
pub(in crate::cli) async fn collection(
    command: &CollectionCommand,
    settings: &Settings,
) -> ExitCode {
    end(obey(command, settings).await)
}

async fn obey(command: &CollectionCommand, settings: &Settings) -> Result<ExitCode, Trouble> {
    match command {
        CollectionCommand::List { server } => {
            let client = connect(server.server.as_ref(), settings)?;
            let found = Value::Array(client.collections().await?);
            show(server.json, &found, |found| {
                let found = found.as_array().into_iter().flatten();
                let row = |c: &Value| [text(&c["name"]), text(&c["description"])];
                table(["NAME", "DESCRIPTION"], &found.map(row).collect::<Vec<_>>())
            });
        }
        CollectionCommand::Create { name, server } => {
            let client = connect(server.server.as_ref(), settings)?;
            let made = client.create_collection(name.as_str()).await?;
            show(server.json, &made, |_| format!("The collection `{name}` is there."));
        }
    }
    Ok(ExitCode::Success)
}
