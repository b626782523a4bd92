//! `runbookd health`: whether a server lives, for people and for container engines.

use super::super::exit::ExitCode;
use super::args::HealthArguments;
use super::{client, end, show, text};
use crate::config::Settings;

/// Asks the server. No token is needed, so none is sent.
pub(in crate::cli) async fn health(arguments: &HealthArguments, settings: &Settings) -> ExitCode {
    let asked = async {
        let client = client(arguments.server.server.as_ref(), None, settings)?;
        let answer = client.health(arguments.ready).await?;
        show(arguments.server.json, &answer, |answer| text(&answer["status"]));
        Ok(ExitCode::Success)
    };
    end(asked.await)
}
