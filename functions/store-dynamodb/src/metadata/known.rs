//! Repositories whose row in the catalog was there, and not marked for deletion, a short while ago.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use oci::RepositoryName;
use registry::store::Timestamp;
use registry::store::collection::YOUNG_MS;

/// How many names are remembered; a few megabytes at most.
const MOST: usize = 20_000;

/// For how long, in milliseconds. A collection deletes a row that carried its mark for much longer, so that whoever
/// relies on this memory publishes before the last look at the repository.
pub(crate) const REMEMBERED_MS: u64 = YOUNG_MS;

/// A bounded memory of repositories. What is forgotten costs a read.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<HashMap<RepositoryName, Timestamp>>);

impl Known {
    /// Whether the row was there at most [`REMEMBERED_MS`] before `now`.
    pub(crate) fn has(&self, repository: &RepositoryName, now: Timestamp) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(repository)
            .is_some_and(|at| *at <= now && now.millis_since(*at) < REMEMBERED_MS)
    }

    /// The row was read, or written, by a call that began at `at`.
    pub(crate) fn learn(&self, repository: &RepositoryName, at: Timestamp) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Which names are forgotten does not matter: those in use are learned again by one read each.
        if known.len() >= MOST && !known.contains_key(repository) {
            known.clear();
        }
        known.insert(repository.clone(), at);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_repository_is_remembered_for_an_hour() {
        let known = Known::default();
        let name = "team/app".parse().unwrap();
        let at = Timestamp(5_000_000);
        assert!(!known.has(&name, at));
        known.learn(&name, at);
        assert!(known.has(&name, at));
        assert!(known.has(&name, at.plus_millis(REMEMBERED_MS - 1)));
        assert!(!known.has(&name, at.plus_millis(REMEMBERED_MS)));
        // A clock that was set back tells nothing.
        assert!(!known.has(&name, Timestamp(at.0 - 1)));
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let known = Known::default();
        for number in 0..=MOST {
            known.learn(&format!("r{number}").parse().unwrap(), Timestamp(1));
            assert!(known.0.lock().unwrap().len() <= MOST);
        }
        assert!(known.has(&format!("r{MOST}").parse().unwrap(), Timestamp(1)));
    }
}
