//! How a run looks to the person or the program that started it.

mod ending;
mod json;
mod live;
mod plain;
mod summary;
mod words;

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use crate::worker::RunUpdate;

pub(super) use ending::{Ending, Failure};

use super::exit::ExitCode;

/// Shows a run on standard output.
#[derive(Debug)]
pub(super) enum Progress {
    /// A line for each step, and a line that moves below them.
    Live(live::Live),
    /// A line for each step.
    Plain(plain::Plain),
    /// A JSON object for each piece of news.
    Json(json::Json),
}

/// How a run is to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// For people: moving on a terminal, plain elsewhere.
    People,
    /// For programs.
    Json,
}

impl Progress {
    /// Begins to show a run that starts at `now`.
    #[must_use]
    pub(super) fn start(style: Style, now: Instant) -> Self {
        match style {
            Style::Json => Self::Json(json::Json),
            Style::People if io::stdout().is_terminal() => Self::Live(live::Live::start(now)),
            Style::People => Self::Plain(plain::Plain::start(now)),
        }
    }

    /// Shows a line about what comes before the run.
    pub(super) fn say(&mut self, line: &str) {
        match self {
            Self::Live(live) => live.say(line),
            Self::Plain(plain) => plain.say(line),
            Self::Json(json) => json.say(line),
        }
    }

    /// Shows a piece of news.
    pub(super) fn show(&mut self, update: RunUpdate) {
        match self {
            Self::Live(live) => live.show(update),
            Self::Plain(plain) => plain.show(&update),
            Self::Json(json) => json.show(&update),
        }
    }

    /// Shows how the run ended.
    pub(super) fn finish(self, ending: &Ending, exit: ExitCode) {
        match self {
            Self::Live(live) => live.finish(ending),
            Self::Plain(plain) => plain.finish(ending),
            Self::Json(json) => json.finish(ending, exit),
        }
    }
}

/// `1.2 s`, `12 s`, `3 min 05 s`.
pub(super) fn seconds(took: Duration) -> String {
    words::seconds(took)
}

/// The line for a piece of news; `None` for news that only moves.
pub(super) fn line(update: &RunUpdate) -> Option<String> {
    words::line(update)
}

/// Writes a line to standard output. A reader that went away does not stop the run.
pub(super) fn put(line: &str) {
    use io::Write as _;
    let mut out = io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        tracing::debug!("nobody reads standard output any more");
    }
}
