//! Tracing: where log lines go and what they look like.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// What is logged while a person looks on: what someone must act on. The command's own output tells
/// the rest.
pub const FOR_A_PERSON: &str = "warn";

/// What a daemon logs: the milestones of its runs too, for they are all that it shows.
pub const FOR_AN_OPERATOR: &str = "info";

/// What a log line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object on a line.
    Json,
}

/// How log lines are written.
#[derive(Debug, Clone)]
pub struct LogSettings<'a> {
    /// What is logged, in `tracing`'s filter syntax, where somebody said so.
    pub filter: Option<&'a str>,
    /// What is logged otherwise: [`FOR_A_PERSON`] or [`FOR_AN_OPERATOR`].
    pub default_filter: &'static str,
    /// What a line looks like.
    pub format: LogFormat,
    /// Whether colours are unwanted.
    pub no_color: bool,
}

/// Sends log lines to standard error. An unreadable filter falls back to the default and says so.
pub fn start(settings: &LogSettings<'_>) {
    let default = settings.default_filter;
    let (parsed, fault) = match settings.filter.map(EnvFilter::try_new) {
        None => (EnvFilter::new(default), None),
        Some(Ok(parsed)) => (parsed, None),
        Some(Err(e)) => (EnvFilter::new(default), Some(e)),
    };
    let lines = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr);
    let started = match settings.format {
        LogFormat::Text => {
            lines.with_ansi(!settings.no_color && std::io::stderr().is_terminal()).try_init()
        }
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    if let Err(e) = started {
        // Only a second call in one process comes here; the first subscriber stays.
        tracing::debug!(error = %e, "logging was already started");
    }
    if let Some(e) = fault {
        tracing::warn!(error = %e, "RUNBOOKD_LOG is not a filter; using `{default}`");
    }
}
