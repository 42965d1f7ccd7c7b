//! What changes the records of [`MemoryMetadata`](super::MemoryMetadata): each function is one transaction, called
//! with the lock held, and looks at everything before it changes anything.

use oci::{Digest, RepositoryName, Tag};

use super::metadata::{BlobRow, EdgeRow, GraveRow, Holding, LinkRow, ManifestRow, Records};
use crate::store::metadata::{
    Content, HistoryRecord, Link, ManifestPut, ManifestRecord, PutManifest, Removal, TagRecord,
};
use crate::store::{Context, Location};

impl Records {
    pub(super) fn commit_blob(
        &mut self,
        cx: Context,
        repository: &RepositoryName,
        digest: Digest,
        location: &Location,
        size: u64,
    ) {
        let blob = self.place(cx, digest, location, size);
        self.make_link(cx, repository, digest, blob);
    }

    pub(super) fn mount(
        &mut self,
        cx: Context,
        repository: &RepositoryName,
        digest: Digest,
        from: &RepositoryName,
    ) -> bool {
        let Some(source) = self.links.get(&(from.clone(), digest)) else {
            return false;
        };
        let (location, size) = (source.link.location.clone(), source.link.size);
        let blob = self.place(cx, digest, &location, size);
        self.make_link(cx, repository, digest, blob);
        true
    }

    pub(super) fn put_manifest(&mut self, cx: Context, put: &PutManifest) -> ManifestPut {
        let repository = &put.repository;
        let existing = self.manifests.get(repository).and_then(|of| of.get(&put.digest));
        let known = existing.map(|row| row.record.clone());

        let record = if let Some(record) = known {
            // The bytes are the same, so a second object of them has no use.
            if let Content::Stored(location) = &put.content {
                self.place(cx, put.digest, location, put.size);
            }
            record
        } else {
            let absent = |target: &&Digest| !self.is_present(repository, **target);
            let missing: Vec<Digest> = put.required.iter().filter(absent).copied().collect();
            if !missing.is_empty() {
                return ManifestPut::Missing(missing);
            }
            self.create_manifest(cx, put)
        };
        for tag in &put.tags {
            self.set_tag(cx, repository, tag, Some((put.digest, &record)), &put.who);
        }
        ManifestPut::Stored
    }

    fn create_manifest(&mut self, cx: Context, put: &PutManifest) -> ManifestRecord {
        let repository = &put.repository;
        let content = match &put.content {
            Content::Inline(bytes) => Content::Inline(bytes.clone()),
            Content::Stored(location) => {
                let blob = self.place(cx, put.digest, location, put.size);
                self.back_links
                    .entry(put.digest)
                    .or_default()
                    .insert((repository.clone(), Holding::Manifest, cx.incarnation), cx.now);
                Content::Stored(blob.location)
            }
        };
        let record = ManifestRecord {
            media_type: put.media_type.clone(),
            size: put.size,
            content,
            subject: put.subject.as_ref().map(|(subject, _)| *subject),
            artifact_type: put.artifact_type.clone(),
            incarnation: cx.incarnation,
        };
        for target in put.required.union(&put.excepted) {
            let edge = EdgeRow {
                incarnation: cx.incarnation,
                at: cx.now,
            };
            self.edges
                .entry((repository.clone(), *target))
                .or_default()
                .insert(put.digest, edge);
        }
        if let Some((subject, row)) = &put.subject {
            self.referrers
                .entry((repository.clone(), *subject))
                .or_default()
                .insert(put.digest, row.clone());
        }
        self.catalog.entry(repository.clone()).or_insert(cx.now);
        let row = ManifestRow {
            record: record.clone(),
            at: cx.now,
        };
        self.manifests
            .entry(repository.clone())
            .or_default()
            .insert(put.digest, row);
        record
    }

