//! Locks by key: of the requests that are about the same thing, one at a time goes on.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::lock::{Mutex as AsyncMutex, OwnedMutexGuard};

/// The number of keys at which the locks that nobody holds are dropped.
const CLEAN_AT: usize = 1024;

/// Locks by key. A lock exists while a request holds it or waits for it.
#[derive(Debug)]
pub(super) struct KeyLocks<K>(Mutex<HashMap<K, Weak<AsyncMutex<u64>>>>);

/// A lock, until it is dropped. Its value is the number of the last read that has failed under it; 0: none has.
pub(super) type KeyLock = OwnedMutexGuard<u64>;

impl<K: Hash + Eq> KeyLocks<K> {
    /// No locks.
    pub(super) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// Waits for the lock of `key`.
    pub(super) async fn lock(&self, key: K) -> KeyLock {
        let lock = self.of(key);
        lock.lock_owned().await
    }

    fn of(&self, key: K) -> Arc<AsyncMutex<u64>> {
        let mut locks = self.locks();
        if let Some(lock) = locks.get(&key).and_then(Weak::upgrade) {
            return lock;
        }
        if locks.len() >= CLEAN_AT {
            locks.retain(|_, lock| lock.strong_count() > 0);
        }
        let lock = Arc::new(AsyncMutex::new(0));
        locks.insert(key, Arc::downgrade(&lock));
        lock
    }

    fn locks(&self) -> MutexGuard<'_, HashMap<K, Weak<AsyncMutex<u64>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn one_request_for_each_key_goes_on() {
        let locks = KeyLocks::new();
        let first = locks.lock(1).now_or_never();
        assert!(first.is_some());
        assert!(locks.lock(1).now_or_never().is_none());
        assert!(locks.lock(2).now_or_never().is_some());
        drop(first);
        assert!(locks.lock(1).now_or_never().is_some());
    }

    #[test]
    fn locks_that_nobody_holds_take_no_memory() {
        let locks = KeyLocks::new();
        let held = locks.lock(0).now_or_never();
        for key in 1..10 * CLEAN_AT {
            assert!(locks.lock(key).now_or_never().is_some());
        }
        assert!(locks.locks().len() <= CLEAN_AT);
        assert!(locks.lock(0).now_or_never().is_none(), "it is held");
        drop(held);
    }
}
