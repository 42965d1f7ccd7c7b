//! Repositories whose row in the catalog was there, and not marked for deletion, a short while ago.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::mem::take;
use std::sync::{Mutex, PoisonError};

use oci::RepositoryName;
use registry::store::Timestamp;
use registry::store::collection::YOUNG_MS;

/// For how long, in milliseconds. A collection deletes a row that carried its mark for much longer, so that whoever
/// relies on this memory publishes before the last look at the repository.
pub(crate) const REMEMBERED_MS: u64 = YOUNG_MS;

/// A bounded memory of repositories. What is forgotten costs a read.
#[derive(Debug)]
pub(crate) struct KnownRepositories {
    maximum: usize,
    /// Names are kept as two hashes, since a walk over a table meets very many; the keys are random, so that nobody can
    /// look for names that have the same.
    hashers: [RandomState; 2],
    halves: Mutex<KnownHalves>,
}

/// When a name was learned, by its hashes.
type LearnedAt = HashMap<[u64; 2], Timestamp>;

/// What was learned: when half of what may be remembered is new, the other half is forgotten.
#[derive(Debug, Default)]
struct KnownHalves {
    new: LearnedAt,
    old: LearnedAt,
}

impl KnownRepositories {
    /// For what a server publishes: repositories that are in use.
    pub(crate) fn for_pushes() -> Self {
        Self::with(20_000)
    }

    /// For a walk over the table, which meets its repositories in the order of digests, each of them many times: some 10 MB
    /// at most.
    pub(crate) fn for_walks() -> Self {
        Self::with(250_000)
    }

    /// A memory of `maximum` repositories.
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

    /// Whether the row was there at most [`REMEMBERED_MS`] before `now`.
    pub(crate) fn contains(&self, repository: &RepositoryName, now: Timestamp) -> bool {
        let hashes = self.hashes(repository);
        let known = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let at = known.new.get(&hashes).or_else(|| known.old.get(&hashes));
        at.is_some_and(|at| *at <= now && now.millis_since(*at) < REMEMBERED_MS)
    }

    /// The row was read, or written, by a call that began at `at`.
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
        // A clock that was set back tells nothing.
        assert!(!known.contains(&name, Timestamp(at.0 - 1)));
        let later = at.plus_millis(REMEMBERED_MS);
        known.remember(&name, later);
        assert!(known.contains(&name, later), "learned again");
    }

    /// What was learned last is remembered, however many names there are.
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
