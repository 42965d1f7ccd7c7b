//! A bounded set that forgets what was not used for longest.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// At most `capacity` keys.
pub(super) struct Recent<K> {
    /// When each was last used, as a number that only grows.
    used: HashMap<K, u64>,
    order: BTreeMap<u64, K>,
    next: u64,
    capacity: usize,
}

impl<K: Clone + Eq + Hash> Recent<K> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            used: HashMap::new(),
            order: BTreeMap::new(),
            next: 0,
            capacity,
        }
    }

    /// Whether `key` is in it; that is a use.
    pub(super) fn uses(&mut self, key: &K) -> bool {
        let Some(used) = self.used.get_mut(key) else {
            return false;
        };
        if let Some(key) = self.order.remove(used) {
            *used = self.next;
            self.order.insert(self.next, key);
            self.next += 1;
        }
        true
    }

    /// Adds `key`, and forgets another one for it if there are too many.
    pub(super) fn add(&mut self, key: K) {
        if self.uses(&key) {
            return;
        }
        while self.used.len() >= self.capacity
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.used.remove(&oldest);
        }
        self.used.insert(key.clone(), self.next);
        self.order.insert(self.next, key);
        self.next += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_is_forgotten() {
        let mut recent = Recent::new(3);
        for key in [1, 2, 3] {
            recent.add(key);
        }
        assert!(recent.uses(&1));
        recent.add(2);
        recent.add(4);
        assert_eq!([1, 2, 3, 4].map(|key| recent.uses(&key)), [true, true, false, true]);
        for key in 5..1000 {
            recent.add(key);
        }
        assert_eq!((recent.used.len(), recent.order.len()), (3, 3));
        assert!(!recent.uses(&1) && recent.uses(&999));
    }
}
