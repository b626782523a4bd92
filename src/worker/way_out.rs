//! The way out of a run's sandbox, where that is a proxy: the proxy, and its ledger on the disk.

use std::io::BufReader;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tokio::net::UnixListener;
use url::Url;

use super::execute::Run;
use crate::egress::{EgressLedger, EgressRecord, Policy, Proxy, ProxyParts, Scope};
use crate::provider::Access;
use crate::run::{Credentials, RunFailure, error_chain, one_spelling};
use crate::sandbox::PROXY_ADDRESS;
use crate::secret::{Redactor, Secret};
use crate::store::{LogFile, RunFolder, StoreError};
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

/// Starts the proxy of a run on a socket; `None` where its network has none. `access` is the real
/// one, whoever asks with it.
pub(super) fn proxy(
    run: &Run<'_>,
    socket: &Path,
    access: &Access,
) -> Result<Option<Proxy>, RunFailure> {
    let Some(scope) = Scope::of(&run.plan.network) else { return Ok(None) };
    let failed = |detail: String| RunFailure::SandboxFailed { detail };
    let listener = UnixListener::bind(socket)
        .map_err(|e| failed(format!("the proxy could not listen on its socket: {e}")))?;
    let (note, last_seq) =
        noting(run, access).map_err(|e| RunFailure::StoreFailed { detail: error_chain(&e) })?;
    Ok(Some(Proxy::start(ProxyParts {
        listener,
        policy: policy(run, scope, access),
        resolver: run.parts.egress.resolver.clone(),
        last_seq,
        note,
        clock: run.parts.clock,
    })))
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

type Note = Box<dyn Fn(&EgressRecord) + Send + Sync>;

/// What keeps the ledger, and the number of its last attempt. A host can be made of a secret, so
/// every line is masked.
fn noting(run: &Run<'_>, access: &Access) -> Result<(Note, u64), StoreError> {
    let folder = run.record.folder();
    let last_seq = ledger(folder)?.map_or(0, |ledger| ledger.last_seq());
    let mut log = folder.egress_log()?;
    // A line that was torn by the end of an earlier process ends here; an empty one is none.
    log.append(b"\n")?;
    let log = Mutex::new(log);
    let redactor = Redactor::new(access.secrets.iter().chain(run.plan.secret_values()));
    Ok((Box::new(move |record| note(&log, &redactor, record)), last_seq))
}

fn note(log: &Mutex<LogFile>, redactor: &Redactor, record: &EgressRecord) {
    let line = serde_json::to_string(record).expect("our own types have string keys");
    let mut line = redactor.redact_str(&line);
    line.push('\n');
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(e) = log.append(line.as_bytes()) {
        tracing::error!(error = %error_chain(&e), "an attempt of an agent is not in its ledger");
    }
}

/// What a run tried to reach; `None` where it had no proxy. It reads a file, so it belongs on a
/// thread that may block.
pub(super) fn egress_account(folder: &RunFolder) -> Option<EgressAccount> {
    let ledger = ledger(folder).unwrap_or_else(|e| {
        tracing::error!(error = %error_chain(&e), "the ledger of a run's proxy cannot be read");
        None
    })?;
    Some(ledger.account())
}

fn ledger(folder: &RunFolder) -> Result<Option<EgressLedger>, StoreError> {
    Ok(folder.egress_ledger()?.map(|file| EgressLedger::read(BufReader::new(file))))
}
