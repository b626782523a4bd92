//! What somebody who watches a run is told, in the form in which it stays on disk.

use jiff::Timestamp;
use serde::Serialize;

use super::recorder::Live;
use super::step::StepUpdate;
use super::usage::{Usage, UsageByModel, UsageSource};
use crate::run::{Activity, RunFailure, RunStatus, Verdict};

/// One piece of news. The payload of a line of `events.jsonl` (`docs/events.md`).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RunEvent {
    /// The record was opened.
    Opened {
        /// Where the run belongs.
        collection: String,
        /// Where in the collection.
        task: String,
        /// The run's id.
        trajectory_id: String,
    },
    /// The run stands elsewhere now; its end is [`RunEvent::Finished`].
    Status {
        /// `pending` or `running`.
        status: &'static str,
    },
    /// A step of the run's workflow begins, where there are several.
    StepBegins {
        /// The step's name.
        name: String,
        /// Its place among them, from 1.
        number: u64,
        /// How many there are.
        of: u64,
    },
    /// The run went on to its next part.
    Phase {
        /// The part's word.
        phase: &'static str,
    },
    /// The run cannot start yet.
    Waiting {
        /// What it waits for, as a sentence.
        reason: String,
    },
    /// Something that a person should know, as a sentence.
    Note {
        /// The sentence.
        text: String,
    },
    /// The model said something.
    Said {
        /// The step's number.
        step: u64,
        /// The first line of it.
        text: String,
        /// All of it, up to a limit.
        content: String,
        /// What the limit cut off, in bytes.
        #[serde(skip_serializing_if = "is_zero")]
        n_truncated_bytes: u64,
        /// Whether a sub-agent said it.
        in_sub_agent: bool,
    },
    /// A tool call began.
    ToolStarted {
        /// The step's number.
        step: u64,
        /// The tool and its most telling argument.
        title: String,
        /// Whether a sub-agent makes the call.
        in_sub_agent: bool,
    },
    /// A tool call is over.
    ToolFinished {
        /// The step's number.
        step: u64,
        /// The tool and its most telling argument.
        title: String,
        /// How long it took.
        duration_ms: u64,
        /// Whether the tool says that it failed.
        is_error: bool,
        /// Whether a sub-agent made the call.
        in_sub_agent: bool,
    },
    /// Where the agent is and what it has used.
    Usage {
        /// How the counts are known.
        source: UsageSource,
        /// Steps so far.
        n_steps: u64,
        /// Tool calls so far.
        n_tool_calls: u64,
        /// All models together.
        total: Usage,
        /// What the agent is busy with, as one line.
        activity: Option<String>,
    },
    /// What the run is doing, as far as can be seen from outside.
    Activity {
        /// What it is doing.
        state: Activity,
        /// Since when.
        since: Timestamp,
    },
    /// The run has ended. Nothing comes after it.
    Finished(Box<FinishedEvent>),
}

/// How a run ended. Part of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FinishedEvent {
    /// `completed`, `failed` or `cancelled`.
    pub status: &'static str,
    /// Why it failed, if it did.
    pub failure: Option<FailureEvent>,
    /// Whether what it was to achieve is there, where that can be checked.
    pub passed: Option<bool>,
    /// What it achieved.
    pub verdict: Verdict,
    /// What it used.
    pub usage: FinalUsage,
    /// From the moment it was begun with to its end.
    pub duration_ms: u64,
    /// Steps of the trajectory.
    pub n_steps: u64,
    /// What looked wrong, as sentences.
    pub warnings: Vec<String>,
    /// The agent's last words.
    pub answer: Option<String>,
}

/// Why a run failed. Part of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FailureEvent {
    /// A stable word.
    pub code: &'static str,
    /// A sentence.
    pub message: String,
    /// What to do.
    pub mend: &'static str,
}

/// What a run used in the end. Part of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FinalUsage {
    /// How the counts are known.
    pub source: UsageSource,
    /// All models together.
    pub total: Usage,
    /// Each model.
    pub by_model: UsageByModel,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl FailureEvent {
    /// The failure of a run that failed, in this step where it has several.
    #[must_use]
    pub fn of(status: &RunStatus, step: Option<&str>) -> Option<Self> {
        let of = |failure: &RunFailure| Self {
            code: failure.code(),
            message: failure.told_of(step),
            mend: failure.mend(),
        };
        match status {
            RunStatus::Failed(failure) => Some(of(failure)),
            RunStatus::Pending
            | RunStatus::Running
            | RunStatus::Completed
            | RunStatus::Cancelled => None,
        }
    }
}

impl From<&StepUpdate> for RunEvent {
    fn from(update: &StepUpdate) -> Self {
        match update.clone() {
            StepUpdate::Said { number, text, content, n_truncated_bytes, in_sub_agent } => {
                Self::Said { step: number, text, content, n_truncated_bytes, in_sub_agent }
            }
            StepUpdate::Started { number, title, in_sub_agent } => {
                Self::ToolStarted { step: number, title, in_sub_agent }
            }
            StepUpdate::Finished { number, title, took, is_error, in_sub_agent } => {
                Self::ToolFinished {
                    step: number,
                    title,
                    duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                    is_error,
                    in_sub_agent,
                }
            }
            StepUpdate::Note(text) => Self::Note { text },
        }
    }
}

impl From<&Live> for RunEvent {
    fn from(live: &Live) -> Self {
        Self::Usage {
            source: live.usage.source,
            n_steps: live.n_steps,
            n_tool_calls: live.n_tool_calls,
            total: live.usage.by_model.total(),
            activity: live.activity.clone(),
        }
    }
}
