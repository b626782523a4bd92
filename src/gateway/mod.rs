//! The door out of a sandbox to its model service: the credential is put on outside of it, every
//! request is looked at before it goes, and every answer is metered while it passes.
//!
//! Each run has a gateway of its own, on a socket that only its sandbox sees, with a token that is
//! worth nothing anywhere else. `policy.rs` says what may be asked for, `inspect.rs` reads a request
//! for what would reach the network past the sandbox, `admit.rs` sets aside what it may cost
//! (`bill.rs`), `forward.rs` passes it on, `meter.rs` reads
//! the usage out of the bytes that pass, and `ledger.rs` keeps a line for each request.

mod admit;
mod bill;
mod forward;
mod headers;
mod inspect;
mod ledger;
mod meter;
mod policy;
mod refusal;
mod server;
mod upstream;

pub use bill::{cost_of, took};
pub use ledger::{Charged, GatewayRecord, Ledger, MAX_RECORDS, Outcome, Reserved};
pub use server::{Gateway, GatewayError, GatewayParts};
pub use upstream::{Inadmissible, Upstream, UpstreamError, admit};

#[cfg(test)]
mod tests;
