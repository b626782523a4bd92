//! Tracing: where log lines go and what they look like.

use std::io::{self, IsTerminal as _, Write};

use tracing_subscriber::EnvFilter;

use crate::secret::Redactor;

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

/// Standard error, with what has the shape of a credential masked. A line comes in one piece.
struct Masked<W>(W);

impl Masked<io::Stderr> {
    fn stderr() -> Self {
        Self(io::stderr())
    }
}

impl<W: Write> Write for Masked<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(&Redactor::shapes().redact(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Sends log lines to standard error. An unreadable filter falls back to the default and says so.
pub fn start(settings: &LogSettings<'_>) {
    let default = settings.default_filter;
    let (parsed, fault) = match settings.filter.map(EnvFilter::try_new) {
        None => (EnvFilter::new(default), None),
        Some(Ok(parsed)) => (parsed, None),
        Some(Err(e)) => (EnvFilter::new(default), Some(e)),
    };
    let lines = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(Masked::stderr);
    let started = match settings.format {
        LogFormat::Text => {
            lines.with_ansi(!settings.no_color && io::stderr().is_terminal()).try_init()
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<u8>>>);

    impl Write for Heard {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_credential_in_a_log_line_is_masked() {
        let heard = Heard::default();
        let writer = heard.clone();
        let lines = tracing_subscriber::fmt().json().with_ansi(false);
        let lines = lines.with_writer(move || Masked(writer.clone())).finish();
        let token = format!("ghp_{}", "MadeUp0123".repeat(4));
        tracing::subscriber::with_default(lines, || {
            tracing::warn!(error = %token, "it is about {token}, and Bearer {token}");
        });
        let line = String::from_utf8(heard.0.lock().unwrap().clone()).unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["fields"]["error"], "[redacted]");
        assert_eq!(line["fields"]["message"], "it is about [redacted], and Bearer [redacted]");
    }
}
