//! Tracing: where log lines go and what they look like.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// What is logged when nothing else is said: what someone must act on. A command's own output
/// tells the rest.
const DEFAULT_FILTER: &str = "warn";

/// Sends log lines to standard error. An unreadable filter falls back to the default and says so.
pub fn start(filter: Option<&str>, no_color: bool) {
    let (parsed, fault) = match filter.map(EnvFilter::try_new) {
        None => (EnvFilter::new(DEFAULT_FILTER), None),
        Some(Ok(parsed)) => (parsed, None),
        Some(Err(e)) => (EnvFilter::new(DEFAULT_FILTER), Some(e)),
    };
    let started = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        .with_ansi(!no_color && std::io::stderr().is_terminal())
        .try_init();
    if let Err(e) = started {
        // Only a second call in one process comes here; the first subscriber stays.
        tracing::debug!(error = %e, "logging was already started");
    }
    if let Some(e) = fault {
        tracing::warn!(error = %e, "RUNBOOKD_LOG is not a filter; using `{DEFAULT_FILTER}`");
    }
}
