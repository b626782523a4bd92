//! The runs that this process works on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::queue::Grant;
use crate::telemetry::meters;
use crate::worker::attend::Stop;

/// The runs that this process works on, with what stops each.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    runs: Arc<Mutex<Vec<(Grant, Stop)>>>,
}

/// Takes its run off the list when it is dropped, however the run ends.
#[derive(Debug)]
pub(super) struct Holding {
    held: Held,
    grant: Grant,
}

impl Held {
    pub(super) fn add(&self, grant: Grant, stop: Stop) -> Holding {
        let mut runs = self.runs();
        runs.push((grant.clone(), stop));
        meters::runs_live(runs.len());
        drop(runs);
        Holding { held: self.clone(), grant }
    }

    pub(super) fn list(&self) -> Vec<(Grant, Stop)> {
        self.runs().clone()
    }

    pub(super) fn len(&self) -> usize {
        self.runs().len()
    }

    fn runs(&self) -> MutexGuard<'_, Vec<(Grant, Stop)>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut runs = self.held.runs();
        runs.retain(|(grant, _)| *grant != self.grant);
        meters::runs_live(runs.len());
    }
}
