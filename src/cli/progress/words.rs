//! News as lines for people.

use std::time::Duration;

use crate::trajectory::{Live, StepUpdate};
use crate::worker::{Phase, RunUpdate};

/// How far a sub-agent's lines are moved to the right.
const SUB_AGENT_INDENT: &str = "  ";

/// The line for a piece of news; `None` for news that only moves.
pub(super) fn line(update: &RunUpdate) -> Option<String> {
    match update {
        RunUpdate::Opened { name, folder } => Some(format!(
            "run {}/{}/{} in {}",
            name.collection,
            name.task,
            name.id,
            folder.display()
        )),
        RunUpdate::Phase(phase) => self::phase(phase),
        RunUpdate::Note(note) => Some(format!("! {note}")),
        RunUpdate::Step(step) => Some(self::step(step)),
        RunUpdate::Live(_) | RunUpdate::Activity(_) => None,
    }
}

fn phase(phase: &Phase) -> Option<String> {
    let words = match phase {
        Phase::BuildingSnapshot { name, step, last_line: None } => {
            return Some(format!("building the snapshot `{name}`: {step}"));
        }
        Phase::BuildingSnapshot { .. } => return None,
        Phase::FetchingAgent { done: 0, .. } => {
            Some("downloading the agent CLI (once; about 75 MB)")
        }
        Phase::FetchingAgent { .. } => None,
        Phase::WaitingForDownload => Some("waiting for another process to download the agent CLI"),
        Phase::Provisioning => Some("making the sandbox"),
        Phase::Setup => Some("the setup script runs"),
        Phase::Running => Some("the agent works"),
        Phase::Collecting => Some("collecting its files"),
    };
    words.map(str::to_owned)
}

fn step(step: &StepUpdate) -> String {
    let indent = |in_sub_agent: &bool| if *in_sub_agent { SUB_AGENT_INDENT } else { "" };
    match step {
        StepUpdate::Said { text, in_sub_agent, .. } => format!("{}* {text}", indent(in_sub_agent)),
        StepUpdate::Started { title, in_sub_agent, .. } => {
            format!("{}> {title}", indent(in_sub_agent))
        }
        StepUpdate::Finished { title, took, is_error, in_sub_agent, .. } => {
            let (mark, word) = if *is_error { ("x", " failed") } else { ("<", "") };
            format!("{}{mark} {title}{word} ({})", indent(in_sub_agent), seconds(*took))
        }
        StepUpdate::Note(note) => format!("! {note}"),
    }
}

/// The tokens so far, short. The output count of a live view is a placeholder, so it gets a `~`.
pub(super) fn tokens(live: &Live) -> String {
    let usage = live.usage.by_model.total();
    format!("{} in, ~{} out", grouped(usage.total_input()), grouped(usage.output))
}

/// `1.2 s`, `12 s`, `3 min 05 s`.
pub(super) fn seconds(took: Duration) -> String {
    let secs = took.as_secs();
    match secs {
        0..10 => format!("{:.1} s", took.as_secs_f64()),
        10..60 => format!("{secs} s"),
        _ => format!("{} min {:02} s", secs / 60, secs % 60),
    }
}

/// `1234567` as `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_are_short() {
        let shown: Vec<String> = [0, 999, 1000, 1_234_567].map(grouped).into();
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
        let shown: Vec<String> =
            [140, 10_000, 185_000].map(|ms| seconds(Duration::from_millis(ms))).into();
        assert_eq!(shown, ["0.1 s", "10 s", "3 min 05 s"]);
    }
}
