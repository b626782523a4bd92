//! `runbookd token`: through the server's own socket when it is up, in this process when it is not.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::args::TokenCommand;
use super::exit::ExitCode;
use super::parts::now;
use super::{complain, say};
use crate::api::{OperatorDoor, OperatorReply};
use crate::config::Settings;
use crate::daemon::{Foundation, operator_socket};
use crate::run::error_chain;

/// Does what the command says.
pub(super) async fn token(command: &TokenCommand, settings: &Settings) -> ExitCode {
    match Foundation::open(settings, now).await {
        Ok(foundation) => {
            let door = OperatorDoor::Here(foundation.api.clone());
            let code = through(&door, command).await;
            drop(door);
            foundation.close().await;
            code
        }
        Err(e) if e.is_in_use() => {
            let socket = operator_socket(&settings.state_dir);
            through(&OperatorDoor::Socket(socket), command).await
        }
        Err(e) => {
            complain(&error_chain(&e));
            ExitCode::Unavailable
        }
    }
}

async fn through(door: &OperatorDoor, command: &TokenCommand) -> ExitCode {
    let done = match command {
        TokenCommand::Create { name, collection, admin: _ } => {
            create(door, name, collection.as_deref()).await
        }
        TokenCommand::List => list(door).await,
        TokenCommand::Revoke { id } => revoke(door, *id).await,
    };
    match done {
        Ok(words) => {
            say(&words);
            ExitCode::Success
        }
        Err(words) => {
            complain(&words);
            ExitCode::Refused
        }
    }
}

async fn create(
    door: &OperatorDoor,
    name: &str,
    collection: Option<&str>,
) -> Result<String, String> {
    let wish = match collection {
        Some(collection) => {
            ensure(door, collection).await?;
            json!({ "name": name, "collection_name": collection })
        }
        None => json!({ "name": name, "scope": "admin" }),
    };
    let made = accepted(ask(door, "POST", "/api/v1/api-keys", Some(&wish)).await?)?;
    Ok(text(&made["api_key"]))
}

/// Sees to it that the collection is there.
async fn ensure(door: &OperatorDoor, collection: &str) -> Result<(), String> {
    let path = format!("/api/v1/collections/{}", segment(collection));
    if ask(door, "GET", &path, None).await?.is_success {
        return Ok(());
    }
    let wish = json!({ "name": collection });
    accepted(ask(door, "POST", "/api/v1/collections", Some(&wish)).await?).map(|_| ())
}

async fn list(door: &OperatorDoor) -> Result<String, String> {
    let keys = accepted(ask(door, "GET", "/api/v1/api-keys", None).await?)?;
    let keys = keys.as_array().map_or(&[][..], Vec::as_slice);
    if keys.is_empty() {
        return Ok("There is no token: make one with `runbookd token create NAME --admin`.".into());
    }
    let mut lines = vec![line(["ID", "PREFIX", "OPENS", "ACTIVE", "LAST USED", "NAME"])];
    lines.extend(keys.iter().map(|key| {
        let opens = key["collection_name"].as_str().unwrap_or("everything");
        let active = if key["is_active"] == true { "yes" } else { "no" };
        let last_used = key["last_used_at"].as_str().unwrap_or("never");
        let (id, prefix, name) = (text(&key["id"]), text(&key["key_prefix"]), text(&key["name"]));
        line([&id, &prefix, opens, active, last_used, &name])
    }));
    Ok(lines.join("\n"))
}

async fn revoke(door: &OperatorDoor, id: u64) -> Result<String, String> {
    let path = format!("/api/v1/api-keys/{id}");
    accepted(ask(door, "DELETE", &path, None).await?)?;
    Ok(format!("The token {id} opens nothing any more."))
}

async fn ask(
    door: &OperatorDoor,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<OperatorReply, String> {
    door.ask(method, path, body).await.map_err(|e| error_chain(&e))
}

/// The answer, or the API's own words for why it refused.
fn accepted(reply: OperatorReply) -> Result<Value, String> {
    if reply.is_success { Ok(reply.body) } else { Err(text(&reply.body["detail"])) }
}

fn line([id, prefix, opens, active, last_used, name]: [&str; 6]) -> String {
    format!("{id:<5} {prefix:<9} {opens:<24} {active:<7} {last_used:<25} {name}")
}

fn segment(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

/// A text without its quotes, anything else as JSON.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
