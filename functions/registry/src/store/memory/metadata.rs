//! Metadata in memory: the records, and the reads. The writes are in `publish`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use oci::{Digest, RepositoryName, Tag};

use super::access_records::AccessRecords;
use super::{lock, page, yield_now};
use crate::store::access::Author;
use crate::store::collection::PendingDeletion;
use crate::store::metadata::{
    Defect, HistoryRecord, Link, Listing, ManifestPut, ManifestRecord, MetadataStore, PutManifest, Referrer, Removal,
    TagGuard, TagRecord,
};
use crate::store::records::{BackReference, LinkKind};
use crate::store::{Context, Location, Page, StoreError, Timestamp, Uid};

/// A metadata store in memory.
#[derive(Debug, Default)]
pub struct MemoryMetadata {
    records: Mutex<MetadataRecords>,
}

/// All records. Every key begins with a repository or a digest, so that related records are adjacent.
#[derive(Debug, Default)]
pub(super) struct MetadataRecords {
    /// The links of repositories to blobs.
    pub(super) links: BTreeMap<(RepositoryName, Digest), LinkRow>,
    /// The manifests of a repository; lists have the order of this map.
    pub(super) manifests: BTreeMap<RepositoryName, BTreeMap<Digest, ManifestRow>>,
    /// The edges: repository and target, then the parents. A reference as subject is not an edge.
    pub(super) edges: BTreeMap<(RepositoryName, Digest), BTreeSet<Digest>>,
    /// The referrers of a subject: repository and subject, then the referrer.
    pub(super) referrers: BTreeMap<(RepositoryName, Digest), BTreeMap<Digest, Referrer>>,
    pub(super) tags: BTreeMap<RepositoryName, BTreeMap<Tag, TagRecord>>,
    /// The tags that refer to a manifest.
    pub(super) tagged: BTreeSet<(RepositoryName, Digest, Tag)>,
    /// The changes of a tag, by version; they stay when the tag is deleted.
    pub(super) history: BTreeMap<(RepositoryName, Tag), BTreeMap<u64, HistoryRecord>>,
    /// The repositories of the catalog.
    pub(super) catalog: BTreeMap<RepositoryName, CatalogRow>,
    /// The location of a digest's object. It stays when the last back-link is deleted: only a collection may delete it.
    pub(super) blobs: BTreeMap<Digest, BlobRow>,
    /// The back-links of a digest.
    pub(super) back_links: BTreeMap<Digest, BTreeMap<(RepositoryName, LinkKind, Uid), Timestamp>>,
    /// The pending deletions, by store and key.
    pub(super) deletion_queue: BTreeMap<(String, String), PendingDeletion>,
    /// Accounts, policy and audit trail. In the same lock, so that a transaction can change metadata and record an event.
    pub(super) access: AccessRecords,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct CatalogRow {
    /// The time of its first manifest, or of its creation.
    pub(super) created: Timestamp,
    /// It stays while it is empty.
    pub(super) permanent: bool,
}

#[derive(Clone, Debug)]
pub(super) struct LinkRow {
    pub(super) link: Link,
    pub(super) at: Timestamp,
    /// When a collection found it unreferenced and marked it.
    pub(super) marked: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub(super) struct ManifestRow {
    pub(super) record: ManifestRecord,
    /// The targets of its edges.
    pub(super) references: BTreeSet<Digest>,
    pub(super) at: Timestamp,
}

#[derive(Clone, Debug)]
pub(super) struct BlobRow {
    pub(super) location: Location,
    pub(super) size: u64,
    pub(super) at: Timestamp,
    /// The known defect of the object.
    pub(super) defect: Option<Defect>,
}

/// The number of records of each kind in a [`MemoryMetadata`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordCounts {
    /// Links of repositories to blobs.
    pub links: usize,
    /// Manifests.
    pub manifests: usize,
    /// References of manifests, without subjects.
    pub edges: usize,
    /// Rows of referrers under a subject.
    pub referrers: usize,
    /// Tags.
    pub tags: usize,
    /// Reverse records from a manifest to a tag that refers to it: as many as tags.
    pub tagged: usize,
    /// Changes of tags.
    pub history: usize,
    /// Repositories.
    pub catalog: usize,
    /// Digests with a location.
    pub blobs: usize,
    /// Back-links: as many as links and large manifests.
    pub back_links: usize,
    /// Pending deletions.
    pub deletion_queue: usize,
}

impl MemoryMetadata {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a transaction.
    pub(super) fn begin(&self) -> MutexGuard<'_, MetadataRecords> {
        lock(&self.records)
    }

