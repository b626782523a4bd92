//! A run on a terminal: a line for each step, and below them one that moves.

use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{put, summary, words};
use crate::worker::{Phase, RunReport, RunUpdate};

/// How often the spinner turns: fast enough to look alive, slow enough to cost nothing.
const TICK: Duration = Duration::from_millis(100);

/// A run on a terminal.
#[derive(Debug)]
pub(crate) struct Live {
    started: Instant,
    bar: ProgressBar,
    tokens: String,
    activity: String,
}

impl Live {
    pub(super) fn start(now: Instant) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
        bar.set_style(
            ProgressStyle::with_template("{spinner} {elapsed:>4}  {wide_msg}")
                .expect("the template is valid"),
        );
        bar.enable_steady_tick(TICK);
        Self { started: now, bar, tokens: String::new(), activity: String::new() }
    }

    pub(super) fn say(&self, line: &str) {
        let line = format!("{:>7.1} s  {line}", self.started.elapsed().as_secs_f64());
        let width = usize::from(Term::stdout().size().1);
        self.bar.println(console::truncate_str(&line, width, "…"));
    }

    pub(super) fn show(&mut self, update: RunUpdate) {
        if let Some(line) = words::line(&update) {
            self.say(&line);
        }
        match update {
            RunUpdate::Phase(Phase::FetchingAgent { done, total }) => {
                let done = done >> 20;
                self.activity = match total {
                    Some(total) => {
                        format!("downloading the agent CLI: {done} of {} MiB", total >> 20)
                    }
                    None => format!("downloading the agent CLI: {done} MiB"),
                };
            }
            RunUpdate::Phase(_) => self.activity.clear(),
            RunUpdate::Live(live) => {
                self.tokens = words::tokens(&live);
                self.activity = live.activity.unwrap_or_default();
            }
            RunUpdate::Opened { .. } | RunUpdate::Note(_) | RunUpdate::Step(_) => {}
        }
        let parts: Vec<&str> = [&self.tokens, &self.activity]
            .into_iter()
            .map(String::as_str)
            .filter(|p| !p.is_empty())
            .collect();
        self.bar.set_message(parts.join("  "));
    }

    pub(super) fn finish(self, report: &RunReport) {
        self.bar.finish_and_clear();
        put(&summary::text(report));
    }
}