    /// Lets a tag name a manifest, or nothing. `false`: it did so before, and nothing has changed.
    pub(super) fn set_tag(
        &mut self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
        target: Option<(Digest, &ManifestRecord)>,
        who: &str,
    ) -> bool {
        let tags = self.tags.entry(repository.clone()).or_default();
        let before = tags.get(tag).map(|record| record.digest);
        let after = target.map(|(digest, _)| digest);
        if before == after {
            return false;
        }
        let history = self.history.entry((repository.clone(), tag.clone())).or_default();
        // The history outlives the tag, so that the versions of its next life go on from those of this one.
        let last = history.last_key_value().map_or(0, |(version, _)| *version);
        let version = (last + 1).max(cx.now.0 << 12);
        let change = HistoryRecord {
            version,
            before,
            after,
            who: who.to_owned(),
            at: cx.now,
        };
        history.insert(version, change);

        if let Some(digest) = before {
            self.tagged.remove(&(repository.clone(), digest, tag.clone()));
        }
        if let Some((digest, manifest)) = target {
            let record = TagRecord {
                digest,
                media_type: manifest.media_type.clone(),
                size: manifest.size,
                version,
                at: cx.now,
            };
            tags.insert(tag.clone(), record);
            self.tagged.insert((repository.clone(), digest, tag.clone()));
        } else {
            tags.remove(tag);
        }
        true
    }

    pub(super) fn delete_manifest(
        &mut self,
        cx: Context,
        repository: &RepositoryName,
        digest: Digest,
        who: &str,
    ) -> Removal {
        let existing = self.manifests.get(repository).and_then(|of| of.get(&digest));
        let Some(record) = existing.map(|row| row.record.clone()) else {
            return Removal::Absent;
        };
        if let Some(parent) = self.parent(repository, digest) {
            return Removal::Referenced(parent);
        }
        let tags: Vec<Tag> = self
            .tagged
            .iter()
            .filter(|(name, target, _)| name == repository && *target == digest)
            .map(|(_, _, tag)| tag.clone())
            .collect();
        for tag in &tags {
            self.set_tag(cx, repository, tag, None, who);
        }
        if let Some(subject) = record.subject
            && let Some(referrers) = self.referrers.get_mut(&(repository.clone(), subject))
        {
            referrers.remove(&digest);
        }
        for ((name, _), parents) in &mut self.edges {
            if name == repository {
                parents.remove(&digest);
            }
        }
        if let Some(holders) = self.back_links.get_mut(&digest) {
            holders.remove(&(repository.clone(), Holding::Manifest, record.incarnation));
        }
        if let Some(manifests) = self.manifests.get_mut(repository) {
            manifests.remove(&digest);
        }
        Removal::Removed
    }

    pub(super) fn unlink(&mut self, repository: &RepositoryName, digest: Digest) -> Removal {
        let key = (repository.clone(), digest);
        let Some(row) = self.links.get(&key) else {
            return Removal::Absent;
        };
        let incarnation = row.link.incarnation;
        if let Some(parent) = self.parent(repository, digest) {
            return Removal::Referenced(parent);
        }
        self.links.remove(&key);
        if let Some(holders) = self.back_links.get_mut(&digest) {
            holders.remove(&(repository.clone(), Holding::Blob, incarnation));
        }
        Removal::Removed
    }

    /// Decides where the bytes of a digest lie: where they lay before, or at `location`. A location that is not
    /// needed goes to the graveyard.
    fn place(&mut self, cx: Context, digest: Digest, location: &Location, size: u64) -> BlobRow {
        let blob = self.blobs.entry(digest).or_insert_with(|| BlobRow {
            location: location.clone(),
            size,
            at: cx.now,
        });
        if blob.location != *location {
            let grave = GraveRow { digest, at: cx.now };
            self.graveyard
                .insert((location.store.clone(), location.key.clone()), grave);
        }
        blob.clone()
    }

    /// Links a blob with its back-link, unless it is linked.
    fn make_link(&mut self, cx: Context, repository: &RepositoryName, digest: Digest, blob: BlobRow) {
        let key = (repository.clone(), digest);
        if self.links.contains_key(&key) {
            return;
        }
        let row = LinkRow {
            link: Link {
                location: blob.location,
                size: blob.size,
                incarnation: cx.incarnation,
            },
            at: cx.now,
        };
        self.links.insert(key, row);
        self.back_links
            .entry(digest)
            .or_default()
            .insert((repository.clone(), Holding::Blob, cx.incarnation), cx.now);
    }

    /// Whether a manifest may refer to the digest: as a blob or as a manifest.
    fn is_present(&self, repository: &RepositoryName, digest: Digest) -> bool {
        let manifests = self.manifests.get(repository);
        self.links.contains_key(&(repository.clone(), digest))
            || manifests.is_some_and(|manifests| manifests.contains_key(&digest))
    }

    /// A manifest that refers to `target`.
    fn parent(&self, repository: &RepositoryName, target: Digest) -> Option<Digest> {
        let parents = self.edges.get(&(repository.clone(), target))?;
        parents.keys().next().copied()
    }
}
