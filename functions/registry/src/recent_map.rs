//! A bounded map that forgets what was not used of late.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// A map with a maximum number of entries.
///
/// It has young entries and old ones. A new entry is young, and so is an old one that is used. When there are as many young
/// ones as half of the maximum, they become the old ones, and the old ones are dropped. So an entry that is used stays, and
/// nothing is searched.
#[derive(Debug)]
pub struct RecentMap<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    max_young: usize,
}

impl<K: Hash + Eq, V: Clone> RecentMap<K, V> {
    /// An empty map of at most `capacity` entries, or two if that is less.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            max_young: (capacity / 2).max(1),
        }
    }

    /// The value of a key, which counts as used now.
    pub fn get<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    /// Adds or replaces an entry.
    pub fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.max_young && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Drops an entry.
    pub fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// All values, in no order. It does not count as a use.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.young.values().chain(self.old.values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_number_of_entries_is_bounded() {
        let mut map = RecentMap::new(8);
        map.insert(0, "used");
        for key in 1..1000 {
            map.insert(key, "once");
            assert_eq!(map.get(&0), Some("used"), "{key}");
            assert!(map.values().count() <= 8, "{key}");
        }
        assert_eq!((map.get(&999), map.get(&1)), (Some("once"), None));
        map.insert(0, "again");
        assert_eq!(map.get(&0), Some("again"));
        assert_eq!(map.values().filter(|value| **value == "again").count(), 1);
        map.remove(&0);
        assert_eq!(map.get(&0), None);
    }
}
