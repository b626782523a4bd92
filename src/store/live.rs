//! Tells watchers how far the news of a run has come. The news itself is in the run's file, so there
//! is nothing to buffer and nothing to lose.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::run::RunName;

/// The runs that somebody watches.
#[derive(Debug, Clone, Default)]
pub(super) struct LiveRuns {
    watched: Arc<Mutex<HashMap<RunName, watch::Sender<u64>>>>,
}

impl LiveRuns {
    /// Follows the number of a run's last event. A run that has not begun can be watched too.
    pub(super) fn watch(&self, run: &RunName) -> watch::Receiver<u64> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        // Watchers leave without a word; what they watched goes when the next one comes.
        watched.retain(|_, seq| seq.receiver_count() > 0);
        watched.entry(run.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// The event `seq` is in the file now.
    pub(super) fn tell(&self, run: &RunName, seq: u64) {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = watched.get(run) {
            sender.send_replace(seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{RunId, Slug};

    #[tokio::test]
    async fn a_watcher_hears_of_its_run_alone_and_is_forgotten_when_it_leaves() {
        let name = |id: u128| RunName {
            collection: Slug::new("team").unwrap(),
            task: Slug::new("hello").unwrap(),
            id: RunId::from_uuid(uuid::Uuid::from_u128(id << 96)),
        };
        let live = LiveRuns::default();
        live.tell(&name(1), 4);
        let mut watching = live.watch(&name(1));
        let other = live.watch(&name(2));
        live.tell(&name(1), 5);
        live.tell(&name(1), 6);
        watching.changed().await.unwrap();
        assert_eq!(*watching.borrow_and_update(), 6);
        assert!(!other.has_changed().unwrap());
        drop((watching, other));
        drop(live.watch(&name(3)));
        assert_eq!(live.watched.lock().unwrap().len(), 1);
    }
}