    /// The number of records of each kind.
    #[must_use]
    pub fn counts(&self) -> RecordCounts {
        let records = lock(&self.records);
        RecordCounts {
            links: records.links.len(),
            manifests: records.manifests.values().map(BTreeMap::len).sum(),
            edges: records.edges.values().map(BTreeSet::len).sum(),
            referrers: records.referrers.values().map(BTreeMap::len).sum(),
            tags: records.tags.values().map(BTreeMap::len).sum(),
            tagged: records.tagged.len(),
            history: records.history.values().map(BTreeMap::len).sum(),
            catalog: records.catalog.len(),
            blobs: records.blobs.len(),
            back_links: records.back_links.values().map(BTreeMap::len).sum(),
            deletion_queue: records.deletion_queue.len(),
        }
    }

    /// Deletes a back-reference alone. No operation does this; it is for tests of missing back-references.
    pub fn lose(&self, back_reference: &BackReference) {
        let mut records = lock(&self.records);
        match back_reference {
            BackReference::Edge {
                repository,
                target,
                parent,
                ..
            } => {
                if let Some(parents) = records.edges.get_mut(&(repository.clone(), *target)) {
                    parents.remove(parent);
                }
            }
            BackReference::BackLink {
                digest,
                repository,
                link_kind,
                uid,
            } => {
                if let Some(linking_repositories) = records.back_links.get_mut(digest) {
                    linking_repositories.remove(&(repository.clone(), *link_kind, *uid));
                }
            }
        }
    }

    /// Deletes the row of a manifest under its subject alone, for such tests.
    pub fn lose_referrer(&self, repository: &RepositoryName, subject: &Digest, referrer: &Digest) {
        let mut records = lock(&self.records);
        if let Some(referrers) = records.referrers.get_mut(&(repository.clone(), *subject)) {
            referrers.remove(referrer);
        }
    }

    /// The locations of the pending deletions, in the order of their keys.
    #[must_use]
    pub fn deletion_queue(&self) -> Vec<Location> {
        let records = lock(&self.records);
        let locations = records.deletion_queue.keys().map(|(store, key)| Location {
            store: store.clone(),
            key: key.clone(),
        });
        locations.collect()
    }
}

