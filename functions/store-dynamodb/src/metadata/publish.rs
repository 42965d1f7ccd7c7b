//! Manifests: a put writes an edge to each digest to which the manifest refers, reads these targets, and publishes the
//! manifest and its tags at once.
//!
//! The edges are the back-references that protect the targets. They are written before any of the targets is read. A
//! remover deletes a target only after it has marked the target and then found no edge. So there are two cases: if the
//! put finds a target without a mark, its edge keeps the target from then on. If it finds a mark, it clears the mark,
//! and the remover notices that. Only then does one transaction make the manifest and its tags visible.
//!
//! An interrupted put leaves edges with a uid that no manifest has. They stop counting after
//! [`YOUNG_MS`](registry::store::collection::YOUNG_MS), which is much longer than the deadline of any put.

use std::collections::BTreeSet;

use oci::{Digest, Tag};
use registry::store::metadata::{Content, ManifestPut, ManifestRecord, NewContent, Protected, PutManifest, TagGuard};
use registry::store::{Location, StoreError, Uid};

use super::StoreCall;
use super::commit::{StoredBytes, has_uid, unmark};
use super::tags::{self, ReadTag, TagTarget};
use crate::keys;
use crate::records::{
    EdgeRow, ItemFields, LinkKind, ListedRow, ManifestRow, ReferenceList, ReferencesRow, ReferrerRow, attributes,
};
use crate::table::{BATCH_READS, Item, ItemKey, Value, Write, WriteCondition, Written};

/// The outcome of the transaction that publishes.
enum PublishOutcome {
    /// The manifest and its tags are visible.
    Done,
    /// The manifest has changed since it was read.
    ManifestChanged {
        /// A try was not answered and may still be applied late, so its back-references must stay.
        perhaps_late: bool,
    },
    /// The guard refuses a change of a tag. Nothing was changed.
    Protected(Protected),
}

/// The rows that a put writes before it publishes a manifest under a new uid.
struct BackReferenceRows {
    uid: Uid,
    items: Vec<Item>,
}

/// Whether the stored bytes of the manifest have a known defect that this put cannot repair.
fn cannot_repair(put: &PutManifest, row: &ManifestRow) -> bool {
    match row.record.content {
        Content::Defective(..) => !matches!(put.content, NewContent::Sealed(_)),
        Content::Damaged(_) => !matches!(put.content, NewContent::Inline(_)),
        Content::Inline(_) | Content::Stored(_) => false,
    }
}

/// The bytes of this put, if the record has other bytes or another size. The bytes of the put match the digest, so that
/// the record is damaged.
fn repairing_bytes<'a>(put: &'a PutManifest, row: &ManifestRow) -> Option<&'a bytes::Bytes> {
    match (&put.content, &row.record.content) {
        (NewContent::Inline(repair), Content::Inline(recorded))
            if repair != recorded || row.record.size != repair.len() as u64 =>
        {
            Some(repair)
        }
        (NewContent::Inline(repair), Content::Damaged(_)) => Some(repair),
        _ => None,
    }
}

