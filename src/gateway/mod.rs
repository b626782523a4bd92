//! The door out of a sandbox to its model service: the credential is put on outside of it, every
//! request is looked at before it goes, and every answer is metered while it passes.
//!
//! Each run has a gateway of its own, on a socket that only its sandbox sees, with a token that is
//! worth nothing anywhere else. `policy.rs` says what may be asked for, `room.rs` has memory for its
//! body, `inspect.rs` reads it for what would reach the network past the sandbox (`tools.rs` and
//! `content.rs` for its lists), `admit.rs` sets aside what it may cost
//! (`bill.rs`), `forward.rs` passes it on, `meter.rs` reads
//! the usage out of the bytes that pass, and `ledger.rs` keeps a line for each request.
//!
//! It is a process of its own and outlives the server, as the sandbox does: `launch.rs` starts one
//! and tells it its order (`order.rs`), `process.rs` is its life, `control.rs` is what can be said to
//! it and `contact.rs` says it. `place.rs` is the folder where both sides meet.

mod admit;
mod aws;
mod bill;
mod blocks;
mod book;
mod contact;
mod content;
mod control;
mod forward;
mod google;
mod headers;
mod inspect;
mod launch;
mod ledger;
mod media;
mod meter;
mod order;
mod place;
mod policy;
mod process;
mod refusal;
mod room;
mod server;
mod tools;
mod upstream;
mod way_out;

pub use bill::{cost_of, took};
pub use contact::{Contact, ContactError};
pub use control::{CONTROL_VERSION, Who};
pub use google::BadKey;
pub use launch::{ENVIRONMENT, LaunchError, Program, THIS_PROGRAM, tail};
pub use ledger::{Charged, Entry, GatewayRecord, Ledger, MAX_RECORDS, Outcome, Reserved};
pub use order::{GatewayOrder, PurseOrder};
pub use place::{Place, ShortPath};
pub use process::{ProcessError, Serving, answer, receive, withdraw};
pub use server::{Gateway, GatewayError, GatewayParts};
pub use upstream::{Inadmissible, Upstream, UpstreamError, admit};
pub use way_out::{EgressOrder, WayOut};

#[cfg(test)]
mod tests;
