//! The run's gateway and its ledger on the disk.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use super::execute::Run;
use crate::gateway::{GatewayParts, GatewayRecord, Ledger, Outcome};
use crate::provider::{Access, Brokered};
use crate::run::{Exhausted, RunFailure, error_chain};
use crate::spend::Purse;
use crate::store::{LogFile, RunFolder, StoreError};
use crate::telemetry::meters;
use crate::trajectory::WireAccount;

/// The file beside the socket with what makes the run's token unique: the next process must know the
/// token that the sandbox has.
const TOKEN: &str = "token";

/// Longest line of the ledger, in bytes. What is longer was not written by a gateway.
const MAX_LINE_BYTES: u64 = 64 << 10;

/// What the run's access is through its gateway. `folder` holds the socket.
pub(super) fn brokered(access: Access, folder: &Path) -> Result<Brokered, RunFailure> {
    let failed = |detail: String| RunFailure::SandboxFailed { detail };
    let unique =
        unique(folder).map_err(|e| failed(format!("no token for the run's gateway: {e}")))?;
    let brokered = access.brokered(&unique);
    brokered
        .ok_or_else(|| failed("the gateway cannot stand in for the credential any more".to_owned()))
}

/// What makes the run's token unlike every other, from the first call on.
fn unique(folder: &Path) -> io::Result<String> {
    let path = folder.join(TOKEN);
    match std::fs::read_to_string(&path) {
        Ok(unique) if !unique.is_empty() => return Ok(unique),
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(_) | Err(_) => {}
    }
    let unique = Uuid::new_v4().simple().to_string();
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(unique.as_bytes())?;
    Ok(unique)
}

/// What the run's requests may take.
pub(super) async fn purse(run: &Run<'_>) -> Result<Purse, RunFailure> {
    let (plan, parts) = (run.plan, run.parts);
    let purse = Purse::of_run(parts.spend.clone(), &plan.name, plan.allowance, parts.clock).await;
    purse.map_err(|e| RunFailure::StoreFailed { detail: error_chain(&e) })
}

/// What the run's gateway is made of.
pub(super) fn gateway_parts(
    run: &Run<'_>,
    brokered: Brokered,
    (socket, purse): (&Path, Purse),
) -> Result<GatewayParts, StoreError> {
    let folder = run.record.folder();
    let last_seq = ledger(folder)?.map_or(0, |ledger| ledger.last_seq());
    let mut log = folder.gateway_log()?;
    // A line that was torn by the end of an earlier process ends here; an empty one is none.
    log.append(b"\n")?;
    let log = Mutex::new(log);
    Ok(GatewayParts {
        run: run.plan.name.clone(),
        socket: socket.to_owned(),
        route: brokered.route,
        token: brokered.token,
        upstream: run.parts.upstream.clone(),
        purse: Some(purse),
        last_seq,
        note: Box::new(move |record| note(&log, record)),
        clock: run.parts.clock,
    })
}

fn note(log: &Mutex<LogFile>, record: &GatewayRecord) {
    if let (Some(took), false) = (record.duration_ms, record.outcome == Outcome::InFlight) {
        let first_byte = record.first_byte_ms.map(Duration::from_millis);
        meters::gateway_request(record.outcome.as_str(), Duration::from_millis(took), first_byte);
    }
    let mut line = serde_json::to_vec(record).expect("our own types have string keys");
    line.push(b'\n');
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(e) = log.append(&line) {
        tracing::error!(error = %error_chain(&e), "a request of an agent is not in its ledger");
    }
}

/// The wire's account of a run; `None` where it had no gateway. It reads a file, so it belongs on a
/// thread that may block.
pub(super) fn wire_account(folder: &RunFolder) -> Option<WireAccount> {
    let ledger = ledger(folder).unwrap_or_else(|e| {
        tracing::error!(error = %error_chain(&e), "the ledger of a run cannot be read");
        None
    })?;
    let outcomes = ledger.n_by_outcome().into_iter();
    Some(WireAccount {
        requests: outcomes.map(|(outcome, n)| (outcome.as_str().to_owned(), n)).collect(),
        models: ledger.counted(),
        broken_off: ledger.uncounted(),
    })
}

/// The limit that a request of the run would have passed. It reads a file, so it belongs on a thread
/// that may block.
pub(super) fn exhausted(folder: &RunFolder) -> Option<Exhausted> {
    ledger(folder).ok().flatten()?.exhausted().cloned()
}

fn ledger(folder: &RunFolder) -> Result<Option<Ledger>, StoreError> {
    let Some(file) = folder.gateway_ledger()? else { return Ok(None) };
    let mut ledger = Ledger::default();
    let mut reader = BufReader::new(file);
    loop {
        let mut line = Vec::new();
        match (&mut reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return Ok(Some(ledger)),
            // A torn line tells nothing; its request has an earlier one.
            Ok(_) => {
                serde_json::from_slice(&line).into_iter().for_each(|record| ledger.add(record))
            }
        }
    }
}
