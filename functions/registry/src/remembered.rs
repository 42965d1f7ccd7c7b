//! The repositories that are known to exist for good. Pushes to them need not ask the metadata store again.

use std::collections::BTreeSet;
use std::mem;
use std::sync::{Mutex, PoisonError};

use oci::RepositoryName;

/// The number of repositories that an instance remembers. At most 255 bytes each, and no heap but their names.
const CAPACITY: usize = 8192;

/// Repositories that were found to exist for good. Of too many, those that were not used of late are forgotten.
///
/// Absence is not remembered: a repository that is created now takes pushes at once. Nor is a repository that was only
/// pushed to: it leaves the catalog when it has become empty, and a push would list it again.
pub(crate) struct RememberedRepositories(Mutex<Halves>);

/// A new name, and an old one that is used, goes to the recent half. When that is full, it becomes the older half, and
/// the older half is dropped.
struct Halves {
    recent: BTreeSet<RepositoryName>,
    older: BTreeSet<RepositoryName>,
    /// The capacity of one half.
    capacity: usize,
}

impl RememberedRepositories {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self::of(CAPACITY)
    }

    fn of(capacity: usize) -> Self {
        Self(Mutex::new(Halves {
            recent: BTreeSet::new(),
            older: BTreeSet::new(),
            capacity: (capacity / 2).max(1),
        }))
    }

    /// Whether a repository is known to exist for good. It counts as used now.
    pub(crate) fn contain(&self, repository: &RepositoryName) -> bool {
        self.change(|halves| {
            if halves.recent.contains(repository) {
                return true;
            }
            let Some(name) = halves.older.take(repository) else {
                return false;
            };
            halves.insert(name);
            true
        })
    }

    /// Remembers that a repository exists for good.
    pub(crate) fn insert(&self, repository: RepositoryName) {
        self.change(|halves| {
            halves.older.remove(&repository);
            halves.insert(repository);
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut Halves) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Halves {
    fn insert(&mut self, repository: RepositoryName) {
        if self.recent.len() >= self.capacity && !self.recent.contains(&repository) {
            self.older = mem::take(&mut self.recent);
        }
        self.recent.insert(repository);
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
            let length = remembered.change(|halves| halves.recent.len() + halves.older.len());
            assert!(length <= 8, "{number}: {length}");
        }
        for (number, expected) in [(999, true), (998, true), (1, false), (1000, false)] {
            assert_eq!(remembered.contain(&name(number)), expected, "{number}");
        }
    }
}
