//! Repositories whose row in the catalog is known to exist.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use oci::RepositoryName;

/// How many names are remembered; a few megabytes at most.
const MOST: usize = 20_000;

/// A bounded memory of repositories. Catalog rows are never removed, so that what is known stays true; what is
/// forgotten costs a read.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<HashSet<RepositoryName>>);

impl Known {
    pub(crate) fn has(&self, repository: &RepositoryName) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(repository)
    }

    pub(crate) fn learn(&self, repository: &RepositoryName) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Which names are forgotten does not matter: those in use are learned again by one read each.
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(repository.clone());
    }
}
