//! A run on a terminal: a line for each step, and below them one that moves.

use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::ending::Ending;
use super::{put, summary, words};
use crate::worker::{Phase, RunUpdate};

/// How often the spinner turns: fast enough to look alive, slow enough to cost nothing.
const TICK: Duration = Duration::from_millis(100);

/// The moving line while the agent works.
const WORKING: &str = "{spinner} {elapsed:>4}  {wide_msg}";

/// The moving line while the agent CLI is downloaded.
const DOWNLOADING: &str =
    "{spinner} {elapsed:>4}  {bar:30} {bytes} of {total_bytes}, {binary_bytes_per_sec}";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are valid")
}

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
        bar.set_style(style(WORKING));
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
                if done == 0 {
                    self.bar.set_style(style(DOWNLOADING));
                }
                self.bar.set_length(total.unwrap_or(done));
                self.bar.set_position(done);
            }
            RunUpdate::Phase(Phase::BuildingSnapshot { last_line, .. }) => {
                self.bar.set_style(style(WORKING));
                self.activity = last_line.unwrap_or_default();
            }
            RunUpdate::Phase(_) => {
                self.bar.set_style(style(WORKING));
                self.activity.clear();
            }
            RunUpdate::Live(live) => {
                self.tokens = words::tokens(&live);
                self.activity = live.activity.unwrap_or_default();
            }
            RunUpdate::Opened { .. }
            | RunUpdate::Note(_)
            | RunUpdate::Step(_)
            | RunUpdate::Activity(_) => {}
        }
        let parts: Vec<&str> = [&self.tokens, &self.activity]
            .into_iter()
            .map(String::as_str)
            .filter(|p| !p.is_empty())
            .collect();
        self.bar.set_message(parts.join("  "));
    }

    pub(super) fn finish(self, ending: &Ending) {
        self.bar.finish_and_clear();
        put(&summary::text(ending));
    }
}
