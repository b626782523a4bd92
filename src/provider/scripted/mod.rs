//! The model inside this binary: a server of Claude's wire formats whose answers come from a script.
//!
//! It shows what a runbook does without spending a token, and it is the model of our own tests:
//! the agent CLI is real, the sandbox is real, only the words of the model are written beforehand.
//!
//! # A script
//!
//! ```yaml
//! turns:
//!   - text: I will write the file.
//!     tools:
//!       - Bash: { command: "echo hi > /app/results/hello.txt" }
//!   - text: Done.
//! ```
//!
//! Every key is described in `docs/scripted-provider.md`. In short:
//!
//! * `turns` are the answers of the main loop, in order. A turn **answers** (`thinking`, `text`,
//!   `text_repeat`, `tools`, with `stop`, `usage`, `delay_ms`, `chunk_delay_ms`) or it **disturbs**
//!   the answering turn below it (`fail`, `drop`, `hang`, `raw`, each `times` times).
//! * `subagents` answer requests of sub-agents, found by `when` in their first user message.
//! * `side` answers calls without tools (the session's title), `compaction` the summary request.
//! * `after_end` says what follows when the turns are used up.
//!
//! # Wire formats
//!
//! The path decides: Anthropic's Messages API, the same below a gateway's or OpenRouter's base,
//! Amazon Bedrock, Google Vertex AI. `route` finds the format and the wish, `framing` and `failure`
//! say the answer in it; what lies between knows only Anthropic's messages.
//!
//! # How a request finds its turn
//!
//! By what it says, not by when it came: a request that carries *n* answers of the assistant gets
//! turn *n* + 1, so a retry, or the CLI's second attempt without streaming, gets the same turn
//! again. A summary written by `compaction` carries the number of turns it stands for. Only
//! disturbances need a memory: the *n*-th request for a turn meets the *n*-th disturbance above it.

mod auth;
mod checked;
mod choice;
mod connection;
mod delivery;
mod endpoints;
mod events;
mod failure;
mod framing;
mod ledger;
mod message;
mod read;
mod reply;
mod request;
mod route;
mod script;
mod server;
mod text;
mod turn;

#[cfg(test)]
mod tests;

pub use auth::{Auth, Authorization, Fingerprint};
pub use ledger::{Delivery, LedgerEntry, Place, SentUsage};
pub use read::ScriptError;
pub use route::Wire;
pub use script::Script;
pub use server::{Listen, ListenError, ScriptedProvider};
