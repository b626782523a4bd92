//! The names of everything inside a run's folder.

/// A folder inside a run's folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// Files that the run was given.
    Assets,
    /// Files that the run left in `/app/results`.
    Results,
    /// What the agent CLI wrote about itself.
    AgentLogs,
    /// The agent CLI's own session files.
    Sessions,
}

impl Area {
    /// Every area, parents before children.
    pub(super) const ALL: [Self; 4] =
        [Self::Assets, Self::Results, Self::AgentLogs, Self::Sessions];

    /// The path relative to the run's folder.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Assets => "assets",
            Self::Results => "results",
            Self::AgentLogs => "logs/agent",
            Self::Sessions => "logs/agent/sessions",
        }
    }
}

/// A document at the top of a run's folder. Each is written whole or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// The runbook as it was given.
    Runbook,
    /// What the agent was told: the runbook with its variables filled in.
    Instruction,
    /// The trajectory.
    Trajectory,
    /// The trajectory in the Agent Trajectory Interchange Format.
    Atif,
}

impl Document {
    /// The file's name.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Runbook => "runbook.md",
            Self::Instruction => "instruction.md",
            Self::Trajectory => "trajectory.json",
            Self::Atif => "atif.json",
        }
    }
}

/// What the setup script wrote, relative to the run's folder.
pub const SETUP_LOG: &str = "logs/setup.txt";

/// What was said while images were built, where some were.
pub const SNAPSHOT_LOG: &str = "logs/snapshot.txt";

/// The ledger of the gateway between the agent and its model service, inside a run's folder.
pub(super) const GATEWAY_LOG: &str = "logs/gateway.jsonl";

/// What the sandbox tried to reach through its proxy, inside a run's folder.
pub const EGRESS_LOG: &str = "logs/egress.jsonl";

/// The runbook's own report on itself, inside [`Area::Results`].
pub(super) const VALIDATION_REPORT: &str = "validation_report.json";

/// The folders of the steps of a run that has several.
pub(super) const STEPS: &str = "steps";

/// What somebody who watches the run is told.
pub(super) const EVENTS: &str = "events.jsonl";

/// Why the agent was asked to end, below [`Area::AgentLogs`]. Only runs that were stopped have it.
pub(super) const STOP_NOTE: &str = "stopped.json";

/// When the agent's lines arrived, below [`Area::AgentLogs`].
pub(super) const ARRIVALS: &str = "arrivals.jsonl";
