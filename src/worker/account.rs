//! The ledger of a run's gateway, read back: the wire's account, and the figures.

use std::io::BufReader;
use std::time::Duration;

use crate::gateway::{Ledger, Outcome};
use crate::run::{Exhausted, error_chain};
use crate::store::{RunFolder, StoreError};
use crate::telemetry::meters;
use crate::trajectory::WireAccount;

/// The wire's account of a run; `None` where it had no gateway. It reads a file, so it belongs on a
/// thread that may block.
pub(super) fn wire_account(folder: &RunFolder) -> Option<WireAccount> {
    let ledger = ledger_or_none(folder)?;
    let outcomes = ledger.n_by_outcome().into_iter();
    Some(WireAccount {
        requests: outcomes.map(|(outcome, n)| (outcome.as_str().to_owned(), n)).collect(),
        models: ledger.counted(),
        broken_off: ledger.uncounted(),
        guard: ledger.guard(),
    })
}

/// Tells the figures of a run whose gateway has ended. It reads a file too.
pub(super) fn tell_meters(folder: &RunFolder) {
    let ledger = ledger_or_none(folder).unwrap_or_default();
    for record in ledger.entries() {
        // What a killed gateway left on its way took nobody knows how long.
        let is_over = !matches!(record.outcome, Outcome::Waiting | Outcome::InFlight);
        if let (Some(took), true) = (record.duration_ms, is_over) {
            let first_byte = record.first_byte_ms.map(Duration::from_millis);
            let took = Duration::from_millis(took);
            meters::gateway_request(record.outcome.as_str(), took, first_byte);
        }
        if let Some(exhausted) = &record.exhausted {
            meters::budget_refused(exhausted.span.as_str());
        }
    }
}

/// The limit that a request of the run would have passed. It reads a file, so it belongs on a thread
/// that may block.
pub(super) fn exhausted(folder: &RunFolder) -> Option<Exhausted> {
    ledger_or_none(folder)?.exhausted().cloned()
}

/// The number of the run's last request.
///
/// # Errors
/// [`StoreError`] when the ledger cannot be read.
pub(super) fn last_seq(folder: &RunFolder) -> Result<u64, StoreError> {
    Ok(ledger(folder)?.map_or(0, |ledger| ledger.last_seq()))
}

fn ledger_or_none(folder: &RunFolder) -> Option<Ledger> {
    ledger(folder).unwrap_or_else(|e| {
        tracing::error!(error = %error_chain(&e), "the ledger of a run cannot be read");
        None
    })
}

fn ledger(folder: &RunFolder) -> Result<Option<Ledger>, StoreError> {
    let Some(file) = folder.gateway_ledger()? else { return Ok(None) };
    let ledger = Ledger::read(BufReader::new(file));
    ledger.map(Some).map_err(|source| StoreError::Read { path: folder.gateway_log(), source })
}
