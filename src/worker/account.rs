//! The ledger of a run's gateway, read back: the wire's account, and the figures.

use std::io::{BufRead as _, BufReader, Read as _};
use std::time::Duration;

use crate::gateway::{Ledger, Outcome};
use crate::run::error_chain;
use crate::store::{RunFolder, StoreError};
use crate::telemetry::meters;
use crate::trajectory::WireAccount;

/// Longest line of the ledger, in bytes. What is longer was not written by a gateway.
const MAX_LINE_BYTES: u64 = 64 << 10;

/// The wire's account of a run; `None` where it had no gateway. It reads a file, so it belongs on a
/// thread that may block.
pub(super) fn wire_account(folder: &RunFolder) -> Option<WireAccount> {
    let ledger = ledger_or_none(folder)?;
    let outcomes = ledger.n_by_outcome().into_iter();
    Some(WireAccount {
        requests: outcomes.map(|(outcome, n)| (outcome.as_str().to_owned(), n)).collect(),
        models: ledger.counted(),
        broken_off: ledger.uncounted(),
    })
}

/// Tells the figures of a run whose gateway has ended. It reads a file too.
pub(super) fn tell_meters(folder: &RunFolder) {
    let ledger = ledger_or_none(folder).unwrap_or_default();
    for record in ledger.records() {
        // What a killed gateway left on its way took nobody knows how long.
        if let (Some(took), false) = (record.duration_ms, record.outcome == Outcome::InFlight) {
            let first_byte = record.first_byte_ms.map(Duration::from_millis);
            let took = Duration::from_millis(took);
            meters::gateway_request(record.outcome.as_str(), took, first_byte);
        }
    }
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
