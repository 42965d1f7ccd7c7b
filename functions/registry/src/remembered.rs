//! The repositories that are known to exist for good. Pushes to them need not ask the metadata store again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use oci::RepositoryName;

use crate::recent_map::RecentMap;

/// The number of repositories that an instance remembers. At most 255 bytes each, and no heap but their names.
const CAPACITY: usize = 8192;

/// Repositories that were found to exist for good. Of too many, those that were not used of late are forgotten.
///
/// Absence is not remembered: a repository that is created now takes pushes at once. Nor is a repository that was only
/// pushed to: it leaves the catalog when it has become empty, and a push would list it again.
pub(crate) struct RememberedRepositories(Mutex<RecentMap<RepositoryName, ()>>);

impl RememberedRepositories {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self::of(CAPACITY)
    }

    fn of(capacity: usize) -> Self {
        Self(Mutex::new(RecentMap::new(capacity)))
    }

    /// Whether a repository is known to exist for good. It counts as used now.
    pub(crate) fn contain(&self, repository: &RepositoryName) -> bool {
        self.map().get(repository).is_some()
    }

    /// Remembers that a repository exists for good.
    pub(crate) fn insert(&self, repository: RepositoryName) {
        self.map().insert(repository, ());
    }

    fn map(&self) -> MutexGuard<'_, RecentMap<RepositoryName, ()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn name(number: usize) -> RepositoryName {
        format!("r/{number}").parse().unwrap()
    }

    #[test]
    fn what_is_used_is_remembered_and_the_number_is_bounded() {
        let remembered = RememberedRepositories::of(8);
        assert!(!remembered.contain(&name(0)));
        remembered.insert(name(0));
        for number in 1..1000 {
            remembered.insert(name(number));
            assert!(remembered.contain(&name(0)), "{number}");
            let length = remembered.map().values().count();
            assert!(length <= 8, "{number}: {length}");
        }
        for (number, expected) in [(999, true), (998, true), (1, false), (1000, false)] {
            assert_eq!(remembered.contain(&name(number)), expected, "{number}");
        }
    }
}