/// The range of keys after `after`; all keys without it.
fn following<K: ?Sized>(after: Option<&K>) -> (Bound<&K>, Bound<&K>) {
    (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

#[async_trait]
impl MetadataStore for MemoryMetadata {
    async fn link(
        &self,
        _cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Link>, StoreError> {
        let records = lock(&self.records);
        Ok(records.link(repository, *digest))
    }

    async fn link_and_unmark(
        &self,
        _cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Link>, StoreError> {
        let mut records = lock(&self.records);
        if let Some(row) = records.links.get_mut(&(repository.clone(), *digest)) {
            row.marked = None;
        }
        Ok(records.link(repository, *digest))
    }

    async fn marked_link(
        &self,
        _cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<(Link, bool)>, StoreError> {
        let records = lock(&self.records);
        let row = records.links.get(&(repository.clone(), *digest));
        let is_marked = row.is_some_and(|row| row.marked.is_some());
        Ok(records.link(repository, *digest).map(|link| (link, is_marked)))
    }

    async fn manifest(
        &self,
        _cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>, StoreError> {
        let records = lock(&self.records);
        Ok(records.manifest(repository, *digest))
    }

    async fn tag(&self, _cx: Context, repository: &RepositoryName, tag: &Tag) -> Result<Option<TagRecord>, StoreError> {
        let records = lock(&self.records);
        Ok(records.tag(repository, tag))
    }

    async fn tagged_manifest(
        &self,
        _cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<(TagRecord, Option<ManifestRecord>)>, StoreError> {
        let records = lock(&self.records);
        let tag = records.tag(repository, tag);
        Ok(tag.map(|tag| {
            let manifest = records.manifest(repository, tag.digest);
            (tag, manifest)
        }))
    }

    async fn tags(
        &self,
        _cx: Context,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Tag>, StoreError> {
        let records = lock(&self.records);
        let tags = records.tags.get(repository).into_iter();
        let following = tags.flat_map(|tags| tags.range::<str, _>(following(after)));
        Ok(page(following.map(|(tag, _)| tag.clone()), limit))
    }

    async fn history(
        &self,
        _cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<HistoryRecord>, StoreError> {
        let records = lock(&self.records);
        let until = before.map_or(Bound::Unbounded, Bound::Excluded);
        let changes = records.history.get(&(repository.clone(), tag.clone()));
        let changes = changes.into_iter();
        let newest_first = changes.flat_map(|of| of.range((Bound::Unbounded, until)).rev());
        Ok(page(newest_first.map(|(_, change)| change.clone()), limit))
    }

    async fn repository(&self, _cx: Context, repository: &RepositoryName) -> Result<Option<Listing>, StoreError> {
        let records = lock(&self.records);
        Ok(records.catalog.get(repository).map(|row| Listing::of(row.permanent)))
    }

    async fn repositories(
        &self,
        _cx: Context,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<RepositoryName>, StoreError> {
        let records = lock(&self.records);
        let following = records.catalog.range::<str, _>(following(after));
        Ok(page(following.map(|(name, _)| name.clone()), limit))
    }

    async fn create_repository(
        &self,
        cx: Context,
        repository: &RepositoryName,
        author: &Author,
    ) -> Result<bool, StoreError> {
        Ok(lock(&self.records).create_repository(cx, repository, author))
    }

    async fn manifests(
        &self,
        _cx: Context,
        repository: &RepositoryName,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Digest>, StoreError> {
        let records = lock(&self.records);
        let manifests = records.manifests.get(repository).into_iter();
        let following = manifests.flat_map(|of| of.range(following(after)));
        Ok(page(following.map(|(digest, _)| *digest), limit))
    }

    async fn referrers(
        &self,
        _cx: Context,
        repository: &RepositoryName,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Referrer>, StoreError> {
        let records = lock(&self.records);
        let referrers = records.referrers.get(&(repository.clone(), *subject));
        let following = referrers.into_iter().flat_map(|of| of.range(following(after)));
        Ok(page(following.map(|(_, referrer)| referrer.clone()), limit))
    }

    async fn commit_blob(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        location: &Location,
        size: u64,
    ) -> Result<Location, StoreError> {
        Ok(lock(&self.records).commit_blob(cx, repository, *digest, location, size))
    }

    async fn replace_location(
        &self,
        cx: Context,
        digest: &Digest,
        old: &Location,
        new: &Location,
        _size: u64,
    ) -> Result<Option<Location>, StoreError> {
        Ok(lock(&self.records).replace_location(cx, *digest, old, new))
    }

    async fn record_defect(
        &self,
        cx: Context,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        location: &Location,
        defect: Defect,
    ) -> Result<Option<Location>, StoreError> {
        Ok(lock(&self.records).record_defect(cx, repository, *digest, location, defect))
    }

    async fn clear_missing(&self, _cx: Context, digest: &Digest, location: &Location) -> Result<(), StoreError> {
        lock(&self.records).clear_missing(*digest, location);
        Ok(())
    }

    async fn record_damaged_manifest(
        &self,
        _cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        lock(&self.records).record_damaged_manifest(repository, *digest);
        Ok(())
    }

    async fn mount(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        from: &RepositoryName,
    ) -> Result<bool, StoreError> {
        Ok(lock(&self.records).mount(cx, repository, *digest, from))
    }

    async fn linking_repositories(
        &self,
        _cx: Context,
        digest: &Digest,
        limit: usize,
    ) -> Result<Vec<RepositoryName>, StoreError> {
        let records = lock(&self.records);
        let linking_repositories = records.back_links.get(digest).into_iter();
        let linking_repositories = linking_repositories.flat_map(BTreeMap::keys);
        let blobs = linking_repositories.filter(|(_, link_kind, _)| *link_kind == LinkKind::Blob);
        Ok(blobs.map(|(name, ..)| name.clone()).take(limit).collect())
    }

    async fn put_manifest(
        &self,
        cx: Context,
        put: &PutManifest,
        guard: &Arc<dyn TagGuard>,
    ) -> Result<ManifestPut, StoreError> {
        Ok(lock(&self.records).put_manifest(cx, put, &**guard))
    }

    async fn delete_tag(
        &self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
        author: &Author,
        guard: &Arc<dyn TagGuard>,
    ) -> Result<Removal, StoreError> {
        Ok(lock(&self.records).delete_tag(cx, repository, tag, author, &**guard))
    }

    async fn delete_manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        author: &Author,
        guard: &Arc<dyn TagGuard>,
    ) -> Result<Removal, StoreError> {
        let mut part = 1;
        loop {
            let removal = lock(&self.records).delete_manifest(cx, repository, *digest, author, &**guard, part);
            match removal {
                Some(removal) => return Ok(removal),
                // Other tasks run in between.
                None => yield_now().await,
            }
            part += 1;
        }
    }

    async fn unlink(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        author: &Author,
    ) -> Result<Removal, StoreError> {
        Ok(lock(&self.records).unlink(cx, repository, *digest, author))
    }
}
