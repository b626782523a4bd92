//! A run as plain lines, each with the time since its start.

use std::time::Instant;

use super::ending::Ending;
use super::{put, summary, words};
use crate::worker::RunUpdate;

/// A run as plain lines.
#[derive(Debug)]
pub(crate) struct Plain {
    started: Instant,
}

impl Plain {
    pub(super) fn start(now: Instant) -> Self {
        Self { started: now }
    }

    pub(super) fn say(&self, line: &str) {
        put(&format!("{:>7.1} s  {line}", self.started.elapsed().as_secs_f64()));
    }

    pub(super) fn show(&self, update: &RunUpdate) {
        if let Some(line) = words::line(update) {
            self.say(&line);
        }
    }

    #[expect(clippy::unused_self, reason = "the end of the value's life")]
    pub(super) fn finish(self, ending: &Ending) {
        put(&summary::text(ending));
    }
}
