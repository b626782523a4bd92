//! runbookd runs agent runbooks in sandboxes, keeps what happened, and counts every token.
//!
//! Read the modules in this order: the domain (plain data and rules), the adapters (each owns one
//! outside thing), the worker (one run, in order), the edge (what a person types). Imports go down
//! this list's layers and never back; `tests/architecture.rs` holds the table.

// Domain: plain data and rules. No async, no files, no network, no clock.
pub mod budget;
pub mod cadence;
pub mod guard;
pub mod run;
pub mod runbook;
pub mod secret;
pub mod trajectory;
pub mod workflow;

// Adapters: each owns one outside thing and never imports another, but that the statements of the
// queue and of the catalog run on the database.
pub mod archive;
pub mod catalog;
pub mod client;
pub mod database;
pub mod egress;
pub mod gateway;
pub mod host;
pub mod provider;
pub mod queue;
pub mod reach;
pub mod runtime;
pub mod sandbox;
pub mod snapshot;
pub mod spend;
pub mod store;
pub mod toolchain;

// Flow.
pub mod inputs;
pub mod intake;
pub mod job;
pub mod plan;
pub mod records;
pub mod routines;
pub mod upstream;
pub mod webhook;
pub mod worker;

// Edge.
pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod telemetry;
