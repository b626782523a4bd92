//! The way out of a sandbox: a proxy outside of it that resolves names, checks addresses and keeps
//! a line for each attempt, and the relay inside that leads to it.
//!
//! The sandbox itself has no network but its loopback. `policy.rs` says which hosts, ports and
//! addresses may be reached and why not; `dial.rs` resolves once and connects to an address that was
//! checked; `request.rs` takes a request to the proxy apart, `plain.rs` passes HTTP on and
//! `tunnel.rs` what comes behind a CONNECT, whose first bytes `hello.rs` reads.

mod dial;
mod hello;
mod ledger;
mod meter;
mod plain;
mod policy;
mod private;
mod refusal;
mod relay;
mod request;
mod resolver;
mod server;
mod services;
mod suggest;
mod target;
mod tunnel;

pub use ledger::{EgressLedger, EgressRecord, MAX_LINE_BYTES, MAX_RECORDS, Outcome, each_line};
pub use policy::{EgressSettings, Policy, Scope};
pub use private::{BadRange, PrivateRange};
pub use relay::{READY, RelayError, relay};
pub use resolver::{BadPin, Resolver};
pub use server::{Proxy, ProxyParts};
pub use suggest::suggest;

#[cfg(test)]
mod tests;