impl StoreCall<'_> {
    pub(super) async fn put_manifest(
        &self,
        put: &PutManifest,
        guard: &dyn TagGuard,
    ) -> Result<ManifestPut, StoreError> {
        let wanted: BTreeSet<&Tag> = put.tags.iter().collect();
        let key = keys::manifest(&put.repository, &put.digest);
        let mut round = 0;
        loop {
            let mut keys = tags::keys_of(&put.repository, wanted.iter().copied());
            keys.insert(key.clone());
            let items = self.main.get_all(&keys).await?;
            let seen = wanted.iter().map(|tag| ReadTag::among(&items, &put.repository, tag));
            let seen = seen.collect::<Result<Vec<_>, _>>()?;
            let outcome = match items.get(&key).map(ManifestRow::read).transpose()? {
                Some(row) if cannot_repair(put, &row) => Some(ManifestPut::Gone),
                Some(row) => self.put_again(put, &row, seen, guard).await?,
                None if put.content == NewContent::Unchanged => Some(ManifestPut::Gone),
                None => self.put_new(put, seen, self.uid(round), guard).await?,
            };
            if let Some(outcome) = outcome {
                return Ok(outcome);
            }
            self.main.lost_race(u32::try_from(round).unwrap_or(u32::MAX)).await?;
            round += 1;
        }
    }

    /// Moves and adds tags of an existing manifest. `None`: the manifest does not exist any more, or has another uid.
    async fn put_again(
        &self,
        put: &PutManifest,
        row: &ManifestRow,
        seen: Vec<ReadTag>,
        guard: &dyn TagGuard,
    ) -> Result<Option<ManifestPut>, StoreError> {
        if row.record.media_type != put.media_type {
            return Ok(Some(ManifestPut::OtherType(row.record.media_type.clone())));
        }
        let repair = repairing_bytes(put, row);
        // With at most one tag, the state was as requested when it was read, so that no write is necessary. In all
        // other cases a transaction has to confirm the state, and to show a remover of the manifest that it was put
        // again.
        let as_wanted = repair.is_none()
            && row.mark.is_none()
            && seen.len() <= 1
            && seen.iter().all(|tag| tag.refers_to(&put.digest));
        if !as_wanted {
            let mut set = vec![(attributes::VERSION, Value::N(row.version.saturating_add(1)))];
            if let Some(bytes) = repair {
                set.push((attributes::CONTENT, Value::B(bytes.clone())));
                set.push((attributes::SIZE, Value::N(bytes.len() as u64)));
            }
            let again = Write::Update {
                key: keys::manifest(&put.repository, &put.digest),
                set,
                remove: [Some(attributes::MARK), repair.map(|_| attributes::DEFECT)]
                    .into_iter()
                    .flatten()
                    .collect(),
                condition: has_uid(row.record.uid),
            };
            match self.publish(put, false, vec![again], &row.record, seen, guard).await? {
                PublishOutcome::Done => {}
                PublishOutcome::ManifestChanged { .. } => return Ok(None),
                PublishOutcome::Protected(protected) => return Ok(Some(ManifestPut::Protected(protected))),
            }
        }
        if let NewContent::Sealed(location) = &put.content {
            return self.offer_again(put, row, location).await;
        }
        Ok(Some(if as_wanted {
            ManifestPut::AsItWas
        } else {
            ManifestPut::Stored
        }))
    }

    /// Decides about an object that was sealed for an existing manifest: it has the same bytes, so that it is used only
    /// if the recorded object has a defect. `None`: the manifest does not exist any more.
    async fn offer_again(
        &self,
        put: &PutManifest,
        row: &ManifestRow,
        location: &Location,
    ) -> Result<Option<ManifestPut>, StoreError> {
        let (repository, digest) = (&put.repository, &put.digest);
        let Some(recorded) = row.record.content.object() else {
            self.schedule_deletion(digest, location).await?;
            return Ok(Some(ManifestPut::Stored));
        };
        if recorded == location {
            return Ok(Some(ManifestPut::Stored));
        }
        // The back-link of the existing manifest protects the record.
        let offered = StoredBytes::sealed(location, put.size);
        let Some(bytes) = self.find_or_record_bytes(digest, Some(&offered)).await? else {
            return Ok(None);
        };
        self.sync_object(repository, digest, LinkKind::Manifest).await?;
        if bytes.location == *location {
            return Ok(Some(ManifestPut::Stored));
        }
        self.schedule_deletion(digest, location).await?;
        Ok(Some(ManifestPut::StoredElsewhere(bytes.location)))
    }

    /// Publishes the manifest under a new uid. `None`: an identical put was first.
    async fn put_new(
        &self,
        put: &PutManifest,
        mut seen: Vec<ReadTag>,
        uid: Uid,
        guard: &dyn TagGuard,
    ) -> Result<Option<ManifestPut>, StoreError> {
        // Asked now, so that a refused manifest leaves nothing, and again before each transaction.
        let refused = self
            .check_naming(&put.repository, &mut seen, &put.digest, guard)
            .await?;
        if let Some(protected) = refused {
            return Ok(Some(ManifestPut::Protected(protected)));
        }
        let digests: Vec<Digest> = put.required.union(&put.excepted).copied().collect();
        let back_references = self.back_references(put, &digests, uid);
        self.write_back_references(&back_references).await?;
        let missing = self.missing(put).await?;
        if !missing.is_empty() {
            self.remove_back_references(put, &back_references, None).await;
            return Ok(Some(ManifestPut::Missing(missing)));
        }
        // The back-link of a large manifest is written last, so that a refused manifest leaves no blob record.
        let (content, stored) = match &put.content {
            NewContent::Inline(bytes) => (Content::Inline(bytes.clone()), None),
            NewContent::Sealed(location) => {
                let bytes = self.link_manifest_bytes(put, location, uid).await?;
                (bytes.content(), Some(bytes))
            }
            NewContent::Unchanged => return Ok(Some(ManifestPut::Gone)),
        };
        self.keep_listed(&put.repository, Some(self.cx.now)).await?;

        let references = ReferenceList::of(&digests);
        let row = ManifestRow {
            record: ManifestRecord {
                media_type: put.media_type.clone(),
                size: put.size,
                content,
                subject: put.subject.as_ref().map(|(subject, _)| *subject),
                artifact_type: put.artifact_type.clone(),
                uid,
            },
            at: self.cx.now,
            version: 0,
            references,
            mark: None,
        };
        let publication = self.publication(put, &row)?;
        match self.publish(put, true, publication, &row.record, seen, guard).await? {
            PublishOutcome::Done => {}
            PublishOutcome::Protected(protected) => {
                self.remove_back_references(put, &back_references, Some(&row.record.content))
                    .await;
                return Ok(Some(ManifestPut::Protected(protected)));
            }
            PublishOutcome::ManifestChanged { perhaps_late } => {
                if !perhaps_late {
                    self.remove_back_references(put, &back_references, Some(&row.record.content))
                        .await;
                }
                return Ok(None);
            }
        }
        if let (NewContent::Sealed(offered), Some(bytes)) = (&put.content, stored)
            && !bytes.are_as_sealed(offered)
        {
            if bytes.location != *offered {
                self.schedule_deletion(&put.digest, offered).await?;
            }
            self.check_bytes_again(&put.repository, &put.digest, LinkKind::Manifest, &bytes)
                .await?;
            if bytes.location != *offered {
                return Ok(Some(ManifestPut::StoredElsewhere(bytes.location)));
            }
        }
        Ok(Some(ManifestPut::Stored))
    }

    /// The rows that a put writes before it reads its targets: the edges, and the list of references if that is
    /// separate.
    fn back_references(&self, put: &PutManifest, digests: &[Digest], uid: Uid) -> BackReferenceRows {
        let edges = digests.iter().map(|target| {
            let edge = EdgeRow {
                target: *target,
                parent: put.digest,
                uid,
                at: self.cx.now,
            };
            edge.item(&put.repository)
        });
        let mut items: Vec<Item> = edges.collect();
        if let ReferenceList::Separate(_) = ReferenceList::of(digests) {
            let (repository, digest) = (&put.repository, &put.digest);
            items.extend(ReferencesRow::all(repository, digest, uid, digests, self.cx.now));
        }
        BackReferenceRows { uid, items }
    }

    async fn write_back_references(&self, back_references: &BackReferenceRows) -> Result<(), StoreError> {
        let writes = back_references.items.iter().map(|item| Write::Put {
            item: item.clone(),
            condition: WriteCondition::Always,
        });
        self.main.write_all(&writes.collect::<Vec<_>>()).await
    }

    /// Removes the back-references of a put that did not publish. A failure is only logged: they belong to no manifest,
    /// soon stop counting, and are collected. The response to the client does not depend on them.
    async fn remove_back_references(
        &self,
        put: &PutManifest,
        back_references: &BackReferenceRows,
        content: Option<&Content>,
    ) {
        let drops = back_references.items.iter().map(|item| item.key.clone());
        let back_link = keys::back_link(&put.digest, &put.repository, back_references.uid);
        let back_link = content
            .is_some_and(|content| content.object().is_some())
            .then_some(back_link);
        let drops = drops.chain(back_link).map(Write::delete);
        if let Err(error) = self.main.write_all(&drops.collect::<Vec<_>>()).await {
            tracing::warn!(%error, "could not remove the edges of a manifest that was not published: collection removes them later");
        }
    }

    /// The required digests that the repository has neither as a blob nor as a manifest. Clears the marks of those that
    /// it has.
    async fn missing(&self, put: &PutManifest) -> Result<Vec<Digest>, StoreError> {
        type KeyFunction = fn(&oci::RepositoryName, &Digest) -> ItemKey;
        // A reference may be a link or a manifest. The likely kind is read first, so that most references cost one
        // read.
        let key_functions: [KeyFunction; 2] = if put.media_type.is_index() {
            [keys::manifest, keys::link]
        } else {
            [keys::link, keys::manifest]
        };
        let mut remaining: Vec<Digest> = put.required.iter().copied().collect();
        for key_of in key_functions {
            let mut absent = Vec::new();
            // Read in parts, because manifests are read with their bytes.
            for some in remaining.chunks(2 * BATCH_READS) {
                let keys = some.iter().map(|digest| key_of(&put.repository, digest));
                let found = self.main.get_all(&keys.collect()).await?;
                for digest in some {
                    if !self.is_kept(found.get(&key_of(&put.repository, digest))).await? {
                        absent.push(*digest);
                    }
                }
            }
            remaining = absent;
        }
        Ok(remaining)
    }

    /// Whether a target exists and is kept by this put's edge.
    async fn is_kept(&self, item: Option<&Item>) -> Result<bool, StoreError> {
        match item {
            None => Ok(false),
            // The target exists, but cannot be pulled.
            Some(item) if ItemFields(item).flag(attributes::DEFECT) => Ok(false),
            Some(item) if !ItemFields(item).flag(attributes::MARK) => Ok(true),
            // Unmarks the target under any uid: the edge keeps each of them.
            Some(item) => {
                let clear_mark = unmark(item.key.clone(), WriteCondition::Exists);
                Ok(self.main.write(&clear_mark).await?.is_done())
            }
        }
    }

    async fn link_manifest_bytes(
        &self,
        put: &PutManifest,
        location: &Location,
        uid: Uid,
    ) -> Result<StoredBytes, StoreError> {
        let offered = StoredBytes::sealed(location, put.size);
        let link_kind = LinkKind::Manifest;
        self.link_bytes(&put.repository, &put.digest, link_kind, uid, offered)
            .await
    }

    /// The writes that make a new manifest visible.
    fn publication(&self, put: &PutManifest, row: &ManifestRow) -> Result<Vec<Write>, StoreError> {
        let listed = ListedRow {
            at: self.cx.now,
            size: put.size,
        };
        let mut writes = vec![
            Write::Put {
                item: row.item(&put.repository, &put.digest),
                condition: WriteCondition::Absent,
            },
            Write::Put {
                item: listed.item(&put.repository, &put.digest),
                condition: WriteCondition::Always,
            },
        ];
        if let Some((subject, referrer)) = &put.subject {
            writes.push(Write::Put {
                item: ReferrerRow::item(&put.repository, subject, referrer)?,
                condition: WriteCondition::Always,
            });
        }
        Ok(writes)
    }

    /// Applies `of_manifest` and the changes of the tags in one transaction, with their event. The first write of
    /// `of_manifest` is that of the manifest itself. If another request has changed a tag, the tag is read again, the guard
    /// is asked again, and the transaction is repeated.
    async fn publish(
        &self,
        put: &PutManifest,
        is_new: bool,
        of_manifest: Vec<Write>,
        record: &ManifestRecord,
        mut seen: Vec<ReadTag>,
        guard: &dyn TagGuard,
    ) -> Result<PublishOutcome, StoreError> {
        // The media type is always that of the first put, and every later put has the same.
        let target = TagTarget {
            digest: &put.digest,
            media_type: &record.media_type,
            size: record.size,
        };
        let mut perhaps_late = false;
        let mut round = 0;
        loop {
            let (repository, digest) = (&put.repository, &put.digest);
            if let Some(protected) = self.check_naming(repository, &mut seen, digest, guard).await? {
                if perhaps_late {
                    // The try may have changed the tag before another request did.
                    return Err(StoreError::unavailable(
                        "a tag was changed by other requests, and it is not known whether this one changed it too",
                    ));
                }
                return Ok(PublishOutcome::Protected(protected));
            }
            let mut writes = of_manifest.clone();
            for tag in &seen {
                writes.extend(tag.naming(self.cx, repository, target, &put.author));
            }
            let event = {
                let mut set = seen.iter().filter_map(|tag| tag.other_than(digest)).peekable();
                let is_change = is_new || set.peek().is_some();
                is_change.then(|| put.author.manifest_pushed(self.cx, repository, digest, set))
            };
            if let Some(event) = event {
                writes.push(self.event(event).await?);
            }
            let (written, unanswered) = self.main.transact_once(&writes).await?;
            perhaps_late |= unanswered;
            match written {
                Written::Done => return Ok(PublishOutcome::Done),
                Written::Refused(which) if which.contains(&0) => {
                    return Ok(PublishOutcome::ManifestChanged { perhaps_late });
                }
                Written::Refused(_) => {}
            }
            self.main.lost_race(round).await?;
            round += 1;
            let tags: BTreeSet<&Tag> = put.tags.iter().collect();
            seen = self.see_tags(&put.repository, tags).await?;
        }
    }
}
