//! Every story of the whole program, against real parts.
//!
//! The engines and the agent CLI are real. Where an engine is missing its stories are skipped,
//! loudly; with `RUNBOOKD_REQUIRE_ENGINES=1` they fail instead.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests fail by unwrapping, say what they skip, and are told so by the environment"
)]

#[macro_use]
mod support;

mod attacks;
mod chat_passthrough;
mod chat_runs;
mod cli;
mod cli_doctor;
mod cli_runs;
mod client;
mod crashes;
mod daemon;
mod gateway;
mod jetty_clients;
mod runs_agent;
mod runs_broken;
mod runs_budget;
mod runs_fake;
mod runs_guard;
mod runs_network;
mod runs_outcomes;
mod runs_permissions;
mod runs_prompt;
mod runs_provider;
mod runs_resume;
mod runs_setup;
mod runs_stall;
mod runs_stop;
mod runs_usage;
mod runs_walls;
mod runs_wires;
mod sandbox;
mod snapshots;
mod steps;
mod workers;
