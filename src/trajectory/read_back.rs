//! Reading a `trajectory.json` that was written, as far as somebody needs it.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::document::{SCHEMA_VERSION, StartedFrom};

/// What a list of runs needs of a `trajectory.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TrajectoryHead {
    /// `collection/task`.
    pub name: String,
    /// The run's id.
    pub trajectory_id: String,
    /// Where it stands, in Jetty's word.
    pub status: String,
    /// When it was asked for.
    pub created: Timestamp,
    /// When it was last written.
    pub updated: Timestamp,
    /// What went wrong, if anything.
    pub error: Option<String>,
}

/// What going on with a run needs of its `trajectory.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TrajectorySession {
    /// Where it stands, in Jetty's word.
    pub status: String,
    /// The agent.
    pub agent: TrajectoryAgent,
    /// What the client passed to the runbook.
    pub init_params: Map<String, Value>,
    /// The steps in Jetty's sense.
    pub steps: Map<String, Value>,
    /// The names of all of them.
    #[serde(default)]
    pub total_steps: Vec<String>,
}

impl TrajectorySession {
    /// The names of the files that the run was given, in their order.
    #[must_use]
    pub fn assets(&self) -> Vec<&str> {
        let run = self.steps.values().next();
        let assets = run.and_then(|run| run.pointer("/inputs/assets")?.as_array());
        assets.into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

/// The agent of a `trajectory.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TrajectoryAgent {
    /// The agent CLI.
    pub name: String,
    /// Its names for its conversations, in order.
    pub session_ids: Vec<String>,
}

/// A `trajectory.json` could not be understood.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is not JSON of the expected shape.
    #[error("could not read trajectory.json")]
    Read(#[source] serde_json::Error),
    /// Another version of the program wrote it.
    #[error("trajectory.json has schema version {found}, but this program reads {SCHEMA_VERSION}")]
    Version {
        /// The version that it names.
        found: u32,
    },
}

/// Reads the head of a `trajectory.json`, after checking its version.
///
/// # Errors
/// If it is not JSON of that shape, or of another version.
pub fn read_head(json: &[u8]) -> Result<TrajectoryHead, DocumentError> {
    read(json)
}

/// Reads what going on with a run needs of its `trajectory.json`, after checking its version.
///
/// # Errors
/// If it is not JSON of that shape, or of another version.
pub fn read_session(json: &[u8]) -> Result<TrajectorySession, DocumentError> {
    read(json)
}

/// What the sandbox of a written trajectory started from, where that is in it.
#[must_use]
pub fn read_started_from(json: &[u8]) -> Option<StartedFrom> {
    let document: Value = read(json).ok()?;
    let config = document.get("step_configs")?.as_object()?.values().next()?;
    serde_json::from_value(config.get("started_from")?.clone()).ok()
}

/// Reads a whole `trajectory.json`, after checking its version.
pub(super) fn read_map(json: &[u8]) -> Result<Map<String, Value>, DocumentError> {
    read(json)
}

fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, DocumentError> {
    /// The version alone, so that another version's shape does not hide it.
    #[derive(Deserialize)]
    struct Version {
        schema_version: u32,
    }
    let Version { schema_version } = serde_json::from_slice(json).map_err(DocumentError::Read)?;
    if schema_version != SCHEMA_VERSION {
        return Err(DocumentError::Version { found: schema_version });
    }
    serde_json::from_slice(json).map_err(DocumentError::Read)
}
