//! What is saved of a run's end before its sandbox is removed. Everything else can be found out again
//! by reading the agent's log.

use serde::{Deserialize, Serialize};

use super::conclude::Remains;
use super::follow::Seal;
use crate::run::{RunFailure, RunStatus};
use crate::runtime::StopReason;
use crate::sandbox::Exit;

/// The version of a saved ending. A reader refuses any other, and the run fails with that word.
const VERSION: u32 = 1;

/// How a run ended. As JSON in the queue while the run is `finishing`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Ending {
    version: u32,
    pub(super) how: How,
    pub(super) seal: Seal,
    pub(super) remains: Remains,
}

/// What ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum How {
    /// The agent.
    Agent {
        /// How its process ended, or why that is not known.
        exit: Result<Exit, RunFailure>,
        /// Why we stopped it, if we did.
        stopped: Option<StopReason>,
    },
    /// The sandbox, before its agent came up.
    NoAgent {
        /// What the run's status is therefore.
        status: RunStatus,
    },
}

/// A saved ending cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum EndingError {
    #[error("the run's end was saved in version {found}, and this program reads {VERSION}")]
    Version { found: u32 },
    #[error("the saved end of the run cannot be read")]
    Parse(#[from] serde_json::Error),
}

/// What every version has.
#[derive(Deserialize)]
struct Head {
    version: u32,
}

impl Ending {
    pub(super) fn new(how: How, seal: Seal, remains: Remains) -> Self {
        Self { version: VERSION, how, seal, remains }
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("our own types have string keys and cannot fail")
    }

    pub(super) fn from_json(text: &str) -> Result<Self, EndingError> {
        let Head { version } = serde_json::from_str(text)?;
        if version != VERSION {
            return Err(EndingError::Version { found: version });
        }
        Ok(serde_json::from_str(text)?)
    }

    /// The agent's exit code, where it had one.
    pub(super) fn exit_code(&self) -> Option<i32> {
        match &self.how {
            How::Agent { exit, .. } => exit.as_ref().ok().map(|exit| exit.code),
            How::NoAgent { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sandbox::CollectedFile;

    #[test]
    fn an_ending_is_read_back_whole_and_another_version_is_refused() {
        let remains = Remains {
            results: vec![CollectedFile { path: "a/ü.md".to_owned(), bytes: 7 }],
            logs: vec!["logs/agent/stderr.txt".to_owned()],
            stderr_tail: "oh".to_owned(),
            setup_tail: String::new(),
            warnings: vec!["One was left out.".to_owned()],
            masked: None,
        };
        let seal = Seal { n_bytes: 9, findings: vec!["It shrank.".to_owned()] };
        let limit = Duration::from_millis(1_500);
        let failed = RunFailure::AuthRefused { detail: "HTTP 401".to_owned() };
        for how in [
            How::Agent {
                exit: Ok(Exit { code: 137, oom_killed: true }),
                stopped: Some(StopReason::Timeout(limit)),
            },
            How::Agent {
                exit: Err(RunFailure::SandboxLost { detail: "gone".to_owned() }),
                stopped: Some(StopReason::Failed(failed.clone())),
            },
            How::NoAgent { status: RunStatus::Failed(failed) },
        ] {
            let ending = Ending::new(how, seal.clone(), remains.clone());
            assert_eq!(Ending::from_json(&ending.to_json()).unwrap(), ending);
        }
        let other = Ending::from_json(r#"{"version":9,"new":true}"#);
        assert!(matches!(other, Err(EndingError::Version { found: 9 })));
    }
}
