//! How much each of many may have at the same time of what there is for all.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// What each key has now. A key that has nothing takes no memory.
#[derive(Debug)]
pub(super) struct Shares<K> {
    max_each: usize,
    taken: Arc<Mutex<HashMap<K, usize>>>,
}

/// A part of what a key may have; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Share<K: Hash + Eq> {
    key: K,
    n: usize,
    taken: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Hash + Eq + Clone> Shares<K> {
    pub(super) fn new(max_each: usize) -> Self {
        Self { max_each, taken: Arc::default() }
    }

    /// The most that one key may have.
    pub(super) fn max_each(&self) -> usize {
        self.max_each
    }

    /// `n` for this key; `None` when it would have too much.
    pub(super) fn take(&self, key: K, n: usize) -> Option<Share<K>> {
        let mut all = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = all.get(&key).copied().unwrap_or(0);
        if taken.saturating_add(n) > self.max_each {
            return None;
        }
        all.insert(key.clone(), taken + n);
        Some(Share { key, n, taken: Arc::clone(&self.taken) })
    }
}

impl<K: Hash + Eq> Drop for Share<K> {
    fn drop(&mut self) {
        let mut all = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = all.get_mut(&self.key) {
            *taken -= self.n;
            if *taken == 0 {
                all.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_share_and_what_is_given_back_can_be_had_again() {
        let shares = Shares::new(3);
        let two = shares.take("a", 2).unwrap();
        let one = shares.take("a", 1).unwrap();
        assert!(shares.take("a", 1).is_none());
        assert!(shares.take("b", 4).is_none());
        let others = shares.take("b", 3).unwrap();
        drop(two);
        let again = shares.take("a", 2).unwrap();
        drop((one, others, again));
        assert!(shares.taken.lock().unwrap().is_empty());
    }
}
