//! The repairs of a check. It records a defect of an object or of a manifest's record, so that pulls get 404 and the
//! next push uploads the bytes. It also corrects the location in links and manifests.
//!
//! No object is deleted. An object that was recorded as missing is used again when it exists: a check that finds it
//! removes the record.

use super::finding::Finding;
use super::run::{CheckSetup, Run};
use crate::store::StoreError;
use crate::store::metadata::Defect;

impl Run<'_> {
    /// Repairs a finding, as far as that is possible without the bytes.
    pub(super) async fn repair(&mut self, finding: &Finding) -> Result<(), StoreError> {
        if let Finding::RecordedAsMissing { digest, location } = finding {
            let setup = &self.setup;
            let metadata = &setup.stores.metadata;
            metadata.clear_missing(setup.cx(), digest, location).await?;
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
            let setup = &self.setup;
            let metadata = &setup.stores.metadata;
            metadata.record_damaged_manifest(setup.cx(), repository, digest).await?;
            self.summary.repaired += 1;
            return Ok(());
        }
        let (repository, digest, location, defect) = match finding {
            Finding::ObjectMissing { digest, location } => (None, digest, location, Defect::Missing),
            Finding::ObjectResized { digest, location, .. }
            // Recorded defects are recorded again: the first recording may not have reached all repositories.
            | Finding::RecordedAsDamaged { digest, location }
            | Finding::Corrupt {
                digest,
                location: Some(location),
                ..
            } => (None, digest, location, Defect::Damaged),
            Finding::LinkLocationDiffers {
                repository,
                digest,
                location,
            }
            | Finding::ManifestLocationDiffers {
                repository,
                digest,
                location,
            } => (Some(repository), digest, location, Defect::Missing),
            _ => return Ok(()),
        };
        if self.summary.repaired == 0 {
            self.setup.check_has_objects().await?;
        }
        let setup = &self.setup;
        let metadata = &setup.stores.metadata;
        metadata
            .record_defect(setup.cx(), repository, digest, location, defect)
            .await?;
        self.summary.repaired += 1;
        Ok(())
    }
}

impl CheckSetup<'_> {
    /// Fails if the store has no object at all: it is probably the wrong store, and not one that has lost everything.
    async fn check_has_objects(&self) -> Result<(), StoreError> {
        let mut next = None;
        loop {
            // As many as a store returns at once. Objects that are not this registry's may come first, and make slices
            // empty.
            let slice = self.stores.blobs.objects(self.cx(), next.as_ref(), 1000).await?;
            next = slice.next;
            if !slice.items.is_empty() {
                return Ok(());
            }
            if next.is_none() {
                return Err(StoreError::failed(
                    "the blob store has no object at all, and nothing was repaired: if it is the right store, push \
                     something first",
                ));
            }
        }
    }
}
