//! A cache of repositories whose catalog row existed without a mark a short time ago.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::mem::take;
use std::sync::{Mutex, PoisonError};

use oci::RepositoryName;
use registry::store::Timestamp;
use registry::store::collection::YOUNG_MS;

/// The maximum age of an entry, in milliseconds. Collection deletes a catalog row only after its mark is much older
/// than this, so that a publisher that relies on an entry publishes before collection looks at the repository for the
/// last time.
pub(crate) const REMEMBERED_MS: u64 = YOUNG_MS;

/// A bounded cache of repositories. A missing entry costs one read.
///
/// `lru` would keep the entries in the order of their uses. That order is of no use here, because an entry is as good as
/// its age and a use does not renew it; and its links would double the size of an entry. So entries are dropped by halves.
#[derive(Debug)]
pub(crate) struct KnownRepositories {
    maximum: usize,
    /// The cache holds two hashes of each name instead of the name, because a walk over a table meets very many. The
    /// hash keys are random, so that no client can search for names with equal hashes.
    hashers: [RandomState; 2],
    halves: Mutex<KnownHalves>,
}

/// The time of the last read or write of a row, by the hashes of the repository's name.
type LearnedAt = HashMap<[u64; 2], Timestamp>;

/// The entries. When the new half is full, the old half is dropped.
#[derive(Debug, Default)]
struct KnownHalves {
    new: LearnedAt,
    old: LearnedAt,
}

impl KnownRepositories {
    /// The cache for pushes: repositories that are in use.
    pub(crate) fn for_pushes() -> Self {
        Self::with(20_000)
    }

    /// The cache for walks over the table, at most some 10 MB. A walk meets repositories in the order of digests, and
    /// so each of them many times.
    pub(crate) fn for_walks() -> Self {
        Self::with(250_000)
    }

    /// A cache of at most `maximum` repositories.
    pub(crate) fn with(maximum: usize) -> Self {
        Self {
            maximum,
            hashers: [RandomState::new(), RandomState::new()],
            halves: Mutex::default(),
        }
    }

    fn hashes(&self, repository: &RepositoryName) -> [u64; 2] {
        [0, 1].map(|which| self.hashers[which].hash_one(repository))
    }

    /// Whether the row existed without a mark at most [`REMEMBERED_MS`] before `now`.
    pub(crate) fn contains(&self, repository: &RepositoryName, now: Timestamp) -> bool {
        let hashes = self.hashes(repository);
        let known = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let at = known.new.get(&hashes).or_else(|| known.old.get(&hashes));
        at.is_some_and(|at| *at <= now && now.millis_since(*at) < REMEMBERED_MS)
    }

    /// Remembers that a call that began at `at` has read or written the row.
    pub(crate) fn remember(&self, repository: &RepositoryName, at: Timestamp) {
        let hashes = self.hashes(repository);
        let mut known = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        if known.new.len() >= self.maximum / 2 && !known.new.contains_key(&hashes) {
            known.old = take(&mut known.new);
        }
        known.new.insert(hashes, at);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_repository_is_remembered_for_an_hour() {
        let known = KnownRepositories::for_pushes();
        let name = "team/app".parse().unwrap();
        let at = Timestamp(5_000_000);
        assert!(!known.contains(&name, at));
        known.remember(&name, at);
        assert!(known.contains(&name, at));
        assert!(known.contains(&name, at.plus_millis(REMEMBERED_MS - 1)));
        assert!(!known.contains(&name, at.plus_millis(REMEMBERED_MS)));
        // An entry from the future is ignored: the clock was set back.
        assert!(!known.contains(&name, Timestamp(at.0 - 1)));
        let later = at.plus_millis(REMEMBERED_MS);
        known.remember(&name, later);
        assert!(known.contains(&name, later), "remembered again");
    }

    /// The latest entries are kept, however many repositories are added.
    #[test]
    fn a_full_memory_forgets_the_oldest_repositories() {
        let known = KnownRepositories::with(100);
        let name = |number: usize| format!("r{number}").parse().unwrap();
        for number in 0..500 {
            known.remember(&name(number), Timestamp(1));
            let halves = known.halves.lock().unwrap();
            assert!(halves.new.len() + halves.old.len() <= 100);
            drop(halves);
            for before in number.saturating_sub(49)..=number {
                assert!(known.contains(&name(before), Timestamp(1)), "{before} at {number}");
            }
        }
        assert!(!known.contains(&name(0), Timestamp(1)));
    }
}
