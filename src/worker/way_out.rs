//! The way out of a run's sandbox, where that is a proxy: what it is to do, and its ledger.

use std::io::{self, BufReader};
use std::path::absolute;

use url::Url;

use super::execute::Run;
use crate::egress::{EgressLedger, Policy, Scope};
use crate::gateway::EgressOrder;
use crate::provider::Access;
use crate::run::{Credentials, error_chain, one_spelling};
use crate::sandbox::PROXY_ADDRESS;
use crate::secret::Secret;
use crate::store::{RunFolder, StoreError};
use crate::telemetry::meters;
use crate::trajectory::EgressAccount;

/// Hosts that are reached without a proxy: the sandbox itself.
const OWN_HOSTS: &str = "localhost,127.0.0.1,::1";

/// The variables by which programs in a sandbox find the proxy.
pub(super) fn proxy_env() -> Vec<(String, Secret)> {
    let proxy = format!("http://{PROXY_ADDRESS}");
    let proxy = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"]
        .map(|name| (name, proxy.clone()));
    let direct = ["NO_PROXY", "no_proxy"].map(|name| (name, OWN_HOSTS.to_owned()));
    // Node reads the others only where this says so.
    let node = [("NODE_USE_ENV_PROXY", "1".to_owned())];
    let all = proxy.into_iter().chain(direct).chain(node);
    all.map(|(name, value)| (name.to_owned(), Secret::new(value))).collect()
}

/// What the proxy of a run is to do; `None` where its network has none. `access` is the real one,
/// whoever asks with it.
pub(super) fn order(run: &Run<'_>, access: &Access) -> io::Result<Option<EgressOrder>> {
    let Some(scope) = Scope::of(&run.plan.network) else { return Ok(None) };
    let folder = run.record.folder();
    Ok(Some(EgressOrder {
        policy: policy(run, scope, access),
        resolver: run.parts.egress.resolver.clone(),
        ledger: absolute(folder.egress_log())?,
        last_seq: last_seq(folder).map_err(io::Error::other)?,
        masked: access.secrets.iter().chain(run.plan.secret_values()).cloned().collect(),
    }))
}

fn policy(run: &Run<'_>, scope: Scope, access: &Access) -> Policy {
    let host = |url: &str| one_spelling(Url::parse(url).ok()?.host_str()?);
    let hosts = access.service_urls().iter().filter_map(|url| host(url)).collect();
    let policy = Policy::new(scope, &run.parts.egress);
    match run.plan.credentials {
        Credentials::Gateway => Policy { gateway_asks: hosts, ..policy },
        Credentials::Direct => Policy { agent_asks: hosts, ..policy },
    }
}

/// The number of a run's last attempt. It reads a file.
///
/// # Errors
/// [`StoreError`] when the ledger cannot be read: the next attempts would take the numbers of others.
pub(super) fn last_seq(folder: &RunFolder) -> Result<u64, StoreError> {
    Ok(ledger(folder)?.map_or(0, |ledger| ledger.last_seq()))
}

/// What a run tried to reach; `None` where it had no proxy. It reads a file, so it belongs on a
/// thread that may block.
pub(super) fn egress_account(folder: &RunFolder) -> Option<EgressAccount> {
    ledger_or_none(folder).map(|ledger| ledger.account())
}

/// Tells the figures of a proxy that has ended. It reads a file too.
pub(super) fn tell_meters(folder: &RunFolder) {
    let figures = ledger_or_none(folder).map(|ledger| ledger.figures()).unwrap_or_default();
    for ((outcome, rule), n) in figures {
        meters::egress(outcome, rule, n);
    }
}

fn ledger_or_none(folder: &RunFolder) -> Option<EgressLedger> {
    ledger(folder).unwrap_or_else(|e| {
        tracing::error!(error = %error_chain(&e), "the ledger of a run's proxy cannot be read");
        None
    })
}

fn ledger(folder: &RunFolder) -> Result<Option<EgressLedger>, StoreError> {
    let Some(file) = folder.egress_ledger()? else { return Ok(None) };
    let ledger = EgressLedger::read(BufReader::new(file));
    ledger.map(Some).map_err(|source| StoreError::Read { path: folder.egress_log(), source })
}
