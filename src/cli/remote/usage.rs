//! `runbookd usage`: what a collection of a server used.

use serde_json::Value;

use super::super::exit::ExitCode;
use super::args::UsageArguments;
use super::tell::Trouble;
use super::{choose, connect, end, show, table, text};
use crate::config::Settings;

/// Does what the command says.
pub(in crate::cli) async fn usage(arguments: &UsageArguments, settings: &Settings) -> ExitCode {
    end(obey(arguments, settings).await)
}

async fn obey(arguments: &UsageArguments, settings: &Settings) -> Result<ExitCode, Trouble> {
    let UsageArguments { server, collection, from, to } = arguments;
    let client = connect(server.server.as_ref(), settings)?;
    let collection = choose(&client, collection.collection.as_ref()).await?;
    let days = (from.as_deref(), to.as_deref());
    let found = client.usage(collection.as_str(), days).await?;
    show(server.json, &found, told);
    Ok(ExitCode::Success)
}

fn told(found: &Value) -> String {
    let days = found["days"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |used: &Value| {
        [
            text(&used["day"]),
            text(&used["model"]),
            used["requests"].to_string(),
            used["input_tokens"].to_string(),
            used["output_tokens"].to_string(),
            used["cache_read_tokens"].to_string(),
            used["cache_write_tokens"].to_string(),
            dollars(&used["cost_usd"]),
        ]
    };
    let mut rows: Vec<[String; 8]> = days.iter().map(row).collect();
    let mut total = row(&found["total"]);
    total[0] = "total".to_owned();
    rows.push(total);
    let head = ["DAY", "MODEL", "REQUESTS", "INPUT", "OUTPUT", "CACHE READ", "CACHE WRITE", "USD"];
    let mut lines = vec![table(head, &rows)];
    for span in ["day", "month"] {
        lines.extend(budget(&found["budgets"][span]));
    }
    lines.join("\n")
}

/// What is spent of a budget that has a limit of money.
fn budget(budget: &Value) -> Option<String> {
    let limit = budget["limits"]["max_cost_usd"].as_f64()?;
    let taken = dollars(&budget["taken"]["cost_usd"]);
    Some(format!("{}: {taken} of {limit} USD are spent.", text(&budget["period"])))
}

fn dollars(value: &Value) -> String {
    format!("{:.4}", value.as_f64().unwrap_or_default())
}
