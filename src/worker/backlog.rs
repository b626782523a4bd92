//! News that the disk has refused: kept, in their order, until it takes them.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::store::{EventLog, StoreError};
use crate::trajectory::RunEvent;

/// News that are kept at most: some megabytes, and far more than an agent does while a full disk is
/// cleared. Above it the rest is not told by this process: what is written must stay without a gap,
/// and the agent's log has everything.
const MAX_KEPT: usize = 10_000;

/// One piece of news that waits to be written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pending {
    /// When it happened.
    pub(super) at: Timestamp,
    pub(super) event: RunEvent,
    /// Whether it is an update of the agent's fold.
    pub(super) is_update: bool,
}

impl Pending {
    /// Writes it.
    pub(super) fn append_to(&self, log: &mut EventLog) -> Result<(), StoreError> {
        if self.is_update {
            log.append_update(self.at, &self.event)
        } else {
            log.append(self.at, &self.event)
        }
    }
}

/// The news that are not written yet.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pending: VecDeque<Pending>,
    /// Whether an update of the fold had no place: no later one may be written.
    is_cut: bool,
}

impl Backlog {
    /// Takes news in, behind those that wait.
    pub(super) fn push(&mut self, news: Pending) {
        let is_cut = self.is_cut && news.is_update;
        if self.pending.len() < MAX_KEPT && !is_cut {
            self.pending.push_back(news);
        } else if news.is_update {
            self.is_cut = true;
        }
    }

    /// Writes what waits, up to the first that is refused.
    pub(super) fn flush<E>(
        &mut self,
        mut write: impl FnMut(&Pending) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(next) = self.pending.front() {
            write(next)?;
            self.pending.pop_front();
        }
        Ok(())
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn news(n: usize, is_update: bool) -> Pending {
        let event = RunEvent::Note { text: n.to_string() };
        Pending { at: Timestamp::UNIX_EPOCH, event, is_update }
    }

    proptest! {
        /// Whenever the disk refuses: everything is written once, in its order.
        #[test]
        fn news_are_written_once_and_in_order(told in prop::collection::vec(any::<(bool, bool)>(), 0..60)) {
            let mut backlog = Backlog::default();
            let mut written = Vec::new();
            let all: Vec<Pending> =
                told.iter().enumerate().map(|(n, (is_update, _))| news(n, *is_update)).collect();
            for (news, (_, refuses)) in all.iter().zip(&told) {
                backlog.push(news.clone());
                let flushed = backlog.flush(|news| {
                    if *refuses { return Err(()) }
                    written.push(news.clone());
                    Ok(())
                });
                prop_assert_eq!(flushed.is_ok(), !refuses);
                prop_assert_eq!(backlog.is_empty(), !refuses);
            }
            backlog.flush(|news| { written.push(news.clone()); Ok::<_, ()>(()) }).unwrap();
            prop_assert_eq!(written, all);
        }
    }

    #[test]
    fn what_has_no_place_leaves_no_gap_among_the_updates() {
        let mut backlog = Backlog::default();
        (0..MAX_KEPT + 1).for_each(|n| backlog.push(news(n, true)));
        let mut written = Vec::new();
        let keep = |written: &mut Vec<Pending>, backlog: &mut Backlog| {
            let flushed = backlog.flush(|news| {
                written.push(news.clone());
                Ok::<_, ()>(())
            });
            flushed.unwrap();
        };
        keep(&mut written, &mut backlog);
        backlog.push(news(MAX_KEPT + 1, true));
        backlog.push(news(MAX_KEPT + 2, false));
        keep(&mut written, &mut backlog);
        let kept = (0..MAX_KEPT).map(|n| news(n, true));
        let expected: Vec<Pending> = kept.chain([news(MAX_KEPT + 2, false)]).collect();
        assert!(written == expected, "{} were written", written.len());
    }
}
