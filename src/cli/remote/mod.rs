//! The commands that ask a server.

mod args;
mod collection;
mod egress;
mod env;
mod health;
mod logs;
mod news;
mod run;
mod runs;
mod task;
mod tell;
mod usage;

use serde_json::Value;
use url::Url;

use super::exit::ExitCode;
use super::{complain, say};
use crate::client::{Client, ClientSettings};
use crate::config::Settings;
use crate::run::Slug;
use crate::secret::Secret;

pub(super) use args::{
    CollectionCommand, EnvCommand, HealthArguments, LogsArguments, RunsCommand, TaskCommand,
    UsageArguments, server, variable,
};
pub(super) use collection::collection;
pub(super) use egress::egress_ledgers;
pub(super) use env::env;
pub(super) use health::health;
pub(super) use logs::logs;
pub(super) use run::run;
pub(super) use runs::runs;
pub(super) use task::task;
use tell::Trouble;
pub(super) use usage::usage;

/// Where a server of this machine listens when nobody says otherwise.
const DEFAULT_SERVER: &str = "http://127.0.0.1:8000";

/// A client of the server that is meant, with the person's token.
fn connect(given: Option<&Url>, settings: &Settings) -> Result<Client, Trouble> {
    let token = match &settings.remote.token {
        Some(token) => Some(token.clone()),
        None => stored_token(settings)?,
    };
    let client = client(given, token, settings)?;
    if client.exposes_the_token() {
        complain(&format!(
            "the token goes to {} without encryption: put TLS before the server",
            client.server()
        ));
    }
    Ok(client)
}

fn client(
    given: Option<&Url>,
    token: Option<Secret>,
    settings: &Settings,
) -> Result<Client, Trouble> {
    let address = match (given, settings.remote.server.as_deref()) {
        (Some(given), _) => given.clone(),
        (None, named) => {
            let text = named.unwrap_or(DEFAULT_SERVER);
            server(text).map_err(|e| {
                let words = format!("RUNBOOKD_SERVER or JETTY_API_URL is `{text}`: {e}");
                Trouble::new(ExitCode::BadConfig, words)
            })?
        }
    };
    Ok(Client::new(ClientSettings { server: address, token, extra_ca: settings.extra_ca.clone() })?)
}

/// The token that was stored for every client of this API.
fn stored_token(settings: &Settings) -> Result<Option<Secret>, Trouble> {
    let Some(path) = &settings.remote.token_file else { return Ok(None) };
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Ok(Some(Secret::new(text.trim().to_owned()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Trouble::new(
            ExitCode::BadConfig,
            format!("{} cannot be read: {e}", path.display()),
        )),
    }
}

/// The collection that is meant: the one that was named, or the only one that the token opens.
async fn choose(client: &Client, named: Option<&Slug>) -> Result<Slug, Trouble> {
    if let Some(named) = named {
        return Ok(named.clone());
    }
    let found = client.collections().await?;
    let names: Vec<&str> = found.iter().filter_map(|found| found["name"].as_str()).collect();
    let words = match names[..] {
        [] => "there is no collection yet: make one with `runbookd collection create NAME`".into(),
        [one] => match Slug::new(one) {
            Ok(one) => return Ok(one),
            Err(e) => e.to_string(),
        },
        _ => format!("the token opens several collections; add --collection: {}", names.join(", ")),
    };
    Err(Trouble::new(ExitCode::Refused, words))
}

/// Shows what was found: the server's JSON, or what a person reads of it.
fn show(json: bool, answer: &Value, words: impl FnOnce(&Value) -> String) {
    let text = if json { answer.to_string() } else { words(answer) };
    say(&text);
}

/// Ends a command.
fn end(done: Result<ExitCode, Trouble>) -> ExitCode {
    done.unwrap_or_else(|trouble| trouble.tell())
}

/// Rows under a head, each column as wide as its widest cell.
fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let head = head.map(str::to_owned);
    let all = || std::iter::once(&head).chain(rows);
    let widths: Vec<usize> = (0..N)
        .map(|column| all().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all().map(line).collect::<Vec<_>>().join("\n")
}

/// A text as it is, nothing for `null`, anything else as JSON.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["ü".to_owned(), "1".to_owned()], ["long one".to_owned(), String::new()]];
        assert_eq!(table(["NAME", "N"], &rows), "NAME      N\nü         1\nlong one");
    }
}
