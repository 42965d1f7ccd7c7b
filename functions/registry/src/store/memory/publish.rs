//! The writes of [`MemoryMetadata`](super::MemoryMetadata). Each function is one transaction: it is called with the
//! lock, and reads everything before its first change.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;

use bytes::Bytes;
use oci::{Digest, RepositoryName, Tag};

use super::metadata::{BlobRow, CatalogRow, LinkRow, ManifestRow, MetadataRecords};
use crate::store::access::Author;
use crate::store::collection::PendingDeletion;
use crate::store::metadata::{
    Content, HistoryRecord, Link, ManifestPut, ManifestRecord, NewContent, Protected, PutManifest, Removal, TagGuard,
    TagRecord,
};
use crate::store::records::LinkKind;
use crate::store::{Context, Location, Timestamp};

/// The maximum number of tags that one transaction deletes, since other requests wait for it.
const TAGS_AT_ONCE: usize = 250;

impl MetadataRecords {
    pub(super) fn commit_blob(
        &mut self,
        cx: Context,
        repository: &RepositoryName,
        digest: Digest,
        location: &Location,
        size: u64,
    ) -> Location {
        let blob = self.choose_location(cx, digest, location, size);
        self.make_link(cx, repository, digest, blob.clone());
        blob.location
    }

    /// Lists a repository, and makes it permanent. `true`: it was not listed.
    pub(super) fn create_repository(&mut self, cx: Context, repository: &RepositoryName, author: &Author) -> bool {
        let row = CatalogRow {
            created: cx.now,
            permanent: true,
        };
        let (was_listed, was_permanent) = match self.catalog.entry(repository.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(row);
                (false, false)
            }
            Entry::Occupied(mut entry) => (true, std::mem::replace(&mut entry.get_mut().permanent, true)),
        };
        if !was_permanent {
            self.access
                .record(author.repository_created(cx, repository, was_listed));
        }
        !was_listed
    }

    pub(super) fn mount(
        &mut self,
        cx: Context,
        repository: &RepositoryName,
        digest: Digest,
        from: &RepositoryName,
    ) -> bool {
        let Some(source) = self.link(from, digest).filter(|link| link.defect.is_none()) else {
            return false;
        };
        let blob = self.choose_location(cx, digest, &source.location, source.size);
        self.make_link(cx, repository, digest, blob);
        true
    }

    pub(super) fn put_manifest(&mut self, cx: Context, put: &PutManifest, guard: &dyn TagGuard) -> ManifestPut {
        let repository = &put.repository;
        let mut is_written = !matches!(put.content, NewContent::Inline(_) | NewContent::Unchanged);
        let present = self.manifest(repository, put.digest);
        let is_new = present.is_none();
        if let Some(refusal) = Self::refusal(put, present.as_ref()) {
            return refusal;
        }
        let checked = put.tags.iter();
        let checked = checked.map(|tag| self.check_naming(cx, repository, tag, put.digest, guard));
        let since = match checked.collect::<Result<Vec<_>, _>>() {
            Ok(since) => since,
            Err(protected) => return ManifestPut::Protected(protected),
        };
        if is_new {
            let absent = |target: &&Digest| !self.is_present(repository, **target);
            let missing: Vec<Digest> = put.required.iter().filter(absent).copied().collect();
            if !missing.is_empty() {
                return ManifestPut::Missing(missing);
            }
        }
        let record = if let Some(record) = present {
            match (&put.content, &record.content) {
                (NewContent::Inline(bytes), Content::Inline(_) | Content::Damaged(_)) => {
                    let is_whole =
                        record.content == Content::Inline(bytes.clone()) && record.size == bytes.len() as u64;
                    is_written |= !is_whole;
                    self.replace_damaged_bytes(repository, put.digest, bytes);
                }
                (NewContent::Sealed(location), _) => {
                    self.choose_location(cx, put.digest, location, put.size);
                }
                _ => {}
            }
            record
        } else {
            match self.content(cx, put) {
                Some(content) => self.create_manifest(cx, put, content),
                None => return ManifestPut::Gone,
            }
        };
        let mut set = Vec::new();
        for (tag, since) in put.tags.iter().zip(since) {
            let before = self.named_by(repository, tag);
            let target = Some((put.digest, &record, since));
            if self.set_tag(cx, repository, tag, target, &put.author) {
                set.push((tag, before));
            }
        }
        if is_new || !set.is_empty() {
            is_written = true;
            let event = put.author.manifest_pushed(cx, repository, &put.digest, set);
            self.access.record(event);
        }
        match (&put.content, self.blobs.get(&put.digest)) {
            (NewContent::Sealed(offered), Some(blob)) if blob.location != *offered => {
                ManifestPut::StoredElsewhere(blob.location.clone())
            }
            _ if is_written => ManifestPut::Stored,
            _ => ManifestPut::AsItWas,
        }
    }

    /// The result of a put that changes nothing, because of the record or its absence, before the guard is asked.
    fn refusal(put: &PutManifest, present: Option<&ManifestRecord>) -> Option<ManifestPut> {
        match present {
            Some(record) if record.media_type != put.media_type => {
                return Some(ManifestPut::OtherType(record.media_type.clone()));
            }
            Some(record) => match (&put.content, &record.content) {
                (NewContent::Inline(_), Content::Damaged(_)) => {}
                (_, Content::Damaged(_)) => return Some(ManifestPut::Gone),
                (NewContent::Sealed(_), _) => {}
                (_, Content::Defective(..)) => return Some(ManifestPut::Gone),
                _ => {}
            },
            None if put.content == NewContent::Unchanged => return Some(ManifestPut::Gone),
            None => {}
        }
        None
    }

    /// Whether the guard allows that a tag names a manifest, and since when it then counts as naming it.
    fn check_naming(
        &self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
        digest: Digest,
        guard: &dyn TagGuard,
    ) -> Result<Timestamp, Protected> {
        match self.tags.get(repository).and_then(|tags| tags.get(tag)) {
            Some(record) if record.digest == digest => Ok(record.at),
            Some(record) => guard.moved(tag, record, &digest, cx.now).map(|()| cx.now),
            None => {
                let history = self.history.get(&(repository.clone(), tag.clone()));
                let last = history.and_then(|history| history.last_key_value());
                let last = last.and_then(|(_, change)| change.deletion());
                guard.create(tag, &digest, last.as_ref(), cx.now)
            }
        }
    }

    /// Deletes a tag, if the guard allows it.
    pub(super) fn delete_tag(
        &mut self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
        author: &Author,
        guard: &dyn TagGuard,
    ) -> Removal {
        let Some(record) = self.tags.get(repository).and_then(|tags| tags.get(tag)) else {
            return Removal::Absent;
        };
        if let Err(protected) = guard.removed(tag, record, cx.now) {
            return Removal::Protected(protected);
        }
        let event = author.tag_deleted(cx, repository, tag, &record.digest);
        self.set_tag(cx, repository, tag, None, author);
        self.access.record(event);
        Removal::Removed
    }

    /// The digest that a tag names.
    fn named_by(&self, repository: &RepositoryName, tag: &Tag) -> Option<Digest> {
        let tags = self.tags.get(repository)?;
        tags.get(tag).map(|record| record.digest)
    }

    /// Replaces damaged bytes in a record. The new bytes have the digest, so other bytes in the record are damaged.
    fn replace_damaged_bytes(&mut self, repository: &RepositoryName, digest: Digest, bytes: &Bytes) {
        let manifests = self.manifests.get_mut(repository);
        if let Some(row) = manifests.and_then(|manifests| manifests.get_mut(&digest)) {
            row.record.content = Content::Inline(bytes.clone());
            row.record.size = bytes.len() as u64;
        }
    }

    /// The content of the record of a new manifest. `None`: the put has no bytes.
    fn content(&mut self, cx: Context, put: &PutManifest) -> Option<Content> {
        match &put.content {
            NewContent::Inline(bytes) => Some(Content::Inline(bytes.clone())),
            NewContent::Sealed(location) => {
                let blob = self.choose_location(cx, put.digest, location, put.size);
                self.back_links
                    .entry(put.digest)
                    .or_default()
                    .insert((put.repository.clone(), LinkKind::Manifest, cx.uid), cx.now);
                Some(Content::Stored(blob.location))
            }
            NewContent::Unchanged => None,
        }
    }

    fn create_manifest(&mut self, cx: Context, put: &PutManifest, content: Content) -> ManifestRecord {
        let repository = &put.repository;
        let record = ManifestRecord {
            media_type: put.media_type.clone(),
            size: put.size,
            content,
            subject: put.subject.as_ref().map(|(subject, _)| *subject),
            artifact_type: put.artifact_type.clone(),
            uid: cx.uid,
        };
        let references: BTreeSet<Digest> = put.required.union(&put.excepted).copied().collect();
        self.add_references(repository, put.digest, &references);
        if let Some((subject, row)) = &put.subject {
            self.referrers
                .entry((repository.clone(), *subject))
                .or_default()
                .insert(put.digest, row.clone());
        }
        self.catalog.entry(repository.clone()).or_insert(CatalogRow {
            created: cx.now,
            permanent: false,
        });
        let row = ManifestRow {
            record: record.clone(),
            references,
            at: cx.now,
        };
        self.manifests
            .entry(repository.clone())
            .or_default()
            .insert(put.digest, row);
        record
    }

    /// Sets the manifest of a tag and since when it counts as naming it, or deletes the tag, without asking a guard.
    /// `false`: nothing has changed.
    fn set_tag(
        &mut self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
        target: Option<(Digest, &ManifestRecord, Timestamp)>,
        author: &Author,
    ) -> bool {
        let tags = self.tags.entry(repository.clone()).or_default();
        let named = tags.get(tag);
        let before = named.map(|record| record.digest);
        let since = named.map(|record| record.at).filter(|_| target.is_none());
        let after = target.map(|(digest, ..)| digest);
        if before == after {
            return false;
        }
        let history = self.history.entry((repository.clone(), tag.clone())).or_default();
        // The history stays when the tag is deleted, so the versions continue when the tag is created again.
        let last = history.last_key_value().map(|(version, _)| *version);
        let version = TagRecord::next_version(last, cx.now);
        let change = HistoryRecord {
            version,
            before,
            after,
            principal: author.principal.clone(),
            promoted_from: author.promoted_from().map(str::to_owned),
            at: cx.now,
            since,
        };
        history.insert(version, change);

        if let Some(digest) = before {
            self.tagged.remove(&(repository.clone(), digest, tag.clone()));
        }
        if let Some((digest, manifest, at)) = target {
            let record = TagRecord {
                digest,
                media_type: manifest.media_type.clone(),
                size: manifest.size,
                version,
                at,
                is_suspect: false,
            };
            tags.insert(tag.clone(), record);
            self.tagged.insert((repository.clone(), digest, tag.clone()));
        } else {
            tags.remove(tag);
        }
        true
    }

    /// Deletes a manifest with its tags. `None`: some of the tags are deleted, and there are more. `part` counts these steps.
    pub(super) fn delete_manifest(
        &mut self,
        cx: Context,
        repository: &RepositoryName,
        digest: Digest,
        author: &Author,
        guard: &dyn TagGuard,
        part: u64,
    ) -> Option<Removal> {
        if !self
            .manifests
            .get(repository)
            .is_some_and(|of| of.contains_key(&digest))
        {
            return Some(Removal::Absent);
        }
        if let Some(parent) = self.parent(repository, digest) {
            return Some(Removal::Referenced(parent));
        }
        let of_manifest = self.tagged.iter();
        let of_manifest = of_manifest.filter(|(name, target, _)| name == repository && *target == digest);
        let of_manifest = of_manifest.map(|(_, _, tag)| tag);
        let refused = of_manifest.clone().find_map(|tag| {
            let record = self.tags.get(repository)?.get(tag)?;
            guard.removed(tag, record, cx.now).err()
        });
        if let Some(protected) = refused {
            return Some(Removal::Protected(protected));
        }
        let mut tags: Vec<Tag> = of_manifest.take(TAGS_AT_ONCE + 1).cloned().collect();
        let more = tags.len() > TAGS_AT_ONCE;
        tags.truncate(TAGS_AT_ONCE);
        for tag in &tags {
            self.set_tag(cx, repository, tag, None, author);
        }
        if more {
            self.access
                .record(author.tags_deleted(cx, repository, &digest, &tags, part));
            return None;
        }
        self.remove_manifest(repository, digest);
        self.access
            .record(author.manifest_deleted(cx, repository, &digest, &tags));
        Some(Removal::Removed)
    }

    /// Deletes the record of a manifest with everything that belongs to it, except its tags.
    pub(super) fn remove_manifest(&mut self, repository: &RepositoryName, digest: Digest) {
        let manifests = self.manifests.get_mut(repository);
        let Some(row) = manifests.and_then(|manifests| manifests.remove(&digest)) else {
            return;
        };
        if let Some(subject) = row.record.subject {
            let key = (repository.clone(), subject);
            if let Some(referrers) = self.referrers.get_mut(&key) {
                referrers.remove(&digest);
            }
        }
        for target in row.references {
            if let Some(parents) = self.edges.get_mut(&(repository.clone(), target)) {
                parents.remove(&digest);
            }
        }
        if let Some(linking_repositories) = self.back_links.get_mut(&digest) {
            linking_repositories.remove(&(repository.clone(), LinkKind::Manifest, row.record.uid));
        }
    }

    pub(super) fn unlink(
        &mut self,
        cx: Context,
        repository: &RepositoryName,
        digest: Digest,
        author: &Author,
    ) -> Removal {
        if !self.links.contains_key(&(repository.clone(), digest)) {
            return Removal::Absent;
        }
        if let Some(parent) = self.parent(repository, digest) {
            return Removal::Referenced(parent);
        }
        self.remove_link(repository, digest);
        self.access.record(author.blob_deleted(cx, repository, &digest));
        Removal::Removed
    }

    /// Deletes a link and its back-link.
    pub(super) fn remove_link(&mut self, repository: &RepositoryName, digest: Digest) {
        if let Some(row) = self.links.remove(&(repository.clone(), digest))
            && let Some(linking_repositories) = self.back_links.get_mut(&digest)
        {
            linking_repositories.remove(&(repository.clone(), LinkKind::Blob, row.link.uid));
        }
    }

    /// Records the references of a manifest. Their targets are not unreferenced any more.
    pub(super) fn add_references(&mut self, repository: &RepositoryName, parent: Digest, targets: &BTreeSet<Digest>) {
        for target in targets {
            let key = (repository.clone(), *target);
            if let Some(row) = self.links.get_mut(&key) {
                row.marked = None;
            }
            self.edges.entry(key).or_default().insert(parent);
        }
    }

    /// Schedules an object for deletion. It has one pending deletion.
    pub(super) fn schedule_deletion(&mut self, pending_deletion: PendingDeletion) {
        let key = (
            pending_deletion.location.store.clone(),
            pending_deletion.location.key.clone(),
        );
        let pending_deletion = match self.deletion_queue.remove(&key) {
            Some(before) => before.joined(pending_deletion),
            None => pending_deletion,
        };
        self.deletion_queue.insert(key, pending_deletion);
    }

    /// Determines the location of a digest's object: the recorded one, if there is one without a defect, else
    /// `location`. The location that is not used is scheduled for deletion.
    fn choose_location(&mut self, cx: Context, digest: Digest, location: &Location, size: u64) -> BlobRow {
        let defective = self.blobs.get(&digest).filter(|blob| blob.defect.is_some());
        let defective = defective.filter(|blob| blob.location != *location);
        if let Some(old) = defective.map(|blob| blob.location.clone()) {
            self.replace_location(cx, digest, &old, location);
        }
        let blob = self.blobs.entry(digest).or_insert_with(|| BlobRow {
            location: location.clone(),
            size,
            at: cx.now,
            defect: None,
        });
        if blob.location != *location {
            let blob = blob.clone();
            self.schedule_deletion(PendingDeletion {
                location: location.clone(),
                digest: Some(digest),
                unfinished: false,
                at: cx.now,
            });
            return blob;
        }
        blob.clone()
    }

    /// Links a blob, with a back-link, unless it is linked already. Then the link is unmarked.
    fn make_link(&mut self, cx: Context, repository: &RepositoryName, digest: Digest, blob: BlobRow) {
        let key = (repository.clone(), digest);
        if let Some(row) = self.links.get_mut(&key) {
            row.marked = None;
            return;
        }
        let row = LinkRow {
            link: Link {
                location: blob.location,
                size: blob.size,
                uid: cx.uid,
                defect: None,
            },
            at: cx.now,
            marked: None,
        };
        self.links.insert(key, row);
        self.back_links
            .entry(digest)
            .or_default()
            .insert((repository.clone(), LinkKind::Blob, cx.uid), cx.now);
    }

    /// Whether a manifest may refer to the digest, as a blob or as a manifest.
    fn is_present(&self, repository: &RepositoryName, digest: Digest) -> bool {
        self.link(repository, digest).is_some_and(|link| link.defect.is_none())
            || self
                .manifest(repository, digest)
                .is_some_and(|manifest| !manifest.content.is_defective())
    }

    /// A manifest that refers to `target`.
    pub(super) fn parent(&self, repository: &RepositoryName, target: Digest) -> Option<Digest> {
        self.edges.get(&(repository.clone(), target))?.first().copied()
    }
}
