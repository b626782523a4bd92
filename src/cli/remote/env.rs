//! `runbookd env`: the variables of a collection. Values go in and never come out.

use std::io::{IsTerminal as _, Read as _};

use console::Term;
use serde_json::Value;

use super::super::exit::ExitCode;
use super::args::{CollectionArgument, EnvCommand, ServerArguments};
use super::tell::Trouble;
use super::{choose, connect, end, show};
use crate::config::Settings;
use crate::secret::Secret;

/// Largest value, in bytes: a service account's key has a few kilobytes.
const MAX_VALUE_BYTES: u64 = 64 << 10;

/// Does what the command says.
pub(in crate::cli) async fn env(command: &EnvCommand, settings: &Settings) -> ExitCode {
    end(obey(command, settings).await)
}

async fn obey(command: &EnvCommand, settings: &Settings) -> Result<ExitCode, Trouble> {
    match command {
        EnvCommand::List { server, collection } => {
            let client = connect(server.server.as_ref(), settings)?;
            let collection = choose(&client, collection.collection.as_ref()).await?;
            let found = client.environment(collection.as_str()).await?;
            show(server.json, &found, |found| {
                let names = found["environment_variables"].as_object();
                let names: Vec<&str> =
                    names.into_iter().flatten().map(|(n, _)| n.as_str()).collect();
                if names.is_empty() {
                    return format!(
                        "`{collection}` has no variables: set one with `runbookd env set NAME`"
                    );
                }
                names.join("\n")
            });
        }
        EnvCommand::Set { name, server, collection } => {
            let value = ask(name)?;
            change((server, collection), (name, Some(&value)), settings).await?;
        }
        EnvCommand::Unset { name, server, collection } => {
            change((server, collection), (name, None), settings).await?;
        }
    }
    Ok(ExitCode::Success)
}

async fn change(
    (server, collection): (&ServerArguments, &CollectionArgument),
    (name, value): (&str, Option<&Secret>),
    settings: &Settings,
) -> Result<(), Trouble> {
    let client = connect(server.server.as_ref(), settings)?;
    let collection = choose(&client, collection.collection.as_ref()).await?;
    let changed: Value = client.set_variable(collection.as_str(), name, value).await?;
    let what = if value.is_some() { "is set" } else { "is removed" };
    show(server.json, &changed, |_| format!("{name} {what} in `{collection}`."));
    Ok(())
}

/// The value: from a person who is not overlooked, or from standard input to its end.
fn ask(name: &str) -> Result<Secret, Trouble> {
    let refuse = |words: String| Trouble::new(ExitCode::Refused, words);
    let unread = |e| refuse(format!("the value of {name} could not be read: {e}"));
    let value = if std::io::stdin().is_terminal() {
        let term = Term::stderr();
        term.write_str(&format!("{name}: ")).map_err(unread)?;
        term.read_secure_line().map_err(unread)?
    } else {
        let mut value = String::new();
        let mut input = std::io::stdin().lock().take(MAX_VALUE_BYTES + 1);
        input.read_to_string(&mut value).map_err(unread)?;
        value
    };
    if value.len() as u64 > MAX_VALUE_BYTES {
        return Err(refuse(format!("the value of {name} has more than {MAX_VALUE_BYTES} bytes")));
    }
    // `echo` ends a line that is no part of the value.
    let value = value.strip_suffix('\n').unwrap_or(&value);
    let value = value.strip_suffix('\r').unwrap_or(value);
    if value.is_empty() {
        return Err(refuse(format!(
            "the value of {name} is empty: pipe it in, or remove it with `runbookd env unset {name}`"
        )));
    }
    Ok(Secret::new(value.to_owned()))
}
