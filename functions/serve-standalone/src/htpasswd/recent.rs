//! A bounded set that drops the least recently used key.

use std::hash::{Hash, RandomState};
use std::num::NonZeroUsize;

use lru::LruCache;

/// A set with a maximum number of keys. Its memory grows with their number. Users may choose the keys, so the hash is keyed.
pub(super) type Recent<K> = LruCache<K, (), RandomState>;

/// An empty set of at most `capacity` keys.
pub(super) fn at_most<K: Hash + Eq>(capacity: NonZeroUsize) -> Recent<K> {
    // A set that is created with a capacity takes the memory for all keys at once.
    let mut recent = LruCache::unbounded_with_hasher(RandomState::new());
    recent.resize(capacity);
    recent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_key_is_dropped() {
        let mut recent = at_most(NonZeroUsize::MIN.saturating_add(2));
        for key in [1, 2, 3] {
            recent.put(key, ());
        }
        assert!(recent.get(&1).is_some());
        recent.put(2, ());
        recent.put(4, ());
        assert_eq!(
            [1, 2, 3, 4].map(|key| recent.get(&key).is_some()),
            [true, true, false, true]
        );
        for key in 5..1000 {
            recent.put(key, ());
        }
        assert_eq!(recent.len(), 3);
        assert!(recent.get(&1).is_none() && recent.get(&999).is_some());
    }
}
