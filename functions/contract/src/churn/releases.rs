//! What each immutable tag is, as far as any client knows.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use oci::Digest;

/// By repository and tag: the manifest when the tag was first acknowledged or read. It stays that to the end.
#[derive(Debug, Default)]
pub(super) struct Releases(Mutex<BTreeMap<(String, String), Digest>>);

impl Releases {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), Digest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a client said that the tag names `digest`.
    ///
    /// # Panics
    /// If the answer to any client said something else before.
    pub(super) fn stands(&self, repository: &str, tag: &str, digest: Digest) {
        let key = (repository.to_owned(), tag.to_owned());
        let first = *self.lock().entry(key).or_insert(digest);
        assert_eq!(first, digest, "the immutable tag {repository}:{tag} has moved");
    }

    /// What the tag names, if any client knows it.
    pub(super) fn get(&self, repository: &str, tag: &str) -> Option<Digest> {
        self.lock().get(&(repository.to_owned(), tag.to_owned())).copied()
    }

    /// Whether a tag of the repository is known to name `digest`.
    pub(super) fn names(&self, repository: &str, digest: &Digest) -> bool {
        let all = self.lock();
        all.iter().any(|((of, _), named)| of == repository && named == digest)
    }
}

#[cfg(test)]
mod tests {
    use oci::Algorithm;

    use super::*;

    #[test]
    #[should_panic(expected = "the immutable tag a:r0 has moved")]
    fn a_tag_that_moves_is_noticed() {
        let [one, other] = ["one", "other"].map(|text| Digest::of(Algorithm::Sha256, text.as_bytes()));
        let releases = Releases::default();
        releases.stands("a", "r0", one);
        releases.stands("b", "r0", other);
        assert!(releases.names("a", &one) && !releases.names("a", &other));
        releases.stands("a", "r0", one);
        releases.stands("a", "r0", other);
    }
}
