//! A run as JSON lines, for programs. `docs/json-output.md` documents each.

use serde_json::{Value, json};

use super::ending::Ending;
use super::put;
use crate::cli::exit::ExitCode;
use crate::trajectory::StepUpdate;
use crate::worker::{Phase, RunUpdate};

/// The version of these lines. It grows when one of them changes its meaning or loses a field.
const FORMAT_VERSION: u32 = 1;

/// A run as JSON lines.
#[derive(Debug)]
pub(crate) struct Json;

impl Json {
    #[expect(clippy::unused_self, reason = "the same face as the other styles")]
    pub(super) fn say(&self, line: &str) {
        put(&json!({ "event": "note", "text": line }).to_string());
    }

    #[expect(clippy::unused_self, reason = "the same face as the other styles")]
    pub(super) fn show(&self, update: &RunUpdate) {
        put(&line(update).to_string());
    }

    #[expect(clippy::unused_self, reason = "the end of the value's life")]
    pub(super) fn finish(self, ending: &Ending, exit: ExitCode) {
        put(&finished(ending, exit).to_string());
    }
}

fn line(update: &RunUpdate) -> Value {
    match update {
        RunUpdate::Opened { name, folder } => json!({
            "event": "opened",
            "format_version": FORMAT_VERSION,
            "collection": name.collection.as_str(),
            "task": name.task.as_str(),
            "trajectory_id": name.id.as_str(),
            "folder": folder,
        }),
        RunUpdate::Phase(phase) => phase_line(phase),
        RunUpdate::Note(text) => json!({ "event": "note", "text": text }),
        RunUpdate::Step(step) => step_line(step),
        RunUpdate::Live(live) => json!({
            "event": "usage",
            "source": live.usage.source,
            "n_steps": live.n_steps,
            "total": live.usage.by_model.total(),
            "activity": live.activity,
        }),
        RunUpdate::Activity(now) => {
            json!({ "event": "activity", "state": now.state, "since": now.since })
        }
    }
}

fn phase_line(phase: &Phase) -> Value {
    let name = match phase {
        Phase::FetchingAgent { done, total } => {
            return json!({
                "event": "phase", "phase": "fetching_agent", "done_bytes": done, "total_bytes": total,
            });
        }
        Phase::BuildingSnapshot { name, step, last_line } => {
            return json!({
                "event": "phase", "phase": "building_snapshot", "snapshot": name, "step": step,
                "last_line": last_line,
            });
        }
        Phase::WaitingForDownload => "waiting_for_download",
        Phase::Provisioning => "provisioning",
        Phase::Setup => "setup",
        Phase::Running => "running",
        Phase::Collecting => "collecting",
    };
    json!({ "event": "phase", "phase": name })
}

fn step_line(step: &StepUpdate) -> Value {
    match step {
        StepUpdate::Said { number, text, in_sub_agent, .. } => json!({
            "event": "said", "step": number, "text": text, "in_sub_agent": in_sub_agent,
        }),
        StepUpdate::Started { number, title, in_sub_agent } => json!({
            "event": "tool_started", "step": number, "title": title, "in_sub_agent": in_sub_agent,
        }),
        StepUpdate::Finished { number, title, took, is_error, in_sub_agent } => json!({
            "event": "tool_finished",
            "step": number,
            "title": title,
            "duration_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "is_error": is_error,
            "in_sub_agent": in_sub_agent,
        }),
        StepUpdate::Note(text) => json!({ "event": "note", "text": text }),
    }
}

fn finished(ending: &Ending, exit: ExitCode) -> Value {
    let failure = ending.failure.as_ref().map(
        |failure| json!({ "code": failure.code, "message": failure.message, "mend": failure.mend }),
    );
    json!({
        "event": "finished",
        "status": ending.status,
        "failure": failure,
        "passed": ending.passed,
        "verdict": ending.verdict,
        "usage": {
            "source": ending.usage.source,
            "total": ending.usage.by_model.total(),
            "by_model": ending.usage.by_model,
        },
        "duration_ms": u64::try_from(ending.took.as_millis()).unwrap_or(u64::MAX),
        "n_steps": ending.n_steps,
        "warnings": ending.warnings,
        "answer": ending.answer,
        "folder": ending.place,
        "exit_code": exit.code(),
    })
}
