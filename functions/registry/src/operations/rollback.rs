//! Rollback: a tag names a manifest again that it named before. Only the tag is written.

use oci::{Digest, RepositoryName, Tag};

use super::tag_changes::TagChange;
use super::tag_guard;
use crate::auth::TagPermit;
use crate::call::Call;
use crate::registry::Registry;
use crate::releases::{Earlier, MAX_CHANGES, ReleaseError, RolledBack};
use crate::store::StoreError;
use crate::store::access::{Author, Occasion};

/// The number of changes of a tag that are read at once.
const CHANGES_AT_ONCE: usize = 1000;

impl Registry {
    /// Makes the tag of the permit, which has exactly one, name an earlier manifest again, if that still exists. The guard of
    /// tags decides whether the tag may change. A rollback to what the tag names already changes nothing. `principal` is for
    /// the history.
    pub async fn roll_back(
        &self,
        permit: &TagPermit,
        to: Earlier,
        principal: &str,
    ) -> Result<RolledBack, ReleaseError> {
        let call = Call::internal(self);
        call.roll_back(permit, to, Author::new(principal)).await
    }
}

impl Call<'_> {
    /// See [`Registry::roll_back`]. The occasion of the author is set here.
    pub(crate) async fn roll_back(
        &self,
        permit: &TagPermit,
        to: Earlier,
        author: Author,
    ) -> Result<RolledBack, ReleaseError> {
        let [tag] = permit.tags() else {
            return Err(StoreError::failed("a rollback is of exactly one tag").into());
        };
        let repository = permit.push().repository();
        let digest = match to {
            Earlier::Version(version) => self.digest_of_version(repository, tag, version).await?,
            Earlier::Digest(digest) => {
                self.check_named(repository, tag, &digest).await?;
                digest
            }
        };
        let change = TagChange {
            repository,
            tags: permit.tags(),
            digest: &digest,
            author: &Author {
                occasion: Occasion::Rollback,
                ..author
            },
            guard: &tag_guard::of_push(permit),
        };
        let moved = self.needs_change(&change).await?;
        self.change_tags(&change).await?;
        Ok(RolledBack { digest, moved })
    }

    /// The digest that the tag named after the change with this version.
    async fn digest_of_version(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        version: u64,
    ) -> Result<Digest, ReleaseError> {
        let metadata = &self.stores.metadata;
        let next = version.checked_add(1);
        let found = metadata.history(self.cx(), repository, tag, next, 1).await?.items;
        let has_history = !found.is_empty() || {
            let newest = metadata.history(self.cx(), repository, tag, None, 1).await?;
            !newest.items.is_empty()
        };
        let (repository, tag) = (repository.clone(), tag.clone());
        match found.first() {
            Some(change) if change.version == version => change.after.ok_or(ReleaseError::Deletion {
                repository,
                tag,
                version,
            }),
            _ if has_history => Err(ReleaseError::NoVersion {
                repository,
                tag,
                version,
            }),
            _ => Err(ReleaseError::NoTag { repository, tag }),
        }
    }

    /// Fails if the tag has not named the digest in its last changes.
    async fn check_named(&self, repository: &RepositoryName, tag: &Tag, digest: &Digest) -> Result<(), ReleaseError> {
        let metadata = &self.stores.metadata;
        let (mut before, mut examined) = (None, 0);
        while examined < MAX_CHANGES {
            let page = metadata
                .history(self.cx(), repository, tag, before, CHANGES_AT_ONCE)
                .await?;
            let names = |found: Option<Digest>| found.as_ref() == Some(digest);
            if page
                .items
                .iter()
                .any(|change| names(change.before) || names(change.after))
            {
                return Ok(());
            }
            examined += page.items.len();
            before = page.items.last().map(|change| change.version);
            if !page.more || before.is_none() {
                break;
            }
        }
        let (repository, tag, digest) = (repository.clone(), tag.clone(), *digest);
        Err(if examined == 0 {
            ReleaseError::NoTag { repository, tag }
        } else {
            ReleaseError::NeverNamed {
                repository,
                tag,
                digest,
            }
        })
    }
}
