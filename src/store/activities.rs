//! What the runs of this process are doing now. Nothing of it is on the disk: a process that takes a
//! run over sees for itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::run::{Activity, ActivityNow, RunName};

/// What the runs are doing that somebody attends.
#[derive(Debug, Clone, Default)]
pub struct Activities {
    runs: Arc<Mutex<HashMap<RunName, ActivityNow>>>,
}

impl Activities {
    /// A run does this now; `None` when nobody attends it any more.
    pub fn tell(&self, run: &RunName, now: Option<ActivityNow>) {
        let mut runs = self.runs();
        match now {
            Some(now) => runs.insert(run.clone(), now),
            None => runs.remove(run),
        };
    }

    /// What a run is doing, where it is attended in this process.
    #[must_use]
    pub fn of(&self, run: &RunName) -> Option<ActivityNow> {
        self.runs().get(run).copied()
    }

    /// How many runs do what, with a count for every activity.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Activity, usize> {
        let mut counts: BTreeMap<Activity, usize> = Activity::ALL.map(|state| (state, 0)).into();
        for now in self.runs().values() {
            *counts.entry(now.state).or_default() += 1;
        }
        counts
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<RunName, ActivityNow>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::run::{RunId, Slug};

    #[test]
    fn a_run_is_told_of_while_it_is_attended() {
        let name = |id: u128| RunName {
            collection: Slug::new("team").unwrap(),
            task: Slug::new("hello").unwrap(),
            id: RunId::from_uuid(uuid::Uuid::from_u128(id << 96)),
        };
        let now = |state| ActivityNow { state, since: Timestamp::UNIX_EPOCH };
        let activities = Activities::default();
        activities.tell(&name(1), Some(now(Activity::Idle)));
        activities.tell(&name(1), Some(now(Activity::ToolRunning)));
        activities.tell(&name(2), Some(now(Activity::ToolRunning)));
        assert_eq!(activities.of(&name(1)), Some(now(Activity::ToolRunning)));
        let counts = activities.counts();
        assert_eq!((counts[&Activity::ToolRunning], counts[&Activity::Idle]), (2, 0));
        assert_eq!(counts.len(), Activity::ALL.len());
        activities.tell(&name(1), None);
        assert_eq!(
            (activities.of(&name(1)), activities.counts()[&Activity::ToolRunning]),
            (None, 1)
        );
    }
}
