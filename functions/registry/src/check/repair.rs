//! What a check mends if it is asked to: it records what it has found wrong with an object, or with a manifest's
//! record, so that pulls are answered with 404 and the next push uploads; and it lets a link or a manifest that leads
//! elsewhere lead to its bytes.
//!
//! No byte is deleted, and what is recorded as missing is used again when it is back: a check that finds it takes the
//! record back.

use super::finding::Finding;
use super::run::{Over, Run};
use crate::store::StoreError;
use crate::store::metadata::Defect;

impl Run<'_> {
    /// Mends what was found, as far as that can be done without the bytes.
    pub(super) async fn repair(&mut self, finding: &Finding) -> Result<(), StoreError> {
        if let Finding::RecordedAsMissing { digest, location } = finding {
            let over = &self.over;
            let metadata = &over.stores.metadata;
            metadata.clear_missing(over.cx(), digest, location).await?;
            self.summary.repaired += 1;
            return Ok(());
        }
        if let Finding::Corrupt {
            repository: Some(repository),
            digest,
            location: None,
            ..
        } = finding
        {
            let over = &self.over;
            let metadata = &over.stores.metadata;
            metadata.record_damaged_manifest(over.cx(), repository, digest).await?;
            self.summary.repaired += 1;
            return Ok(());
        }
        let (repository, digest, location, defect) = match finding {
            Finding::ObjectMissing { digest, location } => (None, digest, location, Defect::Missing),
            Finding::ObjectResized { digest, location, .. }
            // Also what is recorded already: whoever has recorded it need not have come to all who hold it.
            | Finding::RecordedAsDamaged { digest, location }
            | Finding::Corrupt {
                digest,
                location: Some(location),
                ..
            } => (None, digest, location, Defect::Damaged),
            Finding::LinkAstray {
                repository,
                digest,
                location,
            }
            | Finding::ManifestAstray {
                repository,
                digest,
                location,
            } => (Some(repository), digest, location, Defect::Missing),
            _ => return Ok(()),
        };
        if self.summary.repaired == 0 {
            self.over.must_hold_something().await?;
        }
        let over = &self.over;
        let metadata = &over.stores.metadata;
        metadata
            .record_defect(over.cx(), repository, digest, location, defect)
            .await?;
        self.summary.repaired += 1;
        Ok(())
    }
}

impl Over<'_> {
    /// A store without any object is a wrong one rather than one that has lost all.
    async fn must_hold_something(&self) -> Result<(), StoreError> {
        let mut next = None;
        loop {
            // As many as a store tells at once: those that are not this registry's may come first, and make empty slices.
            let slice = self.stores.blobs.objects(self.cx(), next.as_ref(), 1000).await?;
            next = slice.next;
            if !slice.items.is_empty() {
                return Ok(());
            }
            if next.is_none() {
                return Err(StoreError::failed(
                    "the blob store holds no object at all: if it is the right one, push something first; nothing was \
                     repaired",
                ));
            }
        }
    }
}
