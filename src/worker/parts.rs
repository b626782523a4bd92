//! What a run needs of the world.

use std::path::PathBuf;

use super::agent::AgentSource;
use super::attend::Clock;
use super::claim::Claims;
use super::room::SharedDisk;
use crate::egress::EgressSettings;
use crate::gateway::Program;
use crate::guard::Guardrails;
use crate::run::{Allowance, ImageRules, RunPlan, StallCeilings};
use crate::sandbox::Engine;
use crate::secret::Keyring;
use crate::snapshot::Snapshots;
use crate::spend::Spend;
use crate::store::Store;

/// What a run needs of the world.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Where sandboxes are made.
    pub engine: Engine,
    /// Which sandboxes belong to a process that lives.
    pub claims: Claims,
    /// The folder for the model services of sandboxes: their sockets, and what their gateways need.
    pub sockets: PathBuf,
    /// Where agent CLIs come from.
    pub agents: AgentSource,
    /// What can be built to start from.
    pub snapshots: Snapshots,
    /// Which images runs may name.
    pub images: ImageRules,
    /// What the prompts of every run must not hold. A run may only want more.
    pub guard: Guardrails,
    /// Whether the files of every run are masked.
    pub redact_artifacts: bool,
    /// What the operator says of the way out of sandboxes.
    pub egress: EgressSettings,
    /// What stands between sandboxes and model services is started from.
    pub gateway: Program,
    /// Where the record goes.
    pub store: Store,
    /// What is spent, by every process of this machine.
    pub spend: Spend,
    /// The most that the operator lets anybody spend.
    pub ceilings: Allowance,
    /// Where credentials come from.
    pub keyring: Keyring,
    /// How long a run may do nothing at most, whatever its runbook says.
    pub stall: StallCeilings,
    /// The disk that all sandboxes share.
    pub disk: SharedDisk,
    /// The time.
    pub clock: Clock,
}

impl Parts {
    /// The plan, with no limit above what the operator allows.
    #[must_use]
    pub fn bounded(&self, plan: RunPlan) -> RunPlan {
        RunPlan { limits: plan.limits.within(&self.stall, self.disk.ceiling()), ..plan }
    }
}
