//! The location and the defect of a digest's object. Only the record of the object has the defect; links and manifests
//! are read together with it.

use oci::{Digest, RepositoryName, Tag};

use super::metadata::{BlobRow, MetadataRecords};
use crate::store::collection::PendingDeletion;
use crate::store::metadata::{Content, Defect, Link, ManifestRecord, TagRecord};
use crate::store::{Context, Location};

impl MetadataRecords {
    /// A link, as readers see it.
    pub(super) fn link(&self, repository: &RepositoryName, digest: Digest) -> Option<Link> {
        let row = self.links.get(&(repository.clone(), digest))?;
        Some(Link {
            defect: self.defect(digest),
            ..row.link.clone()
        })
    }

    /// A manifest, as readers see it.
    pub(super) fn manifest(&self, repository: &RepositoryName, digest: Digest) -> Option<ManifestRecord> {
        let mut record = self.manifests.get(repository)?.get(&digest)?.record.clone();
        record.content = match (record.content, self.defect(digest)) {
            (Content::Stored(location), Some(defect)) => Content::Defective(location, defect),
            (content, _) => content,
        };
        Some(record)
    }

    /// A tag, as readers see it.
    pub(super) fn tag(&self, repository: &RepositoryName, tag: &Tag) -> Option<TagRecord> {
        let record = self.tags.get(repository)?.get(tag)?.clone();
        let manifest = self.manifests.get(repository).and_then(|of| of.get(&record.digest));
        Some(TagRecord {
            is_suspect: manifest.is_some_and(|row| matches!(row.record.content, Content::Damaged(_))),
            ..record
        })
    }

    pub(super) fn record_damaged_manifest(&mut self, repository: &RepositoryName, digest: Digest) {
        let manifests = self.manifests.get_mut(repository);
        if let Some(row) = manifests.and_then(|manifests| manifests.get_mut(&digest))
            && let Content::Inline(bytes) = &row.record.content
            && Digest::of(digest.algorithm(), bytes) != digest
        {
            row.record.content = Content::Damaged(bytes.clone());
        }
    }

    fn defect(&self, digest: Digest) -> Option<Defect> {
        self.blobs.get(&digest)?.defect
    }

    pub(super) fn replace_location(
        &mut self,
        cx: Context,
        digest: Digest,
        old: &Location,
        new: &Location,
    ) -> Option<Location> {
        let blob = self.blobs.get_mut(&digest)?;
        if blob.location != *old {
            return Some(blob.location.clone());
        }
        blob.location = new.clone();
        blob.defect = None;
        self.schedule_deletion(PendingDeletion {
            location: old.clone(),
            digest: Some(digest),
            unfinished: false,
            at: cx.now,
        });
        self.agree(digest, None);
        Some(new.clone())
    }

    pub(super) fn record_defect(
        &mut self,
        cx: Context,
        repository: Option<&RepositoryName>,
        digest: Digest,
        location: &Location,
        defect: Defect,
    ) -> Option<Location> {
        let size = || {
            let link = repository.and_then(|name| self.links.get(&(name.clone(), digest)));
            let manifest = repository.and_then(|name| self.manifests.get(name)?.get(&digest));
            let of_manifest = manifest.map(|row| row.record.size);
            link.map(|row| row.link.size).or(of_manifest)
        };
        match self.blobs.get_mut(&digest) {
            Some(blob) if blob.location == *location => blob.defect = blob.defect.max(Some(defect)),
            Some(_) => {}
            // A link without a record of its object, after other damage.
            None => {
                let blob = BlobRow {
                    location: location.clone(),
                    size: size()?,
                    at: cx.now,
                    defect: Some(defect),
                };
                self.blobs.insert(digest, blob);
            }
        }
        self.agree(digest, repository);
        let blob = self.blobs.get(&digest)?;
        (blob.location != *location && blob.defect.is_none()).then(|| blob.location.clone())
    }

    pub(super) fn clear_missing(&mut self, digest: Digest, location: &Location) {
        if let Some(blob) = self.blobs.get_mut(&digest)
            && blob.location == *location
            && blob.defect == Some(Defect::Missing)
        {
            blob.defect = None;
        }
    }

    /// Corrects the location in links and large manifests to the recorded location of the object: in one repository, or
    /// in all.
    fn agree(&mut self, digest: Digest, only: Option<&RepositoryName>) {
        let Some(location) = self.blobs.get(&digest).map(|blob| blob.location.clone()) else {
            return;
        };
        let is_meant = |name: &RepositoryName| only.is_none_or(|only| only == name);
        for ((name, _), row) in self.links.iter_mut().filter(|((_, of), _)| *of == digest) {
            if is_meant(name) {
                row.link.location = location.clone();
            }
        }
        for (name, manifests) in &mut self.manifests {
            if let Some(row) = manifests.get_mut(&digest)
                && let Content::Stored(stored) = &mut row.record.content
                && is_meant(name)
            {
                *stored = location.clone();
            }
        }
    }
}
