//! What a run is doing, as far as can be seen from outside, and how long it may do nothing.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a run is doing. The names are words on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// A request is on its way, or must be: there is nothing else to wait for.
    WaitingOnModel,
    /// The same, and nothing of an answer has come for long.
    ModelStalled,
    /// The model service limits the rate, and the agent waits before it asks again.
    RateLimited,
    /// A tool works, or has not been quiet for long.
    ToolRunning,
    /// A tool has been called, and nothing has moved in the sandbox for long.
    ToolStuck,
    /// Nothing is asked and no tool is called.
    Idle,
    /// The same, for long.
    Silent,
    /// The agent has given its result, and its process is still there.
    FinishedNotExited,
}

impl Activity {
    /// Every activity.
    pub const ALL: [Self; 8] = [
        Self::WaitingOnModel,
        Self::ModelStalled,
        Self::RateLimited,
        Self::ToolRunning,
        Self::ToolStuck,
        Self::Idle,
        Self::Silent,
        Self::FinishedNotExited,
    ];

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WaitingOnModel => "waiting_on_model",
            Self::ModelStalled => "model_stalled",
            Self::RateLimited => "rate_limited",
            Self::ToolRunning => "tool_running",
            Self::ToolStuck => "tool_stuck",
            Self::Idle => "idle",
            Self::Silent => "silent",
            Self::FinishedNotExited => "finished_not_exited",
        }
    }

    /// The activity of that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|activity| activity.as_str() == word)
    }

    /// What is wrong, as the beginning of a sentence about a time.
    #[must_use]
    pub fn complaint(self) -> &'static str {
        match self {
            Self::WaitingOnModel | Self::ModelStalled => "nothing came from the model",
            Self::RateLimited => "the model service limited the rate",
            Self::ToolRunning | Self::ToolStuck => "a tool neither worked nor ended",
            Self::Idle | Self::Silent => "the agent neither asked its model nor called a tool",
            Self::FinishedNotExited => "the agent did not exit after its result",
        }
    }

    /// Whether it is one that a person should look at.
    #[must_use]
    pub fn is_stalled(self) -> bool {
        match self {
            Self::ModelStalled | Self::ToolStuck | Self::Silent => true,
            Self::WaitingOnModel
            | Self::RateLimited
            | Self::ToolRunning
            | Self::Idle
            | Self::FinishedNotExited => false,
        }
    }
}

/// What a run is doing now. Part of what clients see of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivityNow {
    /// What it is doing.
    pub state: Activity,
    /// Since when.
    pub since: Timestamp,
}

/// How long a run may do nothing. At half of each time it is said, at its end the agent is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StallLimits {
    /// While it waits for its model: without a byte of an answer.
    #[serde(rename = "model_sec", serialize_with = "super::plan::whole_seconds")]
    pub model: Duration,
    /// While a tool is called: without work of the sandbox's processes.
    #[serde(rename = "tool_sec", serialize_with = "super::plan::whole_seconds")]
    pub tool: Duration,
    /// While neither is the case: without a word.
    #[serde(rename = "silent_sec", serialize_with = "super::plan::whole_seconds")]
    pub silent: Duration,
}

/// What the operator of a server allows at most, whatever a runbook says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StallCeilings {
    /// For [`StallLimits::model`].
    pub model: Option<Duration>,
    /// For [`StallLimits::tool`].
    pub tool: Option<Duration>,
    /// For [`StallLimits::silent`].
    pub silent: Option<Duration>,
    /// From the agent's last result to the end of its process.
    pub linger: Option<Duration>,
}

impl StallLimits {
    /// The same, where the operator allows as much.
    #[must_use]
    pub fn within(self, ceilings: &StallCeilings) -> Self {
        Self {
            model: StallCeilings::lower(self.model, ceilings.model),
            tool: StallCeilings::lower(self.tool, ceilings.tool),
            silent: StallCeilings::lower(self.silent, ceilings.silent),
        }
    }
}

impl StallCeilings {
    /// The wish, or the ceiling where that is lower.
    pub(super) fn lower(wish: Duration, ceiling: Option<Duration>) -> Duration {
        ceiling.map_or(wish, |ceiling| ceiling.min(wish))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_activity_is_read_back_from_its_word() {
        for activity in Activity::ALL {
            let word = activity.as_str();
            assert_eq!(Activity::from_word(word), Some(activity));
            assert_eq!(serde_json::to_value(activity).unwrap(), word);
        }
        assert_eq!(Activity::from_word("asleep"), None);
    }

    #[test]
    fn a_ceiling_only_narrows() {
        let sec = Duration::from_secs;
        let limits = StallLimits { model: sec(10), tool: sec(20), silent: sec(30) };
        let ceilings =
            StallCeilings { model: Some(sec(5)), tool: Some(sec(50)), ..StallCeilings::default() };
        let expected = StallLimits { model: sec(5), ..limits };
        assert_eq!(limits.within(&ceilings), expected);
    }
}
