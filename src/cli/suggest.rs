//! `runbookd suggest-policy`: from what a run reached to the front matter that lets it do that and
//! no more.

use std::io::BufReader;

use super::args::SuggestArguments;
use super::exit::ExitCode;
use super::remote::egress_ledgers;
use super::{complain, say};
use crate::config::Settings;
use crate::egress::{EgressLedger, suggest as suggested};
use crate::run::{RunRef, error_chain};
use crate::store::{Store, StoreError};

/// Prints the policy.
pub(super) async fn suggest(arguments: &SuggestArguments, settings: &Settings) -> ExitCode {
    let ledgers = match &arguments.server {
        Some(server) => match egress_ledgers(server, &arguments.run, settings).await {
            Ok(ledgers) => ledgers,
            Err(code) => return code,
        },
        None => match local(arguments) {
            Ok(ledgers) => ledgers,
            Err(words) => {
                complain(&words);
                return ExitCode::Refused;
            }
        },
    };
    if ledgers.is_empty() {
        complain(
            "the run had no proxy, so nobody knows what it reached: run it once with `network: \
             public`",
        );
        return ExitCode::Refused;
    }
    say(suggested(&ledgers).trim_end());
    ExitCode::Success
}

/// The ledgers of a run in the results directory.
fn local(arguments: &SuggestArguments) -> Result<Vec<EgressLedger>, String> {
    let results = arguments.results();
    let wanted: RunRef = arguments.run.parse().map_err(|e| error_chain(&e))?;
    let none = || {
        format!(
            "there is no run `{wanted}` in {}: name the folder with `--results`, or the server with \
             `--server`",
            results.display()
        )
    };
    let store = Store::existing(results).ok_or_else(none)?;
    let unread = |e: StoreError| error_chain(&e);
    let folder = match store.find(&wanted).map_err(unread)?.as_slice() {
        [name] => store.folder(name).ok_or_else(none)?,
        [] => return Err(none()),
        [_, ..] => {
            return Err(format!("several runs have the id `{wanted}`: write its whole name"));
        }
    };
    let ledgers = folder.egress_ledgers().map_err(unread)?;
    let ledgers = ledgers.into_iter().map(|file| EgressLedger::read(BufReader::new(file)));
    ledgers
        .collect::<Result<_, _>>()
        .map_err(|e| format!("the ledger of the run's proxy cannot be read: {e}"))
}
