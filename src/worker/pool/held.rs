//! The runs that this process works on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::workers::sandbox_of;
use crate::queue::{Grant, Leased};
use crate::sandbox::SandboxId;
use crate::telemetry::meters;
use crate::worker::attend::Stop;

/// The runs that this process works on, with what stops each.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    runs: Arc<Mutex<Vec<HeldRun>>>,
}

#[derive(Debug)]
struct HeldRun {
    grant: Grant,
    stop: Stop,
    /// The sandbox that it may have.
    sandbox: Option<SandboxId>,
}

/// Takes its run off the list when it is dropped, however the run ends.
#[derive(Debug)]
pub(super) struct Holding {
    held: Held,
    grant: Grant,
}

impl Held {
    pub(super) fn add(&self, leased: &Leased, stop: Stop) -> Holding {
        let (grant, sandbox) = (leased.grant.clone(), sandbox_of(leased));
        let mut runs = self.runs();
        runs.push(HeldRun { grant: grant.clone(), stop, sandbox });
        meters::runs_live(runs.len());
        drop(runs);
        Holding { held: self.clone(), grant }
    }

    pub(super) fn list(&self) -> Vec<(Grant, Stop)> {
        self.runs().iter().map(|run| (run.grant.clone(), run.stop.clone())).collect()
    }

    /// Whether one of the runs may have this sandbox.
    pub(super) fn names(&self, id: &SandboxId) -> bool {
        self.runs().iter().any(|run| run.sandbox.as_ref() == Some(id))
    }

    pub(super) fn len(&self) -> usize {
        self.runs().len()
    }

    fn runs(&self) -> MutexGuard<'_, Vec<HeldRun>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut runs = self.held.runs();
        runs.retain(|run| run.grant != self.grant);
        meters::runs_live(runs.len());
    }
}
