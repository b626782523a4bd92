//! The steps that are kept: the first ones, the last ones, and a count of those between.

use std::collections::VecDeque;

use super::step::Step;

/// Steps kept from the beginning. They show what the run set out to do.
pub const MAX_FIRST_STEPS: usize = 1_000;

/// Steps kept from the end. They show how the run ended.
pub const MAX_LAST_STEPS: usize = 4_000;

/// What the first steps may hold when the last of them is added, in bytes.
const MAX_FIRST_BYTES: usize = 8 * 1024 * 1024;

/// What the last steps may hold, in bytes. With the first ones, `trajectory.json` stays well below
/// the size at which viewers give up.
const MAX_LAST_BYTES: usize = 16 * 1024 * 1024;

/// A bounded list of steps.
#[derive(Debug, Clone, Default)]
pub(super) struct StepLog {
    first: Vec<Step>,
    first_bytes: usize,
    last: VecDeque<Step>,
    last_bytes: usize,
    n_pushed: u64,
}

impl StepLog {
    /// The number that the next step will have.
    pub(super) fn next_number(&self) -> u64 {
        self.n_pushed + 1
    }

    /// Adds a step, which must carry [`StepLog::next_number`], and returns those that had to go.
    pub(super) fn push(&mut self, step: Step) -> Vec<Step> {
        self.n_pushed += 1;
        debug_assert_eq!(step.number, self.n_pushed, "steps are numbered in order");
        let room = self.first.len() < MAX_FIRST_STEPS && self.first_bytes < MAX_FIRST_BYTES;
        if room && self.last.is_empty() {
            self.first_bytes += step.n_bytes();
            self.first.push(step);
            return Vec::new();
        }
        self.last_bytes += step.n_bytes();
        self.last.push_back(step);
        self.evict()
    }

    fn evict(&mut self) -> Vec<Step> {
        let mut evicted = Vec::new();
        while self.last.len() > MAX_LAST_STEPS
            || (self.last_bytes > MAX_LAST_BYTES && self.last.len() > 1)
        {
            let Some(step) = self.last.pop_front() else { break };
            self.last_bytes = self.last_bytes.saturating_sub(step.n_bytes());
            evicted.push(step);
        }
        evicted
    }

    /// Changes the step `number` and returns what `change` gives; `None` if the step is gone.
    pub(super) fn update<T>(
        &mut self,
        number: u64,
        change: impl FnOnce(&mut Step) -> T,
    ) -> Option<T> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        let (step, bytes) = if index < self.first.len() {
            (self.first.get_mut(index)?, &mut self.first_bytes)
        } else {
            let offset = number.checked_sub(self.last.front()?.number)?;
            (self.last.get_mut(usize::try_from(offset).ok()?)?, &mut self.last_bytes)
        };
        *bytes = bytes.saturating_sub(step.n_bytes());
        let changed = change(step);
        *bytes += step.n_bytes();
        Some(changed)
    }

    /// The kept steps in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Step> {
        self.first.iter().chain(&self.last)
    }

    /// How many steps there were.
    pub(super) fn n_steps(&self) -> u64 {
        self.n_pushed
    }

    /// How many of them were left out.
    pub(super) fn n_left_out(&self) -> u64 {
        self.n_pushed - (self.first.len() + self.last.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::clip::Clipped;
    use super::super::step::StepKind;
    use super::*;

    fn step(number: u64, n_bytes: usize) -> Step {
        let text = Clipped { text: "x".repeat(n_bytes), n_truncated_bytes: 0 };
        Step {
            number,
            line: number,
            started: Timestamp::UNIX_EPOCH,
            ended: None,
            parent_tool_call: None,
            kind: StepKind::UserText { text, synthetic: false },
        }
    }

    fn filled(n_steps: u64, n_bytes: usize) -> StepLog {
        let mut log = StepLog::default();
        for number in 1..=n_steps {
            log.push(step(number, n_bytes));
        }
        log
    }

    fn numbers(log: &StepLog) -> Vec<u64> {
        log.iter().map(|step| step.number).collect()
    }

    #[test]
    fn the_first_and_the_last_steps_are_kept_and_those_between_are_counted() {
        let log = filled(10_000, 1);
        let expected: Vec<u64> = (1..=1_000).chain(6_001..=10_000).collect();
        assert_eq!(numbers(&log), expected);
        assert_eq!((log.n_steps(), log.n_left_out()), (10_000, 5_000));
        assert_eq!(numbers(&filled(5_000, 1)).len(), 5_000);
    }

    #[test]
    fn large_steps_are_bounded_by_their_size() {
        let log = filled(1_000, 100_000);
        let n_bytes: usize = log.iter().map(Step::n_bytes).sum();
        assert!(n_bytes <= MAX_FIRST_BYTES + 100_500 + MAX_LAST_BYTES, "{n_bytes}");
        assert_eq!(numbers(&log).last(), Some(&1_000));
        assert_eq!(log.n_left_out() as usize, 1_000 - numbers(&log).len());
    }

    #[test]
    fn a_step_is_found_by_its_number_while_it_is_kept() {
        let mut log = filled(10_000, 1);
        for (number, found) in [
            (0, false),
            (1, true),
            (1_000, true),
            (1_001, false),
            (6_000, false),
            (6_001, true),
            (10_000, true),
            (10_001, false),
        ] {
            let expected = found.then_some(number);
            assert_eq!(log.update(number, |step| step.number), expected, "{number}");
        }
    }

    #[test]
    fn a_step_that_grows_is_measured_again() {
        let mut log = filled(1_001, 1);
        log.update(1_001, |step| {
            let text = Clipped { text: "x".repeat(MAX_LAST_BYTES), n_truncated_bytes: 0 };
            step.kind = StepKind::UserText { text, synthetic: false };
        });
        let evicted = log.push(step(1_002, 1));
        assert_eq!(evicted.iter().map(|step| step.number).collect::<Vec<_>>(), [1_001]);
        assert_eq!(log.last_bytes, step(1_002, 1).n_bytes());
    }
}
