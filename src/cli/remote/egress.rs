//! The ledgers of a run's proxy on a server.

use url::Url;

use super::connect;
use super::tell::Trouble;
use crate::cli::exit::ExitCode;
use crate::client::NamedRun;
use crate::config::Settings;
use crate::egress::EgressLedger;
use crate::run::error_chain;
use crate::store::EGRESS_LOG;

/// The ledgers of a run, one for each of its steps that had a proxy.
pub(in crate::cli) async fn egress_ledgers(
    server: &Url,
    run: &str,
    settings: &Settings,
) -> Result<Vec<EgressLedger>, ExitCode> {
    ledgers(server, run, settings).await.map_err(|trouble| trouble.tell())
}

async fn ledgers(
    server: &Url,
    run: &str,
    settings: &Settings,
) -> Result<Vec<EgressLedger>, Trouble> {
    let named = run.parse::<NamedRun>();
    let named = named.map_err(|e| Trouble::new(ExitCode::Refused, error_chain(&e)))?;
    let client = connect(Some(server), settings)?;
    let run = client.find(&named).await?;
    let known = client.run(&run).await?.unwrap_or_default();
    let steps = known["steps"].as_object().into_iter().flatten();
    let files = steps.filter_map(|(_, step)| step["outputs"]["files"].as_array()).flatten();
    let folder = format!("{run}/");
    let mut ledgers = Vec::new();
    for path in files.filter_map(|file| file.as_str()) {
        let Some(path) = path.strip_prefix(&folder).filter(|path| path.ends_with(EGRESS_LOG))
        else {
            continue;
        };
        let mut text = Vec::new();
        client.read_file(&run, path, &mut text).await?;
        // Bytes in memory do not break off.
        ledgers.extend(EgressLedger::read(text.as_slice()));
    }
    Ok(ledgers)
}
