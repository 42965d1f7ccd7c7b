//! Tags that get another manifest of their repository: the last step of a rollback and of a promotion.

use std::collections::BTreeSet;
use std::sync::Arc;

use oci::{Digest, RepositoryName, Tag};

use crate::call::Call;
use crate::releases::ReleaseError;
use crate::store::access::Author;
use crate::store::metadata::{HistoryRecord, ManifestPut, NewContent, PutManifest, TagGuard};

/// Tags that are to name a manifest of their repository.
pub(super) struct TagChange<'a> {
    pub(super) repository: &'a RepositoryName,
    pub(super) tags: &'a [Tag],
    pub(super) digest: &'a Digest,
    /// Who changes them, and why.
    pub(super) author: &'a Author,
    pub(super) guard: &'a Arc<dyn TagGuard>,
}

impl Call<'_> {
    /// Whether some of the tags do not name the manifest yet. Fails if the guard refuses to change one of them: it is asked
    /// before anything is written, so that no work is done in vain. The store asks it again.
    pub(super) async fn needs_change(&self, change: &TagChange<'_>) -> Result<bool, ReleaseError> {
        let TagChange {
            repository,
            digest,
            guard,
            ..
        } = *change;
        let metadata = &self.stores.metadata;
        let mut is_needed = false;
        for tag in change.tags {
            let now = self.environment.now();
            let allowed = match metadata.tag(self.cx(), repository, tag).await? {
                Some(row) if row.digest == *digest => continue,
                Some(row) => guard.moved(tag, &row, digest, now),
                None => {
                    let changes = metadata.history(self.cx(), repository, tag, None, 1).await?.items;
                    let last = changes.first().and_then(HistoryRecord::deletion);
                    guard.create(tag, digest, last.as_ref(), now).map(|_since| ())
                }
            };
            allowed.map_err(|protected| ReleaseError::Protected(Box::new(protected)))?;
            is_needed = true;
        }
        Ok(is_needed)
    }

    /// Makes the tags name the manifest, all at once.
    pub(super) async fn change_tags(&self, change: &TagChange<'_>) -> Result<(), ReleaseError> {
        let (repository, digest) = (change.repository, *change.digest);
        let metadata = &self.stores.metadata;
        let Some(record) = metadata.manifest(self.cx(), repository, &digest).await? else {
            let repository = repository.clone();
            return Err(ReleaseError::ManifestDeleted { repository, digest });
        };
        if record.content.is_defective() {
            let repository = repository.clone();
            return Err(ReleaseError::Lost { repository, digest });
        }
        let put = PutManifest {
            repository: repository.clone(),
            digest,
            media_type: record.media_type,
            size: record.size,
            content: NewContent::Unchanged,
            artifact_type: record.artifact_type,
            // The manifest keeps its subject and its references: a put of a stored manifest does not change them.
            subject: None,
            required: BTreeSet::new(),
            excepted: BTreeSet::new(),
            tags: change.tags.to_vec(),
            author: change.author.clone(),
        };
        match metadata.put_manifest(self.cx(), &put, change.guard).await? {
            ManifestPut::Stored | ManifestPut::AsItWas | ManifestPut::StoredElsewhere(_) => Ok(()),
            ManifestPut::Protected(protected) => Err(ReleaseError::Protected(Box::new(protected))),
            ManifestPut::Gone | ManifestPut::Missing(_) | ManifestPut::OtherType(_) => Err(ReleaseError::Changed),
        }
    }
}
